// Where a candidate came from, as a tree: the way to it stands out from what else was tried.

import { h, s } from "./dom.js";
import { score } from "./words.js";

const SIZE = 44;
const ACROSS = 92;
const DOWN = 54;

/** A tree of a family as the service tells it; `open(id)` goes to a relative. */
export function tree(family, id, by, open) {
  const byId = new Map(family.map((one) => [one.id, { ...one, children: [] }]));
  const roots = [];
  for (const one of byId.values()) {
    const parent = byId.get(one.parent);
    if (parent) parent.children.push(one);
    else roots.push(one);
  }
  const way = new Set();
  for (let one = byId.get(id); one; one = byId.get(one.parent)) way.add(one.id);
  let leaf = 0;
  let deepest = 0;
  const place = (one, depth) => {
    deepest = Math.max(deepest, depth);
    one.depth = depth;
    one.children.sort((a, b) => way.has(b.id) - way.has(a.id) || b.scores[by] - a.scores[by]);
    if (!one.children.length) one.row = leaf++;
    else {
      one.children.forEach((child) => place(child, depth + 1));
      one.row = one.children[0].row;
    }
  };
  roots.forEach((root) => place(root, 0));
  const width = deepest * ACROSS + SIZE + 24;
  const height = Math.max(1, leaf) * DOWN + 16;
  const x = (one) => 8 + one.depth * ACROSS;
  const y = (one) => 6 + one.row * DOWN;
  const lines = s("g", {});
  const nodes = s("g", {});
  for (const one of byId.values()) {
    const parent = byId.get(one.parent);
    if (parent) {
      const [x1, y1, x2, y2] = [x(parent) + SIZE, y(parent) + SIZE / 2, x(one), y(one) + SIZE / 2];
      lines.append(s("path", { class: way.has(one.id) ? "way" : "side", d: `M${x1} ${y1}C${x1 + 24} ${y1} ${x2 - 24} ${y2} ${x2} ${y2}` }));
    }
    const node = s(
      "a",
      {
        href: "#",
        class: `${way.has(one.id) ? "on-way" : ""}${one.id === id ? " here" : ""}`,
        "aria-label": `Candidate ${one.id}, round ${one.round + 1}, ${by} ${score(one.scores[by])}, ${one.step}`,
        onclick: (event) => {
          event.preventDefault();
          open(one.id);
        },
      },
      s("title", {}, `${one.id}: ${score(one.scores[by])}, ${one.step}`),
      s("rect", { class: "frame", x: x(one) - 2, y: y(one) - 2, width: SIZE + 4, height: SIZE + 4, rx: 5 }),
      one.thumbnail ? s("image", { href: one.thumbnail, x: x(one), y: y(one), width: SIZE, height: SIZE }) : s("rect", { class: "blank", x: x(one), y: y(one), width: SIZE, height: SIZE, rx: 3 }),
    );
    nodes.append(node);
  }
  return h("div", { class: "tree", tabindex: 0, role: "group", "aria-label": "Family tree" }, s("svg", { viewBox: `0 0 ${width} ${height}`, width, height }, lines, nodes));
}
