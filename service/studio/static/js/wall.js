// The wall of candidates. Only what is in sight is in the document, so that ten thousand are as light as ten.

import { h, put, say } from "./dom.js";
import { plural, score } from "./words.js";

const GAP = 6;
const HEAD = 30;
const AFTER = 10;
const SPARE = 500; // pixels beyond the window that are kept ready

/** A wall for the candidates of a `Live`; `open(id)` is called with the one that is chosen. */
export function wall(live, open) {
  const canvas = h("div", { class: "canvas", role: "group", "aria-label": "Candidates" });
  const order = h("select", { "aria-label": "Order of the wall" }, h("option", { value: "rounds" }, "by round"), h("option", { value: "newest" }, "newest first"), h("option", { value: "best" }, "best first"));
  const by = h("select", { "aria-label": "Score that is shown" });
  const total = h("p", { class: "hint" });
  const element = h("section", { class: "wall", "aria-labelledby": "wall-title" }, h("div", { class: "wall-head" }, h("h2", { id: "wall-title" }, "Every candidate"), total, h("div", { class: "row" }, by, order)), canvas);

  let rows = []; // { top, height, round | candidates }
  let flat = []; // candidates in the order of the wall
  let tile = 64;
  let colors = {};
  let [low, high] = [0, 1];
  let records = new Set(); // candidates that were the best when they came
  let best = null;
  let current = null; // the candidate that the keyboard is at
  const drawn = new Map(); // row place -> element
  const cells = new Map(); // candidate id -> its element, of those in the document

  const scoreOf = (candidate) => candidate.scores[by.value] ?? 0;

  function measure() {
    const names = [...new Set(live.rounds.flatMap((round) => Object.keys(round.candidates[0]?.scores ?? {})))];
    if (names.length && by.options.length !== names.length) {
      const chosen = by.value || live.by;
      put(by, names.map((name) => h("option", { value: name }, name)));
      by.value = names.includes(chosen) ? chosen : names[0];
      by.hidden = names.length < 2;
    }
    [low, high] = [Infinity, -Infinity];
    records = new Set();
    best = null;
    for (const round of live.rounds) {
      for (const candidate of round.candidates) {
        if (candidate.invalid) continue;
        const value = scoreOf(candidate);
        low = Math.min(low, value);
        high = Math.max(high, value);
        if (candidate.time < 1) continue; // what it will look like, not what it is
        if (!best || value > scoreOf(best)) {
          best = candidate;
          records.add(candidate.id);
        }
      }
    }
  }

  function layout() {
    const width = canvas.clientWidth || 800;
    tile = width < 500 ? 54 : 64;
    const style = getComputedStyle(document.documentElement);
    colors = { blank: style.getPropertyValue("--line"), bar: style.getPropertyValue("--line-strong"), ember: style.getPropertyValue("--ember-line") };
    const columns = Math.max(1, Math.floor((width + GAP) / (tile + GAP)));
    rows = [];
    let top = 0;
    const fillRows = (candidates) => {
      for (let at = 0; at < candidates.length; at += columns) {
        rows.push({ top, height: tile + 10 + GAP, candidates: candidates.slice(at, at + columns) });
        top += tile + 10 + GAP;
      }
    };
    if (order.value === "best") {
      flat = live.rounds.flatMap((round) => round.candidates).sort((one, other) => scoreOf(other) - scoreOf(one));
      fillRows(flat);
    } else {
      const rounds = order.value === "newest" ? live.rounds.toReversed() : live.rounds;
      flat = rounds.flatMap((round) => round.candidates);
      for (const round of rounds) {
        if (!round.candidates.length) continue;
        rows.push({ top, height: HEAD, round });
        top += HEAD;
        fillRows(round.candidates);
        top += AFTER;
      }
    }
    canvas.style.height = `${top}px`;
    const focused = canvas.contains(document.activeElement) ? document.activeElement.dataset.id : null;
    for (const one of drawn.values()) one.remove();
    drawn.clear();
    const all = live.rounds.reduce((sum, round) => sum + round.count, 0);
    total.textContent = all ? `${plural(all, "candidate")} in ${plural(live.rounds.length, "round")}${flat.length < all ? `, ${flat.length.toLocaleString("en")} of them shown` : ""}` : "";
    element.hidden = !flat.length;
    render();
    for (const [id, cell] of cells) if (!cell.isConnected) cells.delete(id);
    if (focused) cells.get(focused)?.focus({ preventScroll: true });
  }

  function render() {
    if (!rows.length) return;
    const offset = -canvas.getBoundingClientRect().top;
    const [from, to] = [offset - SPARE, offset + window.innerHeight + SPARE];
    let first = 0;
    for (let step = 2 ** Math.ceil(Math.log2(rows.length + 1)); step >= 1; step /= 2) {
      if (first + step < rows.length && rows[first + step].top < from) first += step;
    }
    const wanted = new Set();
    for (let place = first; place < rows.length && rows[place].top < to; place++) wanted.add(place);
    for (const [place, one] of drawn) {
      if (wanted.has(place)) continue;
      if (one.contains(document.activeElement)) continue;
      one.remove();
      drawn.delete(place);
      for (const candidate of rows[place].candidates ?? []) cells.delete(candidate.id);
    }
    for (const place of wanted) {
      if (drawn.has(place)) continue;
      const one = rows[place].round ? headOf(rows[place]) : cellsOf(rows[place]);
      drawn.set(place, one);
      canvas.append(one);
    }
  }

  function headOf(row) {
    const { round } = row;
    const values = round.candidates.filter((candidate) => !candidate.invalid).map(scoreOf);
    const phase = round.candidates[0].phase;
    const name = phase === "final" ? "Final generation" : phase === "finish" ? "Finishing" : `Round ${round.round + 1}`;
    return h(
      "div",
      { class: "round-head", style: { top: `${row.top}px` } },
      h("b", {}, name),
      h("span", {}, `${plural(round.count, "candidate")}, best ${score(Math.max(...values))}`),
    );
  }

  function cellsOf(row) {
    const picture = h("canvas", { "aria-hidden": "true" });
    const element = h("div", { class: "cells", style: { top: `${row.top}px`, gap: `${GAP}px`, height: `${tile + 10}px` } }, picture, row.candidates.map(cellOf));
    element.repaint = () => {
      element.whole = paint(picture, row);
    };
    element.repaint();
    return element;
  }

  /** The pictures and scores of a row, on one canvas: hundreds of images a second would be loaded one by one. */
  function paint(picture, row) {
    const scale = window.devicePixelRatio || 1;
    picture.width = Math.round(row.candidates.length * (tile + GAP) * scale);
    picture.height = Math.round((tile + 8) * scale);
    picture.style.width = `${picture.width / scale}px`;
    const context = picture.getContext("2d");
    context.scale(scale, scale);
    let whole = true;
    row.candidates.forEach((candidate, place) => {
      const bitmap = live.bitmap(candidate.id);
      const left = place * (tile + GAP);
      context.globalAlpha = candidate.invalid ? 0.35 : candidate.time < 1 ? 0.72 : 1;
      context.imageSmoothingEnabled = Boolean(bitmap && bitmap.width > tile);
      context.fillStyle = colors.blank;
      if (bitmap) context.drawImage(bitmap, left, 0, tile, tile);
      else context.fillRect(left, 0, tile, tile);
      whole &&= Boolean(bitmap);
      const share = high > low ? Math.max(0, (scoreOf(candidate) - low) / (high - low)) : 1;
      context.fillRect(left, tile + 4, tile, 3);
      context.fillStyle = candidate === best || records.has(candidate.id) ? colors.ember : colors.bar;
      context.fillRect(left, tile + 4, tile * (0.04 + 0.96 * share), 3);
    });
    return whole;
  }

  function cellOf(candidate) {
    const button = cells.get(candidate.id) ?? h("button", { type: "button", "data-id": candidate.id });
    cells.set(candidate.id, button);
    const state = candidate === best ? " top" : records.has(candidate.id) ? " record" : "";
    button.className = `cell${state}`;
    button.tabIndex = (current ?? flat[0]?.id) === candidate.id ? 0 : -1;
    button.setAttribute("aria-label", nameOf(candidate));
    button.style.width = `${tile}px`;
    button.style.height = `${tile + 8}px`;
    return button;
  }

  function nameOf(candidate) {
    const words = candidate.time < 1 ? `, foreseen at t = ${candidate.time.toFixed(2)}` : candidate === best ? ", the best so far" : records.has(candidate.id) ? ", the best when it came" : "";
    return `Candidate ${candidate.id}, round ${candidate.round + 1}, ${by.value} ${score(scoreOf(candidate))}${words}`;
  }

  /** Pictures came: draw the rows in sight again that lack some. */
  function pictures() {
    for (const one of drawn.values()) if (one.whole === false) one.repaint();
  }

  canvas.addEventListener("pointerover", (event) => {
    const button = event.target.closest("button.cell");
    if (button) button.title = button.getAttribute("aria-label");
  });
  canvas.addEventListener("click", (event) => {
    const id = event.target.closest("button.cell")?.dataset.id;
    if (!id) return;
    current = id;
    open(id);
  });
  canvas.addEventListener("keydown", (event) => {
    const columns = rows.find((row) => row.candidates)?.candidates.length ?? 1;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const at = flat.findIndex((candidate) => candidate.id === document.activeElement.dataset?.id);
    focusOn(flat[Math.max(0, Math.min(flat.length - 1, at + step))].id);
  });

  function focusOn(id) {
    current = id;
    const row = rows.find((one) => one.candidates?.some((candidate) => candidate.id === id));
    if (!row) return;
    const top = canvas.getBoundingClientRect().top + row.top;
    if (top < 80 || top + row.height > window.innerHeight - 10) window.scrollBy(0, top < 80 ? top - 90 : top + row.height - window.innerHeight + 20);
    render();
    for (const button of canvas.querySelectorAll("button.cell")) {
      button.tabIndex = button.dataset.id === id ? 0 : -1;
      if (button.dataset.id === id) button.focus({ preventScroll: true });
    }
  }

  let waiting = false;
  const onScroll = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      render();
    });
  };
  window.addEventListener("scroll", onScroll, { passive: true });
  const onTheme = () => layout();
  window.addEventListener("themechange", onTheme);
  const observer = new ResizeObserver(() => layout());
  observer.observe(canvas);
  order.addEventListener("change", () => {
    layout();
    say(`The wall is ordered ${order.selectedOptions[0].textContent}.`);
  });
  by.addEventListener("change", () => {
    measure();
    layout();
  });

  return {
    element,
    best: () => best,
    first: () => live.rounds[0]?.candidates[0] ?? null,
    update() {
      measure();
      layout();
    },
    pictures,
    focusOn,
    close() {
      window.removeEventListener("scroll", onScroll);
      window.removeEventListener("themechange", onTheme);
      observer.disconnect();
    },
  };
}
