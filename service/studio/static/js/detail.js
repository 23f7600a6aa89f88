// One candidate: its picture, what every verifier says of it, where it came from, and what can be done from here.

import { get, picture, post, Problem } from "./api.js";
import { h, icon, put, say } from "./dom.js";
import { tree } from "./tree.js";
import { count, plural, score } from "./words.js";

const MOVES = { neighbor: "neighbour", blend: "mutation", renoise: "re-noised", perturb: "moved", integrate: "integrated" };

function stepText(op) {
  if (op.op === "integrate") return `in ${op.steps} steps to t = ${op.to}${op.guide ? `, guided by ${op.guide.verifier ?? "samples"}` : ""}`;
  if (op.op === "neighbor") return `at cosine ${op.cosine}`;
  if (op.op === "blend") return `of strength ${op.strength}`;
  if (op.op === "renoise") return `to t = ${op.to}`;
  return `by ${op.scale}`;
}

let models;

/** Whether a sampling method draws noise on the way, so that the same start noise is another picture. */
async function stochastic(request, method) {
  models ??= get("models").catch(() => ({ models: [] }));
  const model = (await models).models.find((one) => one.name === request.model);
  return model?.samplers.find((one) => one.name === method)?.stochastic ?? true;
}

/** The dialog of a job's candidates; `show(id)` opens it or goes on to another one. */
export function detail(live, { onClose, onMove }) {
  const body = h("div", { class: "sheet detail" });
  const dialog = h("dialog", { "aria-label": "Candidate" }, body);
  document.body.append(dialog);
  let shown = null;
  dialog.addEventListener("close", () => {
    shown = null;
    onClose();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest(".tree")) return;
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const all = live.rounds.flatMap((round) => round.candidates);
      const at = all.findIndex((candidate) => candidate.id === shown) + (event.key === "ArrowRight" ? 1 : -1);
      if (all[at]) onMove(all[at].id);
    }
  });

  async function show(id) {
    if (shown === id) return;
    shown = id;
    if (!dialog.open) {
      put(body, h("p", { class: "hint" }, "One moment…"));
      dialog.showModal();
    }
    let view;
    try {
      view = await get(live.address_of(id));
    } catch (error) {
      if (shown === id) put(body, closing(), h("h2", {}, `Candidate ${id}`), h("p", { role: "alert", class: "fault" }, error.message));
      return;
    }
    const { request } = live.job;
    const draws = await stochastic(request, view.candidate.recipe.method ?? request.sampler.method);
    if (shown !== id) return;
    draw(view, draws);
    if (view.links.image) {
      const address = await picture(view.links.image).catch(() => null);
      const place = body.querySelector(".large img");
      if (address && place && shown === id) place.src = address;
    }
  }

  const closing = () => h("button", { type: "button", class: "quiet close", "aria-label": "Close", onclick: () => dialog.close() }, icon("close"));

  function draw(view, draws) {
    const { candidate, links, thumbnail, family, round, step } = view;
    const request = live.job.request;
    const audits = live.job.result?.images.find((image) => image.candidate.id === candidate.id)?.audits ?? null;
    const rows = [...Object.entries(candidate.scores).map(([name, value]) => [name, value, "selects"]), ...Object.entries(audits ?? {}).map(([name, value]) => [name, value, "audits"])];
    const ops = candidate.recipe.ops;
    const parents = family.find((one) => one.id === candidate.id)?.parent;
    const gone = h("p", { class: "fault", role: "alert" });
    const direct = !draws && ops.filter((op) => !["neighbor", "blend"].includes(op.op)).length === 1 && ops.at(-1).op === "integrate";

    const submit = async (body) => {
      put(gone);
      try {
        const job = await post("generate", body);
        dialog.close();
        location.hash = `#/jobs/${job.id}`;
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        put(gone, error.message);
      }
    };
    const start_from = { job: live.job.id, candidate: candidate.id, recipe: candidate.recipe };
    const from = () => submit({ ...request, seed: request.seed + 1, num_images: 1, diversity: 0, stop: {}, guide: request.guide, search: { algorithm: "zero_order", starts: 1 }, start_from });
    const again = () => {
      const guide = ops.at(-1).guide;
      const sampler = { ...request.sampler, steps: ops.at(-1).steps, final_steps: null, method: candidate.recipe.method ?? request.sampler.method };
      return submit({ ...request, num_images: 1, diversity: 0, stop: {}, guide: guide ? request.guide : "off", search: "random", sampler, budget: { nfe: candidate.nfe }, start_from });
    };

    put(
      body,
      closing(),
      h(
        "div",
        { class: "detail-top" },
        h("div", { class: "large" }, thumbnail ? h("img", { src: thumbnail, alt: `Candidate ${candidate.id}` }) : h("span", { class: "blank" })),
        h(
          "div",
          { class: "stack" },
          h("div", {}, h("h2", {}, `Candidate ${candidate.id}`), h("p", { class: "hint" }, `Round ${round + 1}, ${step}${parents ? `, from ${parents}` : ""}. ${count(candidate.nfe)} NFE${candidate.gradients ? `, ${plural(candidate.gradients, "gradient")}` : ""}.`)),
          h(
            "table",
            { class: "scores" },
            h("caption", { class: "sr" }, "Scores"),
            h("tbody", {}, rows.map(([name, value, role]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, score(value)), h("td", { class: "hint" }, role)))),
          ),
          h(
            "div",
            { class: "row" },
            h("button", { type: "button", class: "main", onclick: from }, icon("branch"), "Search from here"),
            direct ? h("button", { type: "button", onclick: again }, icon("again"), "Make again") : null,
            h("button", { type: "button", onclick: () => download(view) }, icon("download"), "Download"),
          ),
          gone,
        ),
      ),
      h("section", { class: "stack" }, h("h3", {}, family.length > 1 ? "Where it came from" : "It came from plain noise"), family.length > 1 ? tree(family, candidate.id, Object.keys(candidate.scores)[0], onMove) : null),
      h(
        "details",
        {},
        h("summary", {}, "Recipe"),
        h("ol", { class: "recipe" }, h("li", {}, h("b", {}, "noise "), `seed ${candidate.recipe.seed}, draw (${candidate.recipe.round}, ${candidate.recipe.index})`), ops.map((op) => h("li", {}, h("b", {}, `${MOVES[op.op]} `), stepText(op)))),
        h("pre", { tabindex: 0 }, JSON.stringify(candidate.recipe, null, 1)),
      ),
    );
    dialog.setAttribute("aria-label", `Candidate ${candidate.id}`);
    const here = body.querySelector(".tree .here");
    here?.scrollIntoView({ block: "nearest", inline: "center" });
  }

  async function download(view) {
    const address = view.links.image ? await picture(view.links.image) : view.thumbnail;
    if (!address) return say("There is no picture of it any more.");
    const link = h("a", { href: address, download: `${live.job.id.slice(0, 8)}-${view.candidate.id}.${view.links.image ? "png" : "webp"}` });
    link.click();
    return say(view.links.image ? "The picture with its recipe is saved." : "The small picture is saved: only the best candidates keep the full one.");
  }

  return {
    show,
    hide: () => dialog.open && dialog.close(),
    close() {
      dialog.remove();
    },
  };
}
