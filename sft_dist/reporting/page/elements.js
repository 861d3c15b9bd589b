// Elements from plain values. Text is always a text node: nothing here, or after, parses markup.

/** An element; `options` are attributes, except `on` (listeners by event) and `style` (by name). */
function element(tag, options, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "style") {
      for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    } else {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

/** A card of the page, with a heading that the navigation leads to. */
function card(id, title, ...children) {
  return element("section", { class: "card", id }, element("h2", null, title), ...children);
}

function note(text) {
  return element("p", { class: "note" }, text);
}

function badge(text, kind) {
  return element("span", { class: `badge ${kind ?? text}` }, text);
}

/** A table; cells are text, nodes, or {number: text} to stand at the right. */
function table(headings, rows, rowOptions) {
  const cell = (tag, value) =>
    value !== null && typeof value === "object" && "number" in value
      ? element(tag, { class: "number" }, value.number)
      : element(tag, { class: typeof value === "string" && value.length > 40 ? "long" : "brief" }, value);
  const body = rows.map((row, index) =>
    element("tr", rowOptions?.(index), ...row.map((value) => cell("td", value))));
  return element("div", { class: "scroll" },
    element("table", { class: "rows" },
      headings && element("thead", null, element("tr", null, ...headings.map((h) => cell("th", h)))),
      element("tbody", null, ...body)));
}

/** A drop-down; `options` are [value, label] pairs. */
function select(label, options, value, onChange) {
  const node = element("select", { "aria-label": label, on: { change: () => onChange(node.value) } },
    ...options.map(([key, text]) => element("option", { value: key }, text)));
  node.value = value;
  return node;
}

function labelled(text, control) {
  return element("label", null, text, control);
}
