// Text of data and models with its mathematics drawn. The text itself is only ever a text node.

const MATHEMATICS = {
  delimiters: [
    { left: "$$", right: "$$", display: true }, { left: "\\[", right: "\\]", display: true },
    ...["align", "align*", "equation", "equation*", "gather", "gather*", "alignat*"].map((name) =>
      ({ left: `\\begin{${name}}`, right: `\\end{${name}}`, display: true })),
    { left: "\\(", right: "\\)", display: false }, { left: "$", right: "$", display: false },
  ],
  throwOnError: false, trust: false, strict: "ignore", maxSize: 12, maxExpand: 300, errorColor: "#888888", errorCallback: () => {},
};

/** A block of text with its mathematics; `asSource` leaves it as it was written. */
function prose(text, asSource) {
  const host = element("div", { class: asSource ? "prose mono" : "prose" }, text);
  if (asSource) return host;
  try {
    renderMathInElement(host, MATHEMATICS);
  } catch { // a formula nested so deep that the renderer runs out of stack
    host.replaceChildren(text);
  }
  return host;
}

const INLINE = { ...MATHEMATICS, delimiters: MATHEMATICS.delimiters.map((d) => ({ ...d, display: false })) };

/** The beginning of a text in one line, its mathematics not drawn yet. */
function oneLine(text) {
  return element("div", { class: "text plain" }, text.replace(/\s+/g, " ").slice(0, 150));
}

/** Draw the mathematics of lines that are still plain. */
function drawLines(host) {
  for (const line of host.querySelectorAll(".plain")) {
    line.classList.remove("plain");
    const text = line.textContent;
    try {
      renderMathInElement(line, INLINE);
    } catch {
      line.replaceChildren(text);
    }
  }
}

/** An answer: drawn, and beside it as it was written. */
function formula(text) {
  if (text === null || text === undefined) return element("span", { class: "note" }, "none");
  const drawn = element("span", null);
  try {
    katex.render(text, drawn, { ...MATHEMATICS, displayMode: false });
  } catch {
    drawn.replaceChildren(text);
  }
  return element("span", null, drawn, element("code", null, text));
}
