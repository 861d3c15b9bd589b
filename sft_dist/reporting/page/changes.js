// Response lengths of right and wrong answers, and the problems gained and lost between two scorings.

function lengthSection() {
  const host = element("div");
  const draw = () => {
    const { now } = choice;
    if (!now) return host.replaceChildren(note("No graded answers."));
    const { width, right, wrong } = now.lengths;
    const x = right.map((_, index) => index * width).concat(right.length * width);
    const closed = (counts) => counts.concat(counts.at(-1) ?? 0);
    return host.replaceChildren(chart({
      title: "", unit: `answers by length in tokens, ${width} a bin`, x, xLabel: "from", stepped: true, from0: true, format: whole,
      series: [{ label: "right", colour: 2, values: closed(right) }, { label: "wrong", colour: 1, values: closed(wrong) }],
    }), element("p", { class: "note" }, `Mean ${whole(now.rates.length_right)} tokens when right, ${whole(now.rates.length_wrong)} when wrong; ${percent(now.rates.truncated)} were cut off${now.sampling?.max_new_tokens ? ` at ${now.sampling.max_new_tokens}` : ""}.`));
  };
  watchers.push(draw);
  return card("lengths", "Response lengths", host);
}

/** Share of right answers by problem id; null where the answers are not in the page. */
async function sharesOf(evaluation) {
  const [answers, problems] = await Promise.all([part(evaluation.name), part(evaluation.problems)]);
  if (!answers || !problems) return null;
  const counts = new Map();
  answers.problem.forEach((problem, row) => {
    const id = problems.id[problem];
    const [right, all] = counts.get(id) ?? [0, 0];
    counts.set(id, [right + answers.right[row], all + 1]);
  });
  return new Map([...counts].map(([id, [right, all]]) => [id, right / all]));
}

function changesSection() {
  const host = element("div");
  const draw = async () => {
    const { now, base } = choice;
    if (!now || !base) return host.replaceChildren(note("Choose two evaluations to compare."));
    const [later, earlier] = await Promise.all([sharesOf(now), sharesOf(base)]);
    if (choice.now !== now || choice.base !== base) return undefined;
    if (!later || !earlier) return host.replaceChildren(note(now.change && now.base === base.name
      ? `${now.change.gained} gained, ${now.change.lost} lost. Which ones is not in this page: it would be too large.`
      : "The answers of one of the two are not in this page: it would be too large."));
    return host.replaceChildren(square(later, earlier));
  };
  watchers.push(draw);
  return card("changes", "Problems gained and lost", host);
}

function square(later, earlier) {
  const counts = { gained: 0, lost: 0, right: 0, wrong: 0 };
  for (const [id, share] of later) {
    if (earlier.has(id)) counts[changeOf(share, earlier.get(id))] += 1;
  }
  const cell = (key, text, kind) => element("td", null, element("button", { on: { click: () => showSamples({ change: key }) } },
    element("b", { class: kind }, whole(counts[key])), text));
  const total = counts.gained + counts.lost + counts.right + counts.wrong;
  return element("div", null,
    element("table", { class: "square" },
      element("thead", null, element("tr", null, element("th"), element("th", null, "right now"), element("th", null, "wrong now"))),
      element("tbody", null,
        element("tr", null, element("th", null, "right before"), cell("right", "kept"), cell("lost", "lost", "down")),
        element("tr", null, element("th", null, "wrong before"), cell("gained", "gained", "up"), cell("wrong", "still wrong")))),
    note(`${total} problems are in both: ${points((counts.gained - counts.lost) / Math.max(1, total))} points. A number shows its problems below.`));
}

function changeOf(later, earlier) {
  if (later > earlier) return "gained";
  if (later < earlier) return "lost";
  return later >= 0.5 ? "right" : "wrong";
}
