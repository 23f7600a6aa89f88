// All jobs: a gallery and a table, to look through and to compare.

import { get, picture } from "./api.js";
import { h, newId, put } from "./dom.js";
import { tagsOf } from "./memory.js";
import { ago, asked, budget, count, ended, score, seconds, selecting } from "./words.js";

const PAGE = 60;
const REFRESH = 4000;

export function showJobs(main) {
  const stop = new AbortController();
  const chosen = new Set();
  let jobs = [];
  let next = null;
  let grid = localStorage.getItem("sitsearch.view") !== "table";
  const search = h("input", { type: "search", placeholder: "Prompt, algorithm, tag…", "aria-label": "Filter by words", oninput: () => render() });
  const status = h("select", { "aria-label": "Filter by status", onchange: () => load() }, ["", "running", "queued", "succeeded", "failed", "canceled"].map((one) => h("option", { value: one }, one || "any status")));
  const place = h("div", {});
  const compare = h("a", { class: "button", hidden: true });
  const older = h("button", { type: "button", hidden: true, onclick: () => load(next) }, "Older ones");
  const views = h(
    "div",
    { class: "segments", role: "radiogroup", "aria-label": "View" },
    [
      ["gallery", true],
      ["table", false],
    ].map(([name, value]) => {
      const input = h("input", { type: "radio", name: "view", value: name, onchange: () => ((grid = value), localStorage.setItem("sitsearch.view", name), render()) });
      input.checked = grid === value;
      return h("label", {}, input, h("span", {}, name));
    }),
  );
  put(main, h("div", { class: "jobs-head" }, h("h1", {}, "Jobs"), h("div", { class: "row filters" }, search, status, views, compare)), place, older);

  async function load(from = null) {
    const address = from ?? `jobs?limit=${PAGE}${status.value ? `&status=${status.value}` : ""}`;
    try {
      const page = await get(address, { signal: stop.signal });
      jobs = from ? [...jobs, ...page.jobs] : page.jobs;
      next = page.links.next;
      older.hidden = !next;
      render();
    } catch (error) {
      if (error.name !== "AbortError" && !jobs.length) put(place, h("p", { class: "empty", role: "alert" }, error.message));
    }
  }

  const matches = (job) => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = [asked(job.request), job.request.search.algorithm, selecting(job.request), job.request.model, job.status, job.id, ...tagsOf(job.id)].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  };

  function choose(id, on) {
    if (on) chosen.add(id);
    else chosen.delete(id);
    compare.hidden = chosen.size < 2;
    compare.textContent = `Compare ${chosen.size}`;
    compare.href = `#/compare/${[...chosen].join(",")}`;
  }

  function check(job) {
    const id = newId("choose");
    const box = h("input", { type: "checkbox", id, onchange: (event) => choose(job.id, event.target.checked) });
    box.checked = chosen.has(job.id);
    return h("label", { class: "choose", for: id }, box, h("span", { class: "sr" }, `Compare ${asked(job.request)}, ${job.request.search.algorithm}`));
  }

  function thumb(job) {
    const image = h("img", { alt: "", loading: "lazy", hidden: true });
    const box = h("span", { class: "blank" }, image);
    if (job.links.images.length) {
      picture(job.links.images[0], `${job.progress.round}.${job.status}`)
        .then((address) => {
          image.src = address;
          image.hidden = false;
        })
        .catch(() => {});
    }
    return box;
  }

  function render() {
    const found = jobs.filter(matches);
    if (!found.length) {
      put(place, h("div", { class: "empty" }, jobs.length ? "No job matches." : ["Nothing was searched for yet. ", h("a", { href: "#/" }, "Begin with one"), "."]));
      return;
    }
    const focused = document.activeElement?.dataset?.job;
    put(place, grid ? h("ul", { class: "gallery" }, found.map(cardOf)) : tableOf(found));
    if (focused) place.querySelector(`[data-job="${focused}"]`)?.focus();
  }

  function cardOf(job) {
    const tags = tagsOf(job.id);
    return h(
      "li",
      { class: `job-card ${job.status}` },
      h(
        "a",
        { href: `#/jobs/${job.id}`, "data-job": job.id },
        thumb(job),
        h("span", { class: "job-name" }, asked(job.request)),
        h("span", { class: "hint" }, job.request.search.algorithm, " · ", selecting(job.request)),
        h("span", { class: "job-line" }, ended(job) ? h("b", {}, score(job.progress.best_score)) : h("b", { class: "going" }, job.status === "running" ? `${Math.round((100 * job.progress.nfe_spent) / Math.max(1, budget(job.progress)))} %` : "waiting"), h("span", { class: "hint" }, job.status === "failed" || job.status === "canceled" ? job.status : `${count(job.progress.nfe_spent)} NFE`)),
        tags.length ? h("span", { class: "tags" }, tags.map((tag) => h("i", {}, tag))) : null,
      ),
      check(job),
    );
  }

  function tableOf(found) {
    const columns = ["", "", "Asked for", "Search", "Selected by", "Best", "NFE", "Took", "Status", "When"];
    return h(
      "div",
      { class: "table-box", tabindex: 0, role: "region", "aria-label": "Jobs" },
      h(
        "table",
        { class: "jobs-table" },
        h("thead", {}, h("tr", {}, columns.map((name, place) => (name ? h("th", { scope: "col" }, name) : h("td", {}, h("span", { class: "sr" }, place ? "Picture" : "Compare")))))),
        h(
          "tbody",
          {},
          found.map((job) =>
            h(
              "tr",
              {},
              h("td", {}, check(job)),
              h("td", {}, thumb(job)),
              h("th", { scope: "row" }, h("a", { href: `#/jobs/${job.id}`, "data-job": job.id }, asked(job.request))),
              h("td", {}, job.request.search.algorithm),
              h("td", {}, selecting(job.request)),
              h("td", { class: "n" }, score(job.progress.best_score)),
              h("td", { class: "n" }, count(job.progress.nfe_spent)),
              h("td", { class: "n" }, job.finished_at && job.started_at ? seconds(job.finished_at - job.started_at) : "–"),
              h("td", {}, job.status),
              h("td", {}, ago(job.created_at)),
            ),
          ),
        ),
      ),
    );
  }

  load();
  const timer = setInterval(() => jobs.some((job) => !ended(job)) && jobs.length <= PAGE && load(), REFRESH);
  return () => {
    clearInterval(timer);
    stop.abort();
  };
}
