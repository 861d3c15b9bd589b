// One answer in full: the problem, the response, what the grader made of it, and the earlier answer.

const STAGES = {
  extraction: "there is no answer to compare", identical: "the same text", integer: "compared as whole numbers",
  rational: "compared as fractions", numeric: "compared by value", text: "compared as words",
  structural: "compared part by part", symbolic: "compared by their values at several points",
  parse: "could not be read as mathematics", limit: "comparing would take too long", worker: "the grading process ended or ran out of time",
};
const VERDICTS = { correct: "right", wrong: "wrong", no_answer: "no answer", unparseable: "unreadable", timeout: "timed out" };
let asSource = false;

function drawSample() {
  const sample = samples.shown[samples.selected];
  if (!sample) return samples.detail.replaceChildren(note(samples.rows.length ? "No answer passes the filter." : "No answers."));
  const { problems, answers, row, index } = sample;
  const toggle = element("button", { "aria-pressed": String(asSource), id: "source", on: { click: () => { asSource = !asSource; drawSample(); } } }, "Source");
  samples.detail.scrollTop = 0;
  return samples.detail.replaceChildren(
    element("div", { class: "controls" }, verdictBadge(answers, row), changeBadge(sample.change),
      element("span", { class: "note mono" }, sample.id),
      element("span", { class: "note" }, `${problems.subject[index]} · ${levelName(problems.level[index])}${answers.sample[row] ? ` · sample ${answers.sample[row]}` : ""}`), toggle),
    element("h3", null, "Problem"), prose(problems.problem[index], asSource),
    element("h3", null, "Grader"), graderBox(answers, row, problems.answer[index]),
    element("div", { class: "pair" },
      responseBlock(isOne ? `Response at step ${samples.now.step}` : nameOf(samples.now), answers, row),
      sample.before && responseBlock(isOne ? `Response at step ${samples.base.step}` : nameOf(samples.base), sample.before.answers, sample.before.row, true)));
}

function verdictBadge(answers, row) {
  const verdict = answers.verdict[row];
  return badge(VERDICTS[verdict] ?? verdict, answers.right[row] ? "right" : ["unparseable", "timeout"].includes(verdict) ? verdict : "wrong");
}

function changeBadge(change) {
  if (change === "gained") return badge("gained", "right");
  return change === "lost" ? badge("lost", "wrong") : null;
}

function graderBox(answers, row, gold) {
  const stage = answers.stage[row];
  const why = stage ? `${STAGES[stage] ?? stage} (${stage})` : "no reason recorded";
  const form = answers.format[row] ? "" : "; not in the form asked for";
  return element("div", { class: "box answers" },
    element("span", { class: "label" }, "verdict"), element("span", null, `${VERDICTS[answers.verdict[row]] ?? answers.verdict[row]}: ${why}${form}`),
    element("span", { class: "label" }, "answer"), formula(answers.extracted[row]),
    element("span", { class: "label" }, "gold"), formula(gold));
}

function responseBlock(title, answers, row, isOther) {
  const facts = [`${answers.tokens[row] ?? "?"} tokens`, answers.finish[row] === "length" ? "cut off" : null,
    answers.entropy[row] === null ? null : `entropy ${short(answers.entropy[row])}`].filter(Boolean).join(", ");
  return element("div", null,
    element("h3", null, `${title} `, isOther ? verdictBadge(answers, row) : null, element("span", { class: "note" }, facts)),
    prose(answers.response[row] || "(empty)", asSource));
}
