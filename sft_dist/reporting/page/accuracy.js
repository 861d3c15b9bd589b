// Evaluations over the steps: accuracy with intervals, shares, lengths, and all of it as a table.

const asShare = { from0: true, upTo: 1, format: percent, axis: (value) => `${Number((100 * value).toPrecision(3))}%`, sync: "evaluations" };

function accuracySection() {
  if (!evaluations.length) return card("accuracy", "Evaluation", note("No evaluation has been graded yet."));
  const lines = evaluationLines();
  const figures = [accuracyChart(lines), ...(isOne && lines.length === 1 ? detailCharts(lines[0]) : comparedCharts(lines))];
  return card("accuracy", "Evaluation", element("div", { class: "plots" }, ...figures), evaluationTable(), grades());
}

/** One line a run and series, with its evaluations by step. */
function evaluationLines() {
  const lines = new Map();
  for (const evaluation of evaluations) {
    const key = `${evaluation.runIndex}/${evaluation.series}`;
    const label = [isOne ? null : evaluation.run.name, evaluation.series ? seriesName(evaluation) : null].filter(Boolean).join(" · ");
    if (!lines.has(key)) lines.set(key, { label: label || "accuracy", colour: isOne ? evaluation.series : evaluation.runIndex, dash: evaluation.series && !isOne ? [5, 4] : undefined, all: [] });
    lines.get(key).all.push(evaluation);
  }
  return [...lines.values()];
}

function series(lines, value) {
  const { x, columns } = joined(lines.map((line) => ({ x: line.all.map((e) => e.step), y: line.all.map((e) => value(e.rates) ?? null) })));
  return { x, series: lines.map((line, index) => ({ label: line.label, colour: line.colour, dash: line.dash, values: columns[index] })) };
}

function accuracyChart(lines) {
  const spec = series(lines, (rates) => rates.accuracy);
  const low = series(lines, (rates) => rates.interval?.[0]).series;
  const high = series(lines, (rates) => rates.interval?.[1]).series;
  if (lines.length <= 4) spec.series.forEach((one, index) => { one.band = [low[index].values, high[index].values]; });
  return chart({ title: "Accuracy", unit: lines.length <= 4 ? "95 % Wilson interval" : "", ...spec, ...asShare });
}

function detailCharts(line) {
  const several = (names) => {
    const found = Object.entries(names).map(([name, label]) => ({ ...series([line], (rates) => rates[name]), label }));
    return { x: found[0].x, series: found.map((one, index) => ({ ...one.series[0], label: one.label, colour: index })) };
  };
  return [
    chart({ title: "Answers", unit: "share of answers", ...several({ format: "have the form", wrong: "wrong", no_answer: "no answer", truncated: "cut off", unparseable: "unreadable", timeout: "timed out" }), ...asShare }),
    chart({ title: "Response length", unit: "tokens, mean", ...several({ length_right: "right", length_wrong: "wrong" }), from0: true, sync: "evaluations" }),
    chart({ title: "Token entropy", unit: "nats, generated tokens", ...several({ entropy: "entropy" }), from0: true, sync: "evaluations" }),
  ];
}

function comparedCharts(lines) {
  return [
    chart({ title: "Answers in the right form", ...series(lines, (rates) => rates.format), ...asShare }),
    chart({ title: "Answers cut off", ...series(lines, (rates) => rates.truncated), ...asShare }),
    chart({ title: "Response length", unit: "tokens, mean", ...series(lines, (rates) => rates.length), from0: true, sync: "evaluations" }),
  ];
}

function evaluationTable() {
  const several = new Set(evaluations.map((e) => `${e.runIndex}/${e.series}`)).size > 1;
  const heads = [...(several ? ["evaluation"] : []), "step", "accuracy", "since the first", "gained", "lost", "p", "form", "wrong", "no answer", "cut off", "length", "problems"];
  const rows = evaluations.map((e) => [
    ...(several ? [[isOne ? null : e.run.name, seriesName(e)].filter(Boolean).join(" · ")] : []),
    { number: whole(e.step) }, { number: accuracyCell(e) },
    ...(e.change ? [changeCell(e.change), e.change.gained, e.change.lost, pValue(e.change.p_value)] : [DASH, DASH, DASH, DASH]).map((number) => ({ number })),
    ...["format", "wrong", "no_answer", "truncated"].map((name) => ({ number: percent(e.rates[name]) })),
    { number: whole(e.rates.length) }, { number: whole(e.rates.num_problems) },
  ]);
  return element("div", { style: { "margin-top": "1rem" } },
    table(heads.map((h, i) => (several && i === 0 ? h : { number: h })), rows),
    note("Intervals are 95 %: Wilson's for an accuracy, that of paired answers for a change. p: McNemar's exact test on the problems that changed."));
}

/** Curves made by different graders are not one curve. */
function grades() {
  const versions = [...new Set(evaluations.map((e) => e.grader).filter(Boolean))];
  if (versions.length < 2) return versions.length ? note(`Grader ${versions[0]}.`) : null;
  return element("div", { class: "notes" }, `Graded by different graders (${versions.join(", ")}): not comparable. Grade again with python -m sft_dist.evaluate --regrade.`);
}
