// Fields made of a JSON schema: each algorithm says what its options are.

import { h, newId } from "./dom.js";

/** A schema without `$ref`, and whether it may be null: `{ plain, open }`. */
function settled(schema, defs) {
  let plain = schema;
  while (plain.$ref) plain = { ...defs[plain.$ref.split("/").pop()], ...plain, $ref: undefined };
  if (!plain.anyOf) return { plain, open: false };
  const kinds = plain.anyOf.filter((kind) => kind.type !== "null");
  const inner = settled(kinds[0], defs).plain;
  return { plain: { ...inner, ...plain, anyOf: undefined, type: inner.type }, open: kinds.length < plain.anyOf.length };
}

const title = (name) => name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

/**
 * Fields for the properties of a schema.
 * @returns `{ element, read }`; `read()` gives the values that are not the defaults.
 */
export function schemaFields(schema, prefix, values = {}) {
  const defs = schema.$defs ?? {};
  const readers = [];
  const fields = Object.entries(schema.properties ?? {}).map(([name, property]) => {
    const { plain, open } = settled(property, defs);
    const { control, read } = controlOf(plain, open, values[name], defs);
    readers.push([name, read]);
    const id = newId("option");
    control.id = id;
    const hint = plain.description && h("p", { class: "hint", id: `${id}-hint` }, plain.description);
    if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
    const isGroup = control.tagName === "FIELDSET";
    return h(
      "div",
      { class: "field", "data-field": `${prefix}.${name}` },
      isGroup ? null : h("label", { for: id }, title(name)),
      isGroup ? (control.prepend(h("legend", {}, title(name))), control) : control,
      hint,
    );
  });
  return {
    element: h("div", { class: "stack" }, fields),
    read: () => Object.fromEntries(readers.map(([name, read]) => [name, read()]).filter(([, value]) => value !== undefined)),
  };
}

function controlOf(plain, open, given, defs) {
  if (plain.enum || plain.const !== undefined) {
    const allowed = plain.enum ?? [plain.const];
    const control = h("select", {}, open ? h("option", { value: "" }, "by the budget") : null, allowed.map((one) => h("option", { value: one }, one)));
    control.value = given ?? plain.default ?? "";
    return { control, read: () => (control.value === String(plain.default ?? "") ? undefined : control.value) };
  }
  if (plain.type === "boolean") {
    const control = h("input", { type: "checkbox" });
    control.checked = given ?? plain.default ?? false;
    return { control, read: () => (control.checked === (plain.default ?? false) ? undefined : control.checked) };
  }
  if (plain.type === "integer" || plain.type === "number") {
    const whole = plain.type === "integer";
    const control = h("input", {
      type: "number",
      inputmode: whole ? "numeric" : "decimal",
      step: whole ? 1 : "any",
      placeholder: open ? "by the budget" : plain.default,
      value: given ?? (open ? "" : (plain.default ?? "")),
    });
    const read = () => {
      if (control.value === "") return undefined;
      const number = Number(control.value);
      return number === plain.default ? undefined : number;
    };
    return { control, read };
  }
  const kind = plain.type === "array" && plain.items ? settled(plain.items, defs).plain : null;
  if (kind?.enum) {
    const chosen = new Set(given ?? plain.default ?? []);
    const boxes = kind.enum.map((one) => {
      const box = h("input", { type: "checkbox", value: one });
      box.checked = chosen.has(one);
      return box;
    });
    const control = h("fieldset", { class: "boxes" }, boxes.map((box) => h("label", { class: "check" }, box, h("span", {}, box.value))));
    const read = () => {
      const now = boxes.filter((box) => box.checked).map((box) => box.value);
      return now.join() === (plain.default ?? []).join() ? undefined : now;
    };
    return { control, read };
  }
  const first = given ?? (plain.default && Object.keys(plain.default).length ? plain.default : undefined);
  const control = h("input", { type: "text", spellcheck: "false", placeholder: plain.type === "array" ? "[1, 2]" : "JSON", value: first === undefined ? "" : JSON.stringify(first) });
  const read = () => {
    if (control.value.trim() === "") return undefined;
    try {
      return JSON.parse(control.value);
    } catch {
      return control.value; // the service says what is wrong with it
    }
  };
  return { control, read };
}
