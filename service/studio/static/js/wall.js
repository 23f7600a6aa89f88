// The wall of candidates. Only what is in sight is in the document, so that ten thousand are as light as ten.

import { h, put, say } from "./dom.js";
import { plural, score } from "./words.js";

const GAP = 6;
const HEAD = 30;
const AFTER = 10;
const SPARE = 500; // pixels beyond the window that are kept ready

/** A wall for the candidates of a `Live`; `open(id)` is called with the one that is chosen. */
export function wall(live, open) {
  const canvas = h("div", { class: "canvas", role: "list", "aria-label": "Candidates" });
  const order = h("select", { "aria-label": "Order of the wall" }, h("option", { value: "rounds" }, "by round"), h("option", { value: "newest" }, "newest first"), h("option", { value: "best" }, "best first"));
  const by = h("select", { "aria-label": "Score that is shown" });
  const total = h("p", { class: "hint" });
  const element = h("section", { class: "wall", "aria-labelledby": "wall-title" }, h("div", { class: "wall-head" }, h("h2", { id: "wall-title" }, "Every candidate"), total, h("div", { class: "row" }, by, order)), canvas);

  let rows = []; // { top, height, round | candidates }
  let flat = []; // candidates in the order of the wall
  let tile = 64;
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
    if (focused) cells.get(focused)?.firstChild.focus({ preventScroll: true });
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
    return h("div", { class: "cells", style: { top: `${row.top}px`, gap: `${GAP}px` } }, row.candidates.map(cellOf));
  }

  function cellOf(candidate) {
    const cell = cells.get(candidate.id) ?? freshCell(candidate);
    const button = cell.firstChild;
    const value = scoreOf(candidate);
    const share = high > low ? Math.max(0, (value - low) / (high - low)) : 1;
    const state = candidate === best ? " top" : records.has(candidate.id) ? " record" : "";
    button.className = `cell${state}${candidate.invalid ? " invalid" : ""}${candidate.time < 1 ? " early" : ""}`;
    button.tabIndex = (current ?? flat[0]?.id) === candidate.id ? 0 : -1;
    button.title = `${score(value)}  ·  ${candidate.id}${candidate.time < 1 ? `  ·  foreseen at t = ${candidate.time.toFixed(2)}` : ""}`;
    const words = candidate.time < 1 ? ", foreseen before it is finished" : state === " top" ? ", the best so far" : state ? ", the best when it came" : "";
    button.setAttribute("aria-label", `Candidate ${candidate.id}, round ${candidate.round + 1}, ${by.value} ${score(value)}${words}`);
    button.style.width = `${tile}px`;
    button.lastChild.firstChild.style.width = `${Math.round(4 + 96 * share)}%`;
    if (!live.pictures.has(candidate.id)) live.want(candidate.id);
    return cell;
  }

  function freshCell(candidate) {
    const press = () => {
      current = candidate.id;
      open(candidate.id);
    };
    const button = h("button", { type: "button", "data-id": candidate.id, onclick: press }, shownAs(candidate.id), h("i", { class: "bar" }, h("i")));
    const cell = h("div", { class: "cell-box", role: "listitem" }, button);
    cells.set(candidate.id, cell);
    return cell;
  }

  const shownAs = (id) => {
    const picture = live.pictures.get(id);
    return picture ? h("img", { src: picture, alt: "", decoding: "async" }) : h("span", { class: "blank" });
  };

  function pictures() {
    for (const button of canvas.querySelectorAll("button.cell")) {
      const picture = live.pictures.get(button.dataset.id);
      const blank = button.querySelector(".blank");
      if (picture && blank) blank.replaceWith(shownAs(button.dataset.id));
    }
  }

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
      observer.disconnect();
    },
  };
}
