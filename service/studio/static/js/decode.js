// Small pictures decoded beside the page: to make a blob of each takes longer than to draw them.

self.addEventListener("message", async ({ data: { id, picture } }) => {
  let bitmap = null;
  try {
    const [kind, text] = picture.slice(5).split(";base64,");
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    bitmap = await createImageBitmap(new Blob([bytes], { type: kind }));
  } catch {
    // what cannot be decoded is shown as no picture
  }
  self.postMessage({ id, bitmap }, bitmap ? [bitmap] : []);
});
