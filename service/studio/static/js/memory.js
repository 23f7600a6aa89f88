// What this browser keeps: the draft of the form, tags of jobs, and which searches began here.

const read = (name, otherwise) => {
  try {
    return JSON.parse(localStorage.getItem(`sitsearch.${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
};
const write = (name, value) => localStorage.setItem(`sitsearch.${name}`, JSON.stringify(value));

/** Keep a request for the form; `compare` is the job that its outcome is to be compared with. */
export const keepDraft = (request, compare = null) => write("draft", { request, compare });

export function takeDraft() {
  const draft = read("draft", null);
  localStorage.removeItem("sitsearch.draft");
  return draft;
}

export const tagsOf = (id) => read("tags", {})[id] ?? [];

export function setTags(id, text) {
  const tags = read("tags", {});
  const wanted = text.split(",").map((tag) => tag.trim()).filter(Boolean);
  if (wanted.length) tags[id] = wanted;
  else delete tags[id];
  write("tags", tags);
}

export const partnerOf = (id) => read("partners", {})[id] ?? null;

/** A job was begun to be compared with another. */
export function pairUp(id, other) {
  const partners = Object.entries(read("partners", {})).slice(-200);
  write("partners", Object.fromEntries([...partners, [id, other]]));
}
