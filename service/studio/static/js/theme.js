// Before anything is drawn: light or dark, as was chosen here, or as the system says.
(() => {
  const chosen = localStorage.getItem("sitsearch.theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
})();
