// Searches to begin with, as far as what they need is offered.

export function presets({ models, verifiers }) {
  const has = (...names) => names.every((name) => verifiers.some((one) => one.name === name));
  const model = models.find((one) => one.name === "glyphs") ?? models[0];
  if (!model) return [];
  const glyphs = model.name === "glyphs";
  const usual = verifiers.find((one) => (!one.models.length || one.models.includes(model.name)) && !one.sets && !one.needs.includes("preview"));
  const audited = has("auditor") ? ["auditor"] : [];
  const found = [];
  const add = (name, request) => found.push({ name, request: { model: model.name, seed: 7, ...request } });
  const prompt = { class: "Q", prompt: "a bold red italic serif Q on white" };
  if (glyphs && has("clip_score")) add("A bold red serif Q", { condition: prompt, verifier: "clip_score", auditors: audited, search: "auto", budget: { nfe: 480 }, sampler: { method: "euler", steps: 20, guidance: 1.5 } });
  if (glyphs && has("clip_score")) add("The same, at random", { condition: prompt, verifier: "clip_score", auditors: audited, search: "random", guide: "off", budget: { nfe: 960 }, sampler: { method: "euler", steps: 20, guidance: 1.5 } });
  if (glyphs && has("clip_score", "classifier")) add("Two judges", { condition: { class: "R", prompt: "a white R on blue" }, verifier: { name: "ensemble", members: ["clip_score", "classifier"], rule: "rank" }, auditors: audited, search: "auto", budget: { nfe: 960 }, sampler: { method: "euler", steps: 20, guidance: 1.5 } });
  if (!found.length && usual) add("A first look", { condition: model.classes.length ? { class: model.classes[16] ?? model.classes[0] } : { prompt: "a red fox in the snow" }, verifier: usual.name, search: "auto", budget: { nfe: 480 } });
  if (glyphs && has("clip_score")) add("A walk", { condition: { class: "k", prompt: "a yellow k on green" }, verifier: "clip_score", auditors: audited, search: "zero_order", guide: "off", budget: { nfe: 1200 }, sampler: { method: "euler", steps: 20, guidance: 1.5 } });
  if (glyphs && has("classifier")) add("The best of sixteen", { condition: { class: "R" }, verifier: "classifier", auditors: audited, search: "random", guide: "off", budget: { nfe: 320 }, sampler: { method: "euler", steps: 20, guidance: 1.5 } });
  return found;
}
