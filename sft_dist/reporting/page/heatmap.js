// Accuracy by subject and level of the evaluation looked at, or its change since the other one.

function heatSection() {
  const host = element("div");
  let mode = "accuracy";
  const buttons = [["accuracy", "Accuracy"], ["change", "Change"]].map(([key, text]) =>
    element("button", { "data-mode": key, on: { click: () => { mode = key; draw(); } } }, text));
  function draw() {
    const { now, base } = choice;
    if (!now) return host.replaceChildren(note("No graded answers."));
    const wanted = mode === "change" && base ? base.table : null;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.mode === (wanted ? "change" : "accuracy")));
    buttons[1].disabled = !base;
    return host.replaceChildren(heatTable(now.table, wanted));
  }
  watchers.push(draw);
  return card("heatmap", "Subject × level", element("div", { class: "controls" }, ...buttons,
    element("span", { class: "note" }, "A cell shows its problems below.")), host);
}

function heatTable(now, base) {
  const earlier = (subject, level) => {
    const [row, column] = [base?.subjects.indexOf(subject), base?.levels.indexOf(level)];
    return base && row >= 0 && column >= 0 ? base.cells[row][column] : null;
  };
  return element("table", { class: "heat" },
    element("thead", null, element("tr", null, element("th"), ...now.levels.map((level) => element("th", null, levelName(level))))),
    element("tbody", null, ...now.subjects.map((subject, row) => element("tr", null, element("th", null, subject),
      ...now.levels.map((level, column) => heatCell(subject, level, now.cells[row][column], base ? earlier(subject, level) : null, Boolean(base)))))));
}

const levelName = (level) => (/^\d+$/.test(level) ? `Level ${level}` : level);

function heatCell(subject, level, [right, count], before, isChange) {
  const margin = subject === "all" || level === "all";
  if (!count || (isChange && !before?.[1])) return element("td", null, "");
  const share = right / count;
  const change = isChange ? share - before[0] / before[1] : null;
  const strength = isChange ? Math.min(1, Math.abs(change) / 0.6) : share;
  const title = `${subject}, ${levelName(level)}: ${Number(right.toFixed(2))} of ${count} right${isChange ? `, before ${Number(before[0].toFixed(2))} of ${before[1]}` : ""}`;
  return element("td", { class: margin ? "margin" : null }, element("button", {
    title, "aria-label": title, on: { click: () => showSamples({ subject: subject === "all" ? "" : subject, level: level === "all" ? "" : level }) },
    style: tinted(isChange && change < 0 ? "--less" : "--heat", strength),
  }, isChange ? points(change, 0) : percent(share, 0), element("small", null, `${count}`)));
}
