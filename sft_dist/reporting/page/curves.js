// The curves of training: one run with several metrics a plot, or one metric of several runs.

const PANELS = [
  { title: "Loss", unit: "nats a target token", names: { "train/loss": "loss", "train/objective": "objective" }, smooth: true, canLog: true },
  { title: "Gradient norm", names: { "train/grad_norm_preclip": "before clipping", "train/grad_norm": "after" }, smooth: true, canLog: true },
  { title: "Learning rate", names: { "train/learning_rate": "rate" }, from0: true },
  { title: "Throughput", unit: "tokens/s, all ranks", names: { "perf/tokens_per_second": "tokens/s" }, from0: true, smooth: true },
  { title: "MFU", unit: "of the bf16 peak", names: { "perf/mfu": "MFU" }, from0: true, share: true, smooth: true },
  { title: "Token accuracy", unit: "of target tokens", names: { "train/token_accuracy": "most probable" }, share: true, smooth: true },
  { title: "Token entropy", unit: "nats", names: { "train/token_entropy": "entropy" }, from0: true, smooth: true },
  { title: "Step time", unit: "s", names: { "perf/step_seconds": "step", "perf/data_wait_seconds": "waiting for data" }, from0: true, smooth: true },
  { title: "Memory", unit: "GiB, peak on rank 0", names: { "perf/memory_gib": "memory" }, from0: true },
  { title: "Useful tokens", unit: "of tokens computed", names: { "perf/useful_token_share": "useful" }, share: true },
];
const shownNames = (panel) => Object.keys(panel.names).filter((name) => runs.some((run) => (run.curves[name] ?? []).some((v) => v !== null)));

function curvesSection() {
  if (!runs.some((run) => run.curves.step.length)) {
    return card("curves", "Training", note("No training step has been logged yet."));
  }
  const options = { smooth: 0, log: false };
  const figures = PANELS.filter((panel) => shownNames(panel).length).map((panel) => [panel, panelChart(panel, options)]);
  const redraw = () => figures.forEach(([panel, figure]) => figure.redraw(panelSpec(panel, options)));
  const strength = element("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: 0, "aria-label": "smoothing",
    on: { input: (event) => { options.smooth = Number(event.target.value); redraw(); } } });
  const log = element("input", { type: "checkbox", on: { change: (event) => { options.log = event.target.checked; redraw(); } } });
  const missing = isOne && !shownNames(PANELS[4]).length ? note("No MFU: the bf16 peak of this device is not known.") : null;
  return card("curves", "Training",
    element("div", { class: "controls" }, labelled("Smoothing", strength),
      labelled("Logarithmic loss and gradient norm", log),
      element("span", { class: "note" }, `Drag to zoom, double-click to reset.${runs.some((r) => r.attempts.length > 1) ? " Dashed: a resume." : ""}`)),
    element("div", { class: "plots" }, ...figures.map(([, figure]) => figure)), missing);
}

const panelChart = (panel, options) => chart(panelSpec(panel, options));

function panelSpec(panel, options) {
  const names = isOne ? shownNames(panel).filter((name) => name !== "train/objective" || differs(runs[0])) : shownNames(panel).slice(0, 1);
  const lines = isOne
    ? names.map((name) => ({ label: panel.names[name], x: runs[0].curves.step, y: runs[0].curves[name] }))
    : runs.filter((run) => run.curves[names[0]]).map((run) => ({ label: run.name, colour: runs.indexOf(run), x: run.curves.step, y: run.curves[names[0]] }));
  const { x, columns } = joined(lines);
  const smooth = panel.smooth && options.smooth > 0;
  const series = lines.flatMap((line, index) => {
    const one = { label: line.label, colour: line.colour ?? index, values: columns[index], dash: isOne && index ? [5, 4] : undefined };
    return smooth ? [{ ...one, faint: true }, { ...one, values: smoothed(columns[index], options.smooth) }] : [one];
  });
  return {
    title: panel.title, unit: panel.unit, x, series, sync: "steps", from0: panel.from0,
    upTo: panel.share ? 1 : undefined, log: Boolean(panel.canLog && options.log),
    format: panel.share ? percent : short, axis: panel.share ? (value) => `${Number((100 * value).toPrecision(3))}%` : brief,
    marks: isOne ? runs[0].attempts.slice(1).map((attempt) => ({ x: attempt.first_step })) : [],
  };
}

/** Only where the objective is not the loss itself. */
const differs = (run) => run.curves["train/objective"].some((value, i) => value !== run.curves["train/loss"][i]);

/** Exponential mean that starts at the first value. */
function smoothed(values, strength) {
  let last = null;
  return values.map((value) => {
    if (value === null) return null;
    last = last === null ? value : strength * last + (1 - strength) * value;
    return last;
  });
}
