// A search as it goes: first and best, the curve, the budget, the wall, and what can be done with it.

import { picture, post, Problem } from "./api.js";
import { chart, colorOf, curveTable, fromTheStart } from "./curve.js";
import { detail } from "./detail.js";
import { h, icon, newId, put, say } from "./dom.js";
import { Live } from "./live.js";
import { keepDraft, partnerOf, setTags, tagsOf } from "./memory.js";
import { wall } from "./wall.js";
import { ago, asked, budget, count, ended, plural, score, seconds, selecting, STOPPED } from "./words.js";

const WORDS = { queued: "waiting", running: "searching", succeeded: "done", failed: "failed", canceled: "canceled" };

export function showJob(main, id) {
  const live = new Live(`jobs/${encodeURIComponent(id)}`);
  const head = h("div", { class: "job-head" });
  const pictures = h("div", { class: "pair-of-pictures" });
  const curve = chart();
  const table = h("div", {});
  const spent = h("div", { class: "spent" });
  const notes = h("div", { class: "stack notes" });
  const about = h("div", {});
  const open = (name) => {
    location.hash = `#/jobs/${id}/c/${encodeURIComponent(name)}`;
  };
  const candidates = wall(live, open);
  const sheet = detail(live, {
    onClose: () => {
      const at = location.hash.split("/c/")[1];
      if (at) {
        history.pushState(null, "", `#/jobs/${id}`);
        candidates.focusOn(decodeURIComponent(at));
      }
    },
    onMove: (name) => {
      history.replaceState(null, "", `#/jobs/${id}/c/${encodeURIComponent(name)}`);
      sheet.show(name);
    },
  });
  const followAddress = () => {
    const [, name] = location.hash.split("/c/");
    if (name && live.template) sheet.show(decodeURIComponent(name));
    else if (!name) sheet.hide();
  };
  window.addEventListener("hashchange", followAddress);
  put(main, head, notes, h("div", { class: "stage" }, pictures, h("div", { class: "card curve-card" }, curve.element, table)), spent, candidates.element, about);

  const shown = { first: null, best: null };
  let clock = null;
  let began = null; // when, and at how much, the present speed is measured from
  let drawn = "";

  function draw() {
    const { job } = live;
    document.title = `${asked(job.request)} · sitsearch`;
    drawHead();
    drawPictures();
    drawCurve();
    drawSpent();
    drawNotes();
    if (ended(job)) clearInterval(clock);
  }

  function drawHead() {
    const { job } = live;
    const state = `${job.status}|${job.queue_position}|${live.connected}|${job.progress.nfe_budget}`;
    if (state === drawn) return;
    drawn = state;
    const waiting = job.status === "queued" && job.queue_position !== null ? `, ${job.queue_position ? plural(job.queue_position, "job") + " before it" : "next"}` : "";
    put(
      head,
      h("div", { class: "job-title" }, h("h1", {}, asked(job.request)), h("p", { class: "hint facts" }, facts(job).map((fact) => h("span", {}, fact)))),
      h("p", { class: `state ${job.status}`, role: "status" }, h("i", {}), WORDS[job.status] + waiting, live.connected === false && !ended(job) ? h("span", { class: "hint" }, " · connection lost, coming back") : null),
      h("div", { class: "row actions" }, actions(job)),
    );
  }

  function facts(job) {
    const { request } = job;
    const label = request.condition.prompt && request.condition.class !== null ? `class ${request.condition.class}` : null;
    return [request.model, label, `selected by ${selecting(request)}`, request.auditors.length ? `audited by ${request.auditors.join(", ")}` : null, `search: ${request.search.algorithm}`, `seed ${request.seed}`, request.start_from ? "from a given noise" : null, ago(job.created_at)].filter(Boolean);
  }

  function actions(job) {
    const all = [];
    const button = (text, action, attributes = {}, name = null) => all.push(h("button", { type: "button", onclick: action, ...attributes }, name && icon(name), text));
    if (!ended(job)) button("Cancel", () => act(() => post(job.links.cancel), "The search is canceled."));
    if (job.status === "succeeded") button("Extend…", () => extend(job), { class: "main" });
    if (job.status === "failed" || job.status === "canceled") button("Resume", () => act(() => post(job.links.resume), "The search goes on."), { class: "main" });
    button("Another seed", () => submit({ ...job.request, seed: (job.request.seed + 1) % 2 ** 53 }));
    button("Change and compare", () => {
      keepDraft(job.request, id);
      location.hash = "#/";
    });
    const partner = partnerOf(id);
    if (partner) all.push(h("a", { class: "button", href: `#/compare/${partner},${id}` }, "Compare"));
    button("Share", share, {}, "link");
    return all;
  }

  async function act(call, said) {
    try {
      live.take(await call());
      await live.refresh();
      say(said);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      say(error.message);
    }
  }

  async function submit(request) {
    try {
      location.hash = `#/jobs/${(await post("generate", request)).id}`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      say(error.message);
    }
  }

  async function share() {
    const address = location.href;
    try {
      await navigator.clipboard.writeText(address);
      say("The address is copied.");
    } catch {
      say(address);
    }
  }

  function extend(job) {
    const field = newId("extend");
    const input = h("input", { id: field, type: "number", inputmode: "numeric", step: 1, value: Math.round(budget(job.progress) * 2), "aria-describedby": `${field}-fault` });
    const fault = h("p", { class: "fault", id: `${field}-fault`, role: "alert" });
    const dialog = h("dialog", { "aria-labelledby": `${field}-title` });
    const send = async (event) => {
      event.preventDefault();
      put(fault);
      input.removeAttribute("aria-invalid");
      try {
        live.take(await post(job.links.extend, { nfe: Number(input.value) }));
        dialog.close();
        began = null;
        clearInterval(clock);
        clock = setInterval(drawSpent, 1000);
        live.watch();
        say("The search goes on with more.");
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        input.setAttribute("aria-invalid", "true");
        put(fault, error.errors[0]?.message ?? error.message);
        input.focus();
      }
    };
    dialog.append(
      h(
        "form",
        { class: "sheet narrow", novalidate: true, onsubmit: send },
        h("h2", { id: `${field}-title` }, "Go on with a larger budget"),
        h("p", { class: "hint" }, `The search had ${count(budget(job.progress))} NFE. It goes on from where it stands, with the same seed, as if it had had more from the beginning.`),
        h("div", { class: "field" }, h("label", { for: field }, "New budget in all, NFE"), input, fault),
        h("div", { class: "row end" }, h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"), h("button", { type: "submit", class: "main" }, "Extend")),
      ),
    );
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    input.select();
  }

  const figures = {};
  function figure(name, title) {
    const image = h("img", { alt: "", hidden: true });
    const text = h("figcaption", {});
    const frame = h("button", { type: "button", class: "frame", disabled: true, onclick: () => shown[name] && open(shown[name]) }, image, h("span", { class: "blank" }), h("span", { class: "sr" }, title));
    figures[name] = { image, text, frame, element: h("figure", { class: name }, frame, text) };
    return figures[name].element;
  }
  put(pictures, figure("first", "The first candidate"), figure("best", "The best so far"));

  function drawFigure(name, title, chosen, value, address, version) {
    const { image, text, frame } = figures[name];
    put(text, h("span", { class: "label" }, title), h("span", { class: "number" }, score(value)));
    if (chosen !== undefined && chosen !== null) {
      shown[name] = chosen;
      frame.disabled = !live.template;
      frame.querySelector(".sr").textContent = `${title}, score ${score(value)}`;
    }
    const small = live.pictures.get(chosen);
    if (small && image.dataset.of !== chosen) {
      image.src = small;
      image.hidden = false;
      image.dataset.of = chosen;
    }
    if (address && image.dataset.version !== version) {
      image.dataset.version = version;
      picture(address, version).then((found) => {
        if (image.dataset.version !== version) return;
        image.src = found;
        image.hidden = false;
        image.dataset.of = chosen;
      }, () => {});
    }
    if (small || address) frame.classList.add("filled");
  }

  function drawPictures() {
    const { job } = live;
    const first = candidates.first();
    const winner = job.result?.images[0];
    const best = candidates.best();
    const over = ended(job) && winner;
    const several = Boolean(job.request.verifier.members); // whose common score means something among themselves alone
    const top = over ? { id: winner.candidate.id, value: several ? winner.candidate.scores[live.by] : winner.score } : best && { id: best.id, value: (several ? null : job.progress.best_score) ?? best.scores[live.by] };
    if (first) {
      live.want(first.id);
      drawFigure("first", "The first candidate", first.id, first.scores[live.by]);
    }
    if (top) {
      live.want(top.id);
      drawFigure("best", over ? "The winner" : "The best so far", top.id, top.value, job.links.images[0], `${id}/${top.id}/${over ? job.progress.round : ""}`);
      pictures.classList.toggle("won", Boolean(over));
    }
    pictures.classList.toggle("many", Boolean(job.request.condition.classes ?? job.request.condition.prompts ?? job.request.condition.many));
  }

  function drawCurve() {
    const { job } = live;
    const { progress, request, result } = job;
    const relative = request.verifier.members && request.verifier.rule !== "gate";
    const name = relative ? live.by : selecting(request);
    const points = relative ? progress.curve.map((point) => ({ nfe: point.nfe, score: point.scores?.[name] ?? point.score })) : progress.curve;
    const scored = live.rounds.flatMap((round) => round.candidates.filter((one) => !one.invalid && one.phase === "search"));
    const dotsOf = (wanted) => scored.filter(wanted).map((one) => ({ nfe: one.at, score: one.scores[name] }));
    const [dots, early] = [dotsOf((one) => one.time === 1), dotsOf((one) => one.time < 1)];
    const estimate = result?.images[0]?.estimate;
    const others = [...request.auditors, ...(relative ? request.verifier.members.slice(1) : [])];
    const audits = others
      .map((auditor) => ({ name: auditor, points: progress.curve.filter((point) => point.scores?.[auditor] !== undefined).map((point) => ({ nfe: point.nfe, score: point.scores[auditor] })) }))
      .filter((one) => one.points.length && !request.verifier.members?.includes(one.name));
    const band = estimate?.method === "another_seed" && ended(job) ? { ...estimate, text: `From another seed: ${score(estimate.low)} to ${score(estimate.high)}` } : undefined;
    curve.draw([{ name: "best so far", color: colorOf(0), points: fromTheStart(points, dots), dots, early, end: progress.nfe_spent, running: !ended(job) }], { label: name, most: Math.max(budget(progress), progress.nfe_spent), target: request.stop.target?.score ?? request.stop.score ?? undefined, audits, band });
    if (points.length && (ended(job) || !table.firstChild)) {
      const wasOpen = table.querySelector("details")?.open;
      put(table, curveTable(progress.curve, others));
      table.querySelector("details").open = Boolean(wasOpen);
    }
  }

  function drawSpent() {
    const { job } = live;
    const { progress, usage } = job;
    const whole = Math.max(budget(progress), progress.nfe_spent, 1);
    const parts = ended(job) ? [["search", usage.nfe_search], ["finishing", usage.nfe_finish], ["final generation", usage.nfe_final]] : [["so far", progress.nfe_spent]];
    if (job.status === "running" && !began && progress.nfe_spent) began = [Date.now(), progress.nfe_spent];
    const speed = began && progress.nfe_spent > began[1] ? (progress.nfe_spent - began[1]) / ((Date.now() - began[0]) / 1000) : null;
    const left = speed && !ended(job) ? (whole - progress.nfe_spent) / speed : null;
    const took = job.started_at ? (job.finished_at ?? Date.now() / 1000) - job.started_at : null;
    put(
      spent,
      h("div", { class: "meter", role: "progressbar", "aria-label": "Budget spent", "aria-valuemin": 0, "aria-valuemax": whole, "aria-valuenow": Math.min(progress.nfe_spent, whole) }, parts.map(([name, nfe]) => h("i", { class: name.replace(" ", "-"), style: { width: `${(100 * nfe) / whole}%` } }))),
      h(
        "p",
        { class: "hint facts" },
        h("span", {}, h("b", {}, count(progress.nfe_spent)), ` of ${count(whole)} NFE`),
        ended(job) ? parts.filter(([, nfe]) => nfe).map(([name, nfe]) => h("span", {}, `${name} ${count(nfe)}`)) : null,
        h("span", {}, `${count(progress.forwards_spent)} forwards`),
        progress.gradients_spent ? h("span", {}, `${count(progress.gradients_spent)} gradients`) : null,
        usage.nfe_wasted ? h("span", {}, `${count(usage.nfe_wasted)} computed again after a fault`) : null,
        took === null ? null : h("span", {}, seconds(took)),
        left === null ? null : h("span", {}, `about ${seconds(left)} left`),
      ),
    );
  }

  function drawNotes() {
    const { job } = live;
    const { result, error, note, progress } = job;
    const lines = [];
    if (error) lines.push(h("p", { class: "note bad", role: "alert" }, h("b", {}, "It failed. "), error.detail));
    if (note) lines.push(h("p", { class: "note" }, note));
    if (result?.hacking?.length) lines.push(h("p", { class: "note bad" }, h("b", {}, "Look closely. "), `The score rose while ${result.hacking.join(" and ")} turned away: the search may have found what the verifier gets wrong.`));
    for (const warning of result?.warnings ?? []) lines.push(h("p", { class: "note" }, warning));
    if (progress.target && !progress.target.reached && !ended(job)) lines.push(h("p", { class: "note" }, target(progress.target)));
    if (result && ended(job)) lines.push(h("p", { class: "note plain" }, verdict(job)));
    put(notes, lines);
  }

  function verdict(job) {
    const { result } = job;
    const first = candidates.first();
    const winner = result.images[0];
    const gain = first && !job.request.verifier.members ? `From ${score(first.scores[live.by])} to ${score(winner.score)}. ` : "";
    const estimate = winner?.estimate;
    const worth = !estimate ? "" : estimate.method === "another_seed" ? ` From another seed, expect ${score(estimate.low)} to ${score(estimate.high)}.` : estimate.method === "audited" ? ` To the auditors it lies ${Math.abs(estimate.score).toFixed(1)} standard deviations ${estimate.score < 0 ? "below" : "above"} the first candidates (${estimate.low.toFixed(1).replace("-", "−")} to ${estimate.high.toFixed(1).replace("-", "−")}).` : "";
    return `${gain}${plural(result.candidates, "candidate")} were scored; ${STOPPED[result.stopped_by] ?? result.stopped_by}.${worth}`;
  }

  function target(aim) {
    if (aim.nfe_expected === null) return `The target ${score(aim.score)} cannot be foreseen yet.`;
    return `The target ${score(aim.score)} is expected after ${count(aim.nfe_expected)} more NFE${aim.probability_left === null ? "" : `; the budget that is left reaches it with a probability of ${Math.round(100 * aim.probability_left)} %`}.`;
  }

  function drawAbout() {
    const field = newId("tags");
    const tags = h("input", { id: field, type: "text", value: tagsOf(id).join(", "), placeholder: "baseline, paper figure", onchange: (event) => setTags(id, event.target.value) });
    put(
      about,
      h(
        "section",
        { class: "about pair" },
        h("div", { class: "field" }, h("label", { for: field }, "Tags, in this browser"), tags),
        h("details", {}, h("summary", {}, "The request"), h("pre", { tabindex: 0 }, JSON.stringify(live.job.request, null, 1))),
      ),
    );
  }

  let waiting = false;
  live.listen((what) => {
    if (what === "pictures") {
      candidates.pictures();
      drawPictures();
      return;
    }
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      if (!live.job) return;
      candidates.update();
      draw();
      followAddress();
    });
  });
  clock = setInterval(() => live.job && !ended(live.job) && drawSpent(), 1000);
  live.start().then(drawAbout, (error) => {
    if (error.name === "AbortError") return;
    put(main, h("div", { class: "empty", role: "alert" }, h("h1", {}, "This job cannot be shown"), h("p", {}, error.message), h("p", {}, h("a", { href: "#/jobs" }, "All jobs"))));
  });
  return () => {
    clearInterval(clock);
    window.removeEventListener("hashchange", followAddress);
    live.close();
    curve.close();
    candidates.close();
    sheet.close();
    document.title = "sitsearch studio";
  };
}
