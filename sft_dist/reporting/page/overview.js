// The top of the page: what trained on what, from where to where; for several runs, a table of them.

const mainSeries = (run) => run.evaluations.filter((evaluation) => evaluation.series === 0);
const lastOf = (run, name, count = 20) => mean((run.curves[name] ?? []).slice(-count));

/** Mean loss of the last twentieth of the steps so far, one logged row at least. */
function lossOf(run) {
  const { step } = run.curves;
  const late = run.curves["train/loss"]?.filter((_, row) => step[row] > 0.95 * step.at(-1));
  return mean(late ?? []);
}

function overview() {
  return isOne ? [header(runs[0]), tiles(runs[0])] : [sweepHeader(), sweepTable()];
}

function header(run) {
  const left = run.secondsLeft !== null ? `, about ${duration(run.secondsLeft)} left` : "";
  const reason = run.state.is_dead || run.state.headline === "dead" ? "it was running, and its process is gone" : run.state.reason;
  return element("header", { class: "top" },
    element("h1", null, `${run.name} `, badge(run.state.headline)),
    element("p", { class: "path" }, `${reason}${reason ? ". " : ""}As of ${when(run.state.now)}${left} · ${run.path}`),
    element("div", { class: "sentences" }, ...run.sentences.map((sentence) => element("p", null, sentence))),
    notesOf(run));
}

function notesOf(run) {
  if (!run.notes.length) return null;
  return element("div", { class: "notes" }, ...run.notes.map((text) => element("p", null, text)));
}

function tile(label, value, more) {
  return element("div", { class: "tile" }, element("div", { class: "label" }, label),
    element("div", { class: "value" }, value), element("div", { class: "more" }, more ?? ""));
}

function tiles(run) {
  const main = mainSeries(run);
  const last = main.at(-1);
  const found = [];
  if (last) {
    found.push(tile(`Accuracy, step ${last.step}`, percent(last.rates.accuracy),
      `${bounds(last.rates.interval)} of ${last.rates.num_problems}`));
    if (last.change) {
      found.push(tile("Since the base", `${points(last.change.difference)} pts`,
        `${pointBounds(last.change.interval)}, p ${pValue(last.change.p_value)}`));
      found.push(tile("Gained / lost", `${last.change.gained} / ${last.change.lost}`, "problems since the base"));
    }
  }
  if (run.curves.step.length) {
    const seconds = run.attempts.reduce((sum, a) => sum + a.ended - a.began, 0);
    found.push(tile("Loss", short(lossOf(run)), "nats a token, mean of the last 5 % of steps"),
      tile("Steps", `${whole(run.step)} of ${run.totalSteps ? whole(run.totalSteps) : "?"}`,
        run.attempts.length > 1 ? `${run.attempts.length} attempts` : "one attempt"),
      tile("Throughput", `${brief(lastOf(run, "perf/tokens_per_second") ?? 0)}`, "tokens/s, all ranks"),
      tile("MFU", percent(lastOf(run, "perf/mfu")), lastOf(run, "perf/mfu") === null ? "peak of this device is not known" : "of the bf16 peak"),
      tile("Training time", duration(seconds), "from process start to last row"));
  }
  return found.length ? element("div", { class: "tiles" }, ...found) : null;
}

function sweepHeader() {
  return element("header", { class: "top" }, element("h1", null, `${runs.length} runs side by side`),
    element("p", { class: "path" }, `As of ${when(Math.max(...runs.map((run) => run.state.now)))}`),
    ...runs.map((run) => notesOf(run) && element("div", null, element("strong", null, run.name), notesOf(run))));
}

/** Settings that are not the same in all runs, without those that only name the run. */
function differing() {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  const own = new Set(["output_dir", "wandb_run_name", "resume_from_checkpoint"]);
  return names.filter((name) => !own.has(name)
    && new Set(runs.map((run) => JSON.stringify(run.settings[name] ?? null))).size > 1);
}

function sweepTable() {
  const settings = differing();
  const rows = runs.map((run, index) => {
    const main = mainSeries(run);
    const [first, last] = [main[0], main.at(-1)];
    return [
      element("span", null, element("i", { style: { background: colour(index), display: "inline-block", width: "0.8em", height: "0.8em", "border-radius": "3px" } }),
        ` ${run.name} `, badge(run.state.headline)),
      ...settings.map((name) => plain(run.settings[name])),
      { number: first ? percent(first.rates.accuracy) : DASH },
      { number: last ? accuracyCell(last) : DASH },
      { number: last?.change ? changeCell(last.change) : DASH },
      { number: againstBest(run, index) },
      { number: short(lossOf(run)) },
      { number: `${whole(run.step)}/${run.totalSteps ?? "?"}` },
      { number: whole(lastOf(run, "perf/tokens_per_second")) },
    ];
  });
  const heads = ["run", ...settings, ...["first accuracy", "last accuracy", "change", "against the best", "loss", "steps", "tokens/s"].map((number) => ({ number }))];
  return card("runs", "Runs", table(heads, rows), page.againstBest.some(Boolean)
    ? note("Against the best: last accuracies on the same problems, with the 95 % interval of paired answers and McNemar's p. The best of many is partly luck, which these p-values do not take off.") : null);
}

function againstBest(run, index) {
  const change = page.againstBest[index];
  if (change) return element("span", null, changeCell(change), ` p ${pValue(change.p_value)}`);
  return page.againstBest.some((other) => other?.best === index) ? "the best" : DASH;
}

function accuracyCell(evaluation) {
  return element("span", null, `${percent(evaluation.rates.accuracy)} `,
    element("span", { class: "interval" }, bounds(evaluation.rates.interval)));
}

function changeCell(change) {
  return element("span", { class: change.difference >= 0 ? "up" : "down" }, `${points(change.difference)} `,
    element("span", { class: "interval" }, pointBounds(change.interval)));
}

const plain = (value) => (value === null || value === undefined ? DASH : typeof value === "object" ? JSON.stringify(value) : String(value));
