// Numbers, names and times as people read them.

/** A score: as many digits as tell it apart. */
export function score(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.1 || size === 0 ? 3 : 4).replace("-", "−");
}

export const count = (value) => (value ?? 0).toLocaleString("en");

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export function ago(unix) {
  const gone = Date.now() / 1000 - unix;
  return gone < 45 ? "just now" : `${seconds(gone)} ago`;
}

/** What a request asks for, in a line. */
export function asked(request) {
  const { class: label, prompt, classes, prompts, many } = request.condition;
  const several = classes ?? prompts ?? many;
  if (several) return `${plural(several.length, "condition")}`;
  return prompt ?? `Class ${label}`;
}

export const selecting = (request) => request.verifier.members?.join(" + ") ?? request.verifier.name;

/** The verifiers that select. */
export const selectors = (request) => request.verifier.members ?? [request.verifier.name];

export const budget = (progress) => progress.nfe_budget ?? (progress.forwards_budget ? progress.forwards_budget / 2 : 0);

export const ended = (job) => ["succeeded", "failed", "canceled"].includes(job.status);

export const STOPPED = {
  budget: "the budget is spent",
  gradients: "the gradients are spent",
  score: "it reached the score that was asked for",
  target: "it reached the target",
  patience: "nothing better came for as long as was asked",
  audited: "an auditor turned away",
  seconds: "the time was over",
  canceled: "it was canceled",
  failed: "it failed",
};
