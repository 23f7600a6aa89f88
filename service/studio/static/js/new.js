// A new search: what to draw, who judges, how to look, what it may cost; and what that would do, as one types.

import { get, post, Problem } from "./api.js";
import { h, newId, put, say } from "./dom.js";
import { pairUp, takeDraft } from "./memory.js";
import { presets } from "./presets.js";
import { schemaFields } from "./schema.js";
import { count, plural, score, seconds } from "./words.js";

const QUIET = 350; // milliseconds without typing before a plan is asked for

export function showNew(main) {
  const stop = new AbortController();
  put(main, h("p", { class: "hint" }, "One moment…"));
  Promise.all([get("models"), get("verifiers"), get("algorithms")])
    .then(([{ models }, { verifiers }, { algorithms }]) => stop.signal.aborted || draw(main, { models, verifiers, algorithms }, stop.signal))
    .catch((error) => {
      if (stop.signal.aborted) return;
      put(main, h("div", { class: "empty", role: "alert" }, h("h1", {}, error.status === 401 || error.status === 403 ? "This service asks for a key" : "Nothing can be searched for yet"), h("p", {}, error.message), h("button", { type: "button", onclick: () => showNew(main) }, "Try again")));
      if (error.status === 503) setTimeout(() => stop.signal.aborted || main.querySelector(".empty button")?.click(), 3000);
    });
  return () => stop.abort();
}

function draw(main, offer, signal) {
  const draft = takeDraft();
  const ready = presets(offer);
  let request = draft?.request ?? ready[0]?.request ?? null;
  const form = h("form", { class: "card form", novalidate: true, "aria-label": "A new search" });
  const plan = h("aside", { class: "plan", "aria-live": "polite", "aria-label": "The plan" });
  const readers = [];
  let options = { read: () => ({}) };
  let timer = null;
  let asking = null;

  const value = (path) => path.split(".").reduce((inner, name) => inner?.[name], request);
  const labelled = (text, field, control, hint) => {
    const id = newId("field");
    control.id = id;
    return h("div", { class: "field", "data-field": field }, h("label", { for: id }, text), control, hint ? h("p", { class: "hint" }, hint) : null);
  };
  const number = (given, attributes = {}) => h("input", { type: "number", step: "any", inputmode: "decimal", value: given ?? "", ...attributes });
  const optional = (input) => (input.value === "" ? undefined : Number(input.value));

  function build() {
    readers.length = 0;
    const model = offer.models.find((one) => one.name === value("model")) ?? offer.models[0];
    const fitting = offer.verifiers.filter((one) => (!one.models.length || one.models.includes(model.name)) && !one.sets);
    put(form, presetRow(), what(model), judges(fitting), how(), cost(), more(model, fitting), h("p", { class: "fault", id: "form-fault", role: "alert" }), h("button", { type: "submit", class: "main wide" }, "Search"));
  }

  function presetRow() {
    if (!ready.length) return null;
    return h(
      "div",
      { class: "presets", role: "group", "aria-label": "Presets" },
      ready.map((preset) =>
        h("button", { type: "button", class: "chip", onclick: () => ((request = preset.request), build(), soon()) }, preset.name),
      ),
    );
  }

  function what(model) {
    const models = h("select", { onchange: (event) => ((request = { ...read(), model: event.target.value, sampler: undefined }), build(), soon()) }, offer.models.map((one) => h("option", { value: one.name }, one.title)));
    models.value = model.name;
    const prompt = h("textarea", { rows: 2, maxlength: 2000, value: value("condition.prompt") ?? "", placeholder: "a bold red italic serif Q on white" });
    const classes = model.classes.length ? h("select", {}, model.classes.map((name) => h("option", { value: name }, name))) : null;
    if (classes) {
      const label = value("condition.class");
      classes.value = typeof label === "number" ? model.classes[label] : (label ?? model.classes[0]);
    }
    readers.push((body) => {
      body.model = model.name;
      body.condition = { ...(classes ? { class: classes.value } : {}), ...(prompt.value.trim() ? { prompt: prompt.value.trim() } : {}) };
    });
    return h(
      "fieldset",
      { class: "stack" },
      h("legend", { class: "sr" }, "What to draw"),
      labelled("Prompt", "condition.prompt", prompt, classes ? "Verifiers that read text judge by it; the model itself is told the class alone." : null),
      h("div", { class: "pair" }, classes ? labelled("Class", "condition.class", classes) : null, labelled("Model", "model", models)),
    );
  }

  function judges(fitting) {
    const chosen = value("verifier.members") ?? [value("verifier.name") ?? value("verifier")];
    const audits = value("auditors") ?? [];
    const rule = h("select", {}, ["rank", "zscore"].map((name) => h("option", { value: name }, name === "rank" ? "by mean rank" : "by mean standard score")));
    rule.value = value("verifier.rule") === "zscore" ? "zscore" : "rank";
    const ruled = labelled("Several select", "verifier.rule", rule);
    const table = fitting.map((one) => judgeRow(one, chosen, audits, () => (update(), soon())));
    const update = () => {
      ruled.hidden = table.filter((row) => row.role() === "select").length < 2;
    };
    update();
    readers.push((body) => {
      const selecting = table.filter((row) => row.role() === "select").map((row) => row.name);
      body.verifier = selecting.length > 1 ? { name: "ensemble", members: selecting, rule: rule.value } : selecting[0] ?? "";
      body.auditors = table.filter((row) => row.role() === "audit").map((row) => row.name);
    });
    return h("fieldset", { class: "stack" }, h("legend", {}, "Who judges"), h("div", { class: "judges", "data-field": "verifier" }, table.map((row) => row.element)), ruled);
  }

  function judgeRow(one, chosen, audits, changed) {
    const group = newId("role");
    const inputs = [
      ["select", "selects"],
      ["audit", "audits"],
      ["", "off"],
    ].map(([mode, text]) => {
      const input = h("input", { type: "radio", name: group, value: mode, onchange: changed });
      input.checked = mode === (chosen.includes(one.name) ? "select" : audits.includes(one.name) ? "audit" : "");
      return [input, h("label", {}, input, h("span", {}, text))];
    });
    return {
      name: one.name,
      role: () => inputs.find(([input]) => input.checked)?.[0].value ?? "",
      element: h("div", { class: "judge", role: "radiogroup", "aria-label": one.title }, h("div", {}, h("b", {}, one.name), h("span", { class: "hint" }, one.title)), h("div", { class: "segments" }, inputs.map(([, label]) => label))),
    };
  }

  function how() {
    const algorithms = h("select", {}, offer.algorithms.map((one) => h("option", { value: one.name }, one.title)));
    algorithms.value = value("search.algorithm") ?? (typeof value("search") === "string" ? value("search") : "auto");
    const place = h("div", {});
    const reference = h("p", { class: "hint" });
    const summary = h("summary", {}, "Options of the search");
    const show = (values) => {
      const one = offer.algorithms.find((algorithm) => algorithm.name === algorithms.value);
      options = schemaFields(one.options_schema, "search", values);
      put(place, options.element);
      put(reference, one.reference);
    };
    const given = { ...(typeof value("search") === "object" ? value("search") : {}) };
    delete given.algorithm;
    delete given.preset;
    show(given);
    algorithms.addEventListener("change", () => show({}));
    readers.push((body) => (body.search = { algorithm: algorithms.value, ...options.read() }));
    const field = labelled("Search", "search.algorithm", algorithms);
    field.append(reference);
    const inner = h("details", { class: "options" }, summary, place);
    inner.open = Object.keys(given).length > 0 && Object.keys(options.read()).length > 0;
    return h("fieldset", { class: "stack" }, h("legend", { class: "sr" }, "How to look"), field, inner);
  }

  function cost() {
    const nfe = number(value("budget.nfe") ?? 480, { step: 1, inputmode: "numeric", min: 1 });
    const slider = h("input", { type: "range", min: 0, max: 100, "aria-label": "Budget, from small to large" });
    const [least, most] = [Math.log(40), Math.log(20000)];
    const follow = () => (slider.value = Math.round((100 * (Math.log(Math.max(1, Number(nfe.value) || 1)) - least)) / (most - least)));
    follow();
    slider.addEventListener("input", () => {
      const raw = Math.exp(least + (slider.value / 100) * (most - least));
      const step = raw < 400 ? 20 : raw < 4000 ? 100 : 1000;
      nfe.value = Math.max(step, Math.round(raw / step) * step);
    });
    nfe.addEventListener("input", follow);
    readers.push((body) => (body.budget = { ...value("budget"), nfe: optional(nfe) }));
    const field = labelled("Budget, in evaluations of the network (NFE)", "budget.nfe", nfe);
    field.insertBefore(slider, null);
    return field;
  }

  function more(model, fitting) {
    const sampler = { ...model.default_sampler, ...value("sampler") };
    const method = h("select", {}, model.samplers.map((one) => h("option", { value: one.name }, one.name)));
    method.value = sampler.method;
    const steps = number(sampler.steps, { step: 1 });
    const guidance = number(sampler.guidance);
    const finals = number(value("sampler.final_steps"), { step: 1, placeholder: "none" });
    const images = number(value("num_images") ?? 1, { step: 1 });
    const seed = number(value("seed") ?? 7, { step: 1 });
    const target = number(value("stop.score"), { placeholder: "none" });
    const limit = number(value("budget.seconds"), { placeholder: "none" });
    const guide = h("select", {}, h("option", { value: "" }, "as the search does"), h("option", { value: "off" }, "off"), fitting.filter((one) => one.differentiable).map((one) => h("option", { value: one.name }, one.name)));
    const given = value("guide");
    guide.value = !given ? "" : given === "off" || given.enabled === false ? "off" : (given.verifier ?? "");
    readers.push((body) => {
      body.sampler = { ...value("sampler"), method: method.value, steps: optional(steps), guidance: optional(guidance), final_steps: optional(finals) ?? null };
      body.num_images = optional(images);
      body.seed = optional(seed);
      if (target.value !== "") body.stop = { ...value("stop"), score: Number(target.value) };
      if (limit.value !== "") body.budget.seconds = Number(limit.value);
      else if (body.budget.seconds !== undefined) body.budget = { ...body.budget, seconds: null };
      if (guide.value && !(given?.verifier === guide.value)) body.guide = guide.value;
      else if (given?.verifier === guide.value) body.guide = given;
      if (value("start_from")) body.start_from = value("start_from");
    });
    const from = value("start_from");
    const details = h(
      "details",
      { class: "options" },
      h("summary", {}, "Sampler, seed and stops"),
      h(
        "div",
        { class: "stack" },
        h("div", { class: "pair" }, labelled("Method", "sampler.method", method), labelled("Steps", "sampler.steps", steps), labelled("Guidance by class", "sampler.guidance", guidance), labelled("Steps of a final generation", "sampler.final_steps", finals), labelled("Images", "num_images", images), labelled("Seed", "seed", seed), labelled("Stop at a score", "stop.score", target), labelled("Stop after seconds", "budget.seconds", limit)),
        labelled("Gradient that is followed", "guide.verifier", guide),
      ),
    );
    return [from ? h("p", { class: "note", "data-field": "start_from" }, `It starts from the noise of candidate ${from.candidate ?? "that was given"}. `, h("button", { type: "button", class: "quiet", onclick: () => ((request = { ...read(), start_from: undefined }), build(), soon()) }, "Start afresh")) : null, details];
  }

  function read() {
    const body = {};
    for (const reader of readers) reader(body);
    return body;
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(askForPlan, QUIET);
  }

  async function askForPlan() {
    asking?.abort();
    asking = new AbortController();
    plan.classList.add("old");
    try {
      const found = await post("generate?dry_run=true", read(), { signal: asking.signal });
      clearFaults();
      showPlan(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      plan.classList.remove("old");
      if (error instanceof Problem && error.errors.length) {
        clearFaults();
        showFaults(error);
        put(plan, h("div", { class: "card" }, h("h2", {}, "The plan"), h("p", { class: "hint" }, "There is one as soon as the form holds together.")));
      } else put(plan, h("div", { class: "card" }, h("h2", {}, "The plan"), h("p", { class: "fault" }, error.message)));
    }
  }

  function showPlan({ plan: found, seconds: time }) {
    plan.classList.remove("old");
    const line = (term, text) => [h("dt", {}, term), h("dd", {}, text)];
    const { forecast } = found;
    put(
      plan,
      h(
        "div",
        { class: "card" },
        h("h2", {}, "The plan"),
        h("p", { class: "big" }, h("b", {}, `${found.exact ? "" : "≈ "}${count(found.candidates)}`), found.candidates === 1 ? " candidate" : " candidates"),
        h("dl", {}, line("rounds", count(found.rounds)), line("NFE", `${count(found.nfe.search)} searching${found.nfe.final ? `, ${count(found.nfe.final)} for a final generation` : ""}`), found.nfe.unspent ? line("unspent", `${count(found.nfe.unspent)} NFE, less than a round takes`) : null, line("forwards", count(found.forwards)), found.gradients ? line("gradients", count(found.gradients)) : null, time === null ? null : line("time", `about ${seconds(time)}, alone`), Object.entries(found.chosen).map(([name, chosen]) => line(name.replaceAll("_", " "), Array.isArray(chosen) ? chosen.join(", ") : String(chosen)))),
        forecast?.score !== undefined && forecast?.score !== null ? h("p", { class: "hint" }, `Expected score ${score(forecast.score)}.`) : null,
        h("details", {}, h("summary", {}, "In sentences"), h("ul", { class: "hint" }, found.explanation.map((sentence) => h("li", {}, sentence)))),
      ),
      draft?.compare ? h("p", { class: "hint" }, "What comes of it is compared with ", h("a", { href: `#/jobs/${draft.compare}` }, "the search that it was made from"), ".") : null,
    );
  }

  function clearFaults() {
    for (const old of form.querySelectorAll(".fault:not(#form-fault)")) old.remove();
    for (const input of form.querySelectorAll("[aria-invalid]")) {
      input.removeAttribute("aria-invalid");
      const hints = (input.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => id && !id.startsWith("fault-"));
      if (hints.length) input.setAttribute("aria-describedby", hints.join(" "));
      else input.removeAttribute("aria-describedby");
    }
    put(form.querySelector("#form-fault"));
  }

  /** Show each fault at its field; those of no field at the end of the form. Returns the first control at fault. */
  function showFaults(problem) {
    let first = null;
    const rest = [];
    for (const { field, message, allowed } of problem.errors) {
      const text = message + (allowed?.length && allowed.length <= 12 ? ` (${allowed.join(", ")})` : "");
      let path = field;
      let place = null;
      while (path && !(place = form.querySelector(`[data-field="${CSS.escape(path)}"]`))) path = path.includes(".") ? path.slice(0, path.lastIndexOf(".")) : "";
      place ??= form.querySelector(`[data-field^="${CSS.escape(field)}."]`);
      place ??= field === "auditors" || field.startsWith("auditors") || field.startsWith("verifier") ? form.querySelector('[data-field="verifier"]') : null;
      if (!place) {
        rest.push(`${field ? `${field}: ` : ""}${text}`);
        continue;
      }
      const fault = h("p", { class: "fault", id: newId("fault") }, text);
      place.append(fault);
      for (let closed = place.closest("details:not([open])"); closed; closed = closed.parentElement.closest("details:not([open])")) closed.open = true;
      const control = place.matches("input,select,textarea") ? place : place.querySelector("input:not([type=radio]):not([type=range]),select,textarea") ?? place.querySelector("input");
      control?.setAttribute("aria-invalid", "true");
      control?.setAttribute("aria-describedby", `${control.getAttribute("aria-describedby") ?? ""} ${fault.id}`.trim());
      first ??= control;
    }
    put(form.querySelector("#form-fault"), rest.join(" "));
    return first;
  }

  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button[type=submit]");
    button.disabled = true;
    clearTimeout(timer);
    try {
      const job = await post("generate", read(), { headers: { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) } });
      if (draft?.compare) pairUp(job.id, draft.compare);
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      clearFaults();
      const first = error instanceof Problem && error.errors.length ? showFaults(error) : null;
      if (first) first.focus();
      else put(form.querySelector("#form-fault"), error.message);
      say(error.errors?.length ? `${plural(error.errors.length, "field")} to look at.` : error.message);
    } finally {
      button.disabled = false;
    }
  });

  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    asking?.abort();
  });
  build();
  put(
    main,
    h("div", { class: "hero" }, h("h1", {}, "Search for a better picture"), h("p", { class: "lead" }, "A model draws from noise. Try many noises, let a verifier score the pictures, and spend more where it pays.")),
    h("div", { class: "new" }, form, plan),
  );
  askForPlan();
}
