// Which page is shown: the part of the address after the `#` says it, so that it can be shared and reloaded.

import { key } from "./api.js";
import { say } from "./dom.js";
import { showCompare } from "./compare.js";
import { showJob } from "./job.js";
import { showJobs } from "./jobs.js";
import { showNew } from "./new.js";

const main = document.getElementById("main");
let leave = () => {};

const ROUTES = [
  [/^\/jobs\/([^/]+)(?:\/c\/(.+))?$/, (id) => showJob(main, decodeURIComponent(id)), "jobs"],
  [/^\/jobs$/, () => showJobs(main), "jobs"],
  [/^\/compare\/(.+)$/, (ids) => showCompare(main, ids.split(",").map(decodeURIComponent)), "jobs"],
  [/^\/?(?:new)?$/, () => showNew(main), "new"],
];

let shown = "";

function route() {
  const path = location.hash.slice(1);
  if (path === "main") return;
  const [, page] = /^(\/jobs\/[^/]+)\/c\//.exec(path) ?? [null, path];
  if (page === shown && page !== "" && page !== "/") return; // a candidate's dialog opened or closed over its job
  shown = page;
  leave();
  for (const [pattern, show, name] of ROUTES) {
    const found = pattern.exec(path);
    if (!found) continue;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.page === name) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    leave = show(...found.slice(1)) ?? (() => {});
    window.scrollTo(0, 0);
    return;
  }
  location.hash = "#/";
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

document.getElementById("theme-button").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("sitsearch.theme", root.dataset.theme);
  window.dispatchEvent(new Event("themechange"));
});

const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key-input");
document.getElementById("key-button").addEventListener("click", () => {
  input.value = key.get();
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
});
dialog.addEventListener("close", () => {
  if (dialog.returnValue !== "save") return;
  key.set(input.value.trim());
  say(input.value.trim() ? "The key is kept in this browser." : "The key is forgotten.");
  shown = "";
  route();
});
input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  dialog.close("save");
});

window.addEventListener("hashchange", route);
route();
