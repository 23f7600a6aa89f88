// Score against NFE: every candidate a dot, the best so far a line; below it what the auditors say.

import { h, put, s } from "./dom.js";
import { count, score } from "./words.js";

const LEFT = 54;
const RIGHT = 18;
const TOP = 14;
const BOTTOM = 34;
const DOTS = 6000;
const COLORS = ["var(--ember-line)", "var(--blue)", "var(--green)", "var(--plum)"];

export const colorOf = (place) => COLORS[place % COLORS.length];

function ticks(low, high, wanted) {
  const step0 = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(step0 || 1));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= step0) * power;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
  return found;
}

function range(values, pad = 0.08) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low === Infinity) return [0, 1];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const room = (high - low) * pad;
  return [low - room, high + room];
}

const stepped = (points, x, y) => points.map((point, place) => (place ? `H${x(point.nfe)}V${y(point.score)}` : `M${x(point.nfe)} ${y(point.score)}`)).join("");

/**
 * The curve from the first candidate on. The service tells it round by round; what came before the end of the first
 * round are the best of the candidates so far.
 */
export function fromTheStart(points, dots) {
  const begin = [];
  for (const dot of dots) {
    if (!points.length || dot.nfe >= points[0].nfe) break;
    if (!begin.length || dot.score > begin.at(-1).score) begin.push(dot);
  }
  return [...begin.filter((dot) => dot.score <= points[0].score), ...points];
}

/**
 * A chart that is drawn anew at every `draw`.
 * Series: `{ name, color, points: [{ nfe, score }], dots: [{ nfe, score }], early, end }`; `early` dots are of what was foreseen.
 * Options: `{ label, most, target, band: { low, high, text }, audits: [series], empty }`.
 */
export function chart() {
  const box = h("div", { class: "chart" });
  const tip = h("div", { class: "tip", hidden: true });
  let last = null;
  const observer = new ResizeObserver(() => last && render());
  observer.observe(box);

  function render() {
    const [series, options] = last;
    const width = Math.max(280, box.clientWidth);
    const audits = options.audits ?? [];
    const main = options.height ?? (width < 480 ? 220 : 280);
    const height = main + audits.length * 78;
    const most = Math.max(1, options.most ?? 0, ...series.map((one) => one.points.at(-1)?.nfe ?? 0), ...series.flatMap((one) => one.dots?.at(-1)?.nfe ?? 0));
    const x = (nfe) => Math.round((LEFT + ((width - LEFT - RIGHT) * nfe) / most) * 10) / 10;
    const values = series.flatMap((one) => [...one.points, ...(one.dots ?? []), ...(one.early ?? [])].map((point) => point.score));
    if (options.target !== undefined) values.push(options.target);
    if (options.band) values.push(options.band.low, options.band.high);
    const [low, high] = range(values);
    const y = (value) => Math.round((TOP + ((main - TOP - BOTTOM) * (high - value)) / (high - low)) * 10) / 10;
    const picture = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": summary(series, options) });
    for (const at of ticks(low, high, 5)) {
      picture.append(
        s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(at), y2: y(at) }),
        s("text", { class: "tick", x: LEFT - 9, y: y(at) + 4, "text-anchor": "end" }, tickText(at, high - low)),
      );
    }
    for (const at of ticks(0, most, width < 480 ? 4 : 6)) picture.append(s("text", { class: "tick", x: x(at), y: main - BOTTOM + 20, "text-anchor": "middle" }, count(at)));
    picture.append(s("text", { class: "tick strong", x: LEFT - 16, y: main - BOTTOM + 20, "text-anchor": "end" }, "NFE"), s("text", { class: "tick strong", x: LEFT, y: 10 }, options.label ?? ""));
    if (options.target !== undefined) picture.append(s("line", { class: "target", x1: LEFT, x2: width - RIGHT, y1: y(options.target), y2: y(options.target) }), s("text", { class: "tick", x: LEFT + 6, y: y(options.target) - 5 }, `target ${score(options.target)}`));
    series.forEach((one) => {
      const early = (one.early ?? []).slice(0, DOTS).map((dot) => `M${x(dot.nfe)} ${y(dot.score)}h0`).join("");
      if (early) picture.append(s("path", { class: "dots early", d: early, style: { stroke: one.color } }));
      const dots = one.dots ?? [];
      const every = Math.max(1, Math.ceil(dots.length / DOTS));
      const path = dots.filter((_, place) => place % every === 0).map((dot) => `M${x(dot.nfe)} ${y(dot.score)}h0`).join("");
      if (path) picture.append(s("path", { class: dots.length > 1500 ? "dots many" : "dots", d: path, style: { stroke: one.color } }));
    });
    series.forEach((one) => {
      if (!one.points.length) return;
      const path = stepped(one.points, x, y);
      picture.append(s("path", { class: "best", d: one.running ? `${path}H${x(one.end ?? one.points.at(-1).nfe)}` : path, style: { stroke: one.color } }));
      const top = one.points.at(-1);
      picture.append(s("circle", { class: one.running ? "head live" : "head", cx: x(one.running ? (one.end ?? top.nfe) : top.nfe), cy: y(top.score), r: 4.5, style: { fill: one.color } }));
    });
    if (options.band) {
      const at = width - RIGHT + 8;
      picture.append(s("path", { class: "band", d: `M${at - 4} ${y(options.band.high)}h8M${at} ${y(options.band.high)}V${y(options.band.low)}M${at - 4} ${y(options.band.low)}h8` }, s("title", {}, options.band.text)));
    }
    audits.forEach((one, place) => {
      const top = main + place * 78 + 14;
      const [least, greatest] = range(one.points.map((point) => point.score), 0.12);
      const at = (value) => top + (52 * (greatest - value)) / (greatest - least);
      picture.append(
        s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: top + 56, y2: top + 56 }),
        s("text", { class: "tick strong", x: LEFT, y: top - 2 }, `${one.name}, which never selects`),
        s("text", { class: "tick", x: LEFT - 9, y: top + 10, "text-anchor": "end" }, score(greatest)),
        s("text", { class: "tick", x: LEFT - 9, y: top + 54, "text-anchor": "end" }, score(least)),
      );
      if (one.points.length) picture.append(s("path", { class: "audit", d: stepped(one.points, x, at) }), s("circle", { class: "audit-head", cx: x(one.points.at(-1).nfe), cy: at(one.points.at(-1).score), r: 3.5 }));
    });
    const cross = s("line", { class: "cross", y1: TOP, y2: main - BOTTOM, visibility: "hidden" });
    picture.append(cross);
    picture.addEventListener("pointermove", (event) => {
      const at = ((event.clientX - picture.getBoundingClientRect().left - LEFT) / (width - LEFT - RIGHT)) * most;
      const lines = series.map((one) => [one, one.points.filter((point) => point.nfe <= at).at(-1)]).filter(([, point]) => point);
      if (at < 0 || !lines.length) return hide();
      cross.setAttribute("x1", x(at));
      cross.setAttribute("x2", x(at));
      cross.setAttribute("visibility", "visible");
      put(tip, h("div", {}, `${count(Math.round(at))} NFE`), lines.map(([one, point]) => h("div", { class: "tip-line" }, h("i", { style: { background: one.color } }), series.length > 1 ? `${one.name} ` : "best ", h("b", {}, score(point.score)))));
      tip.hidden = false;
      tip.style.left = `${Math.min(x(at) + 12, width - 150)}px`;
      return undefined;
    });
    const hide = () => {
      tip.hidden = true;
      cross.setAttribute("visibility", "hidden");
    };
    picture.addEventListener("pointerleave", hide);
    put(box, picture, tip);
  }

  return {
    element: box,
    draw(series, options = {}) {
      last = [series, options];
      if (box.clientWidth) render();
    },
    close: () => observer.disconnect(),
  };
}

function tickText(value, width) {
  const digits = Math.max(0, Math.min(4, 1 - Math.floor(Math.log10(width / 4))));
  return value.toFixed(digits).replace("-", "−");
}

function summary(series, options) {
  const lines = series.filter((one) => one.points.length).map((one) => `${one.name}: from ${score(one.points[0].score)} after ${count(one.points[0].nfe)} NFE to ${score(one.points.at(-1).score)} after ${count(one.points.at(-1).nfe)}`);
  return `Best score so far against NFE, ${options.label ?? "score"}. ${lines.join("; ") || "nothing yet"}`;
}

/** The same numbers as a table, for who reads rather than sees them. */
export function curveTable(points, names) {
  return h(
    "details",
    { class: "table-of" },
    h("summary", {}, "The curve as a table"),
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ["NFE", "best score", ...names].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, points.slice(-60).map((point) => h("tr", {}, [count(point.nfe), score(point.score), ...names.map((name) => score(point.scores?.[name]))].map((cell) => h("td", {}, cell))))),
    ),
  );
}
