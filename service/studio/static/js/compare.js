// Several searches on one axis.

import { picture } from "./api.js";
import { chart, colorOf, fromTheStart } from "./curve.js";
import { h, put } from "./dom.js";
import { Live } from "./live.js";
import { asked, budget, count, ended, score, seconds, selecting, selectors } from "./words.js";

const MOST = 6;

export function showCompare(main, ids) {
  const lives = ids.slice(0, MOST).map((id) => new Live(`jobs/${encodeURIComponent(id)}`));
  const curve = chart();
  const legend = h("div", { class: "versus" });
  const title = h("h1", {}, "Compared");
  const note = h("p", { class: "lead" });
  put(main, h("div", { class: "hero" }, title, note), h("div", { class: "card curve-card" }, curve.element), legend);
  const panels = lives.map(() => h("article", { class: "card" }));
  put(legend, panels);

  function draw() {
    const there = lives.filter((live) => live.job);
    if (!there.length) return;
    const names = new Set(there.map((live) => asked(live.job.request)));
    title.textContent = names.size === 1 ? [...names][0] : "Compared";
    const verifiers = new Set(there.map((live) => selecting(live.job.request)));
    const relative = there.some((live) => live.job.request.verifier.members);
    const common = selectors(there[0].job.request).find((name) => there.every((live) => selectors(live.job.request).includes(name)));
    note.textContent = verifiers.size === 1 ? `${there.length} searches, selected by ${[...verifiers][0]}.` : common ? `The searches were selected by different verifiers; ${common} is shown.` : "The searches were selected by different verifiers: their scores do not compare.";
    const pointsOf = (job) => (relative && common ? job.progress.curve.map((point) => ({ nfe: point.nfe, score: point.scores?.[common] ?? point.score })) : job.progress.curve);
    const series = lives.map((live, place) => {
      if (!live.job) return null;
      const finished = live.rounds.flatMap((round) => round.candidates.filter((one) => one.phase === "search" && one.time === 1 && !one.invalid));
      const dots = finished.map((one) => ({ nfe: one.at, score: one.scores[common ?? live.by] }));
      return { name: nameOf(live.job), color: colorOf(place), points: fromTheStart(pointsOf(live.job), dots), dots, running: !ended(live.job), end: live.job.progress.nfe_spent };
    });
    curve.draw(series.filter(Boolean), { label: common ?? [...verifiers].join(", "), most: Math.max(...there.map((live) => budget(live.job.progress))), height: 360 });
    lives.forEach((live, place) => live.job && drawPanel(panels[place], live.job, place));
  }

  const nameOf = (job) => job.request.search.algorithm + (job.request.guide?.enabled ? ", guided" : "");

  function drawPanel(panel, job, place) {
    const version = `${job.progress.round}.${job.status}`;
    if (panel.dataset.version === version) return;
    panel.dataset.version = version;
    const image = panel.querySelector("img") ?? h("img", { alt: `The best of ${nameOf(job)}` });
    if (job.links.images.length) {
      picture(job.links.images[0], version).then((address) => (image.src = address), () => {});
    }
    const at = (share) => job.progress.curve.filter((point) => point.nfe <= share * budget(job.progress)).at(-1)?.score;
    put(
      panel,
      h("div", { class: "versus-top" }, h("span", { class: "frame filled" }, image), h("div", {}, h("h2", {}, h("i", { class: "dot", style: { background: colorOf(place) } }), h("a", { href: `#/jobs/${job.id}` }, nameOf(job))), h("p", { class: "number" }, score(job.progress.best_score)), h("p", { class: "hint" }, job.status))),
      h("dl", {}, h("dt", {}, "NFE"), h("dd", {}, count(job.progress.nfe_spent)), h("dt", {}, "at half the budget"), h("dd", {}, score(at(0.5))), job.progress.gradients_spent ? [h("dt", {}, "gradients"), h("dd", {}, count(job.progress.gradients_spent))] : null, h("dt", {}, "seed"), h("dd", {}, String(job.request.seed)), job.finished_at && job.started_at ? [h("dt", {}, "took"), h("dd", {}, seconds(job.finished_at - job.started_at))] : null),
    );
  }

  lives.forEach((live, place) => {
    live.listen(() => requestAnimationFrame(draw));
    live.start().catch((error) => error.name === "AbortError" || put(panels[place], h("p", { class: "fault", role: "alert" }, error.message)));
  });
  return () => {
    lives.forEach((live) => live.close());
    curve.close();
  };
}
