// All answers of the evaluation looked at: filter, search, and a list that draws only what is seen.

const ROW_HEIGHT = 54;
const STILL_MILLISECONDS = 60;
const EVERYTHING = { search: "", verdict: "", change: "", subject: "", level: "", finish: "", order: "problem" };
const CHANGES = [["", "any change"], ["gained", "gained"], ["lost", "lost"], ["right", "right in both"], ["wrong", "wrong in both"]];
const ORDERS = [["problem", "order of the data"], ["long", "longest first"], ["short", "shortest first"], ["unsure", "highest entropy first"]];
const samples = { rows: [], shown: [], selected: 0, filter: { ...EVERYTHING }, now: null, base: null, drawn: new Map() };

function samplesSection() {
  samples.controls = element("div", { class: "controls" });
  samples.tall = element("div", { class: "tall" });
  samples.list = element("div", { class: "list", tabindex: 0, role: "listbox", "aria-label": "answers",
    on: { scroll: () => requestAnimationFrame(drawRows), keydown: moveSelection } }, samples.tall);
  samples.detail = element("div", { class: "detail", id: "sample" });
  samples.note = element("p", { class: "note", id: "count" });
  watchers.push(loadSamples);
  new ResizeObserver(drawRows).observe(samples.list);
  return card("samples", "Generations", samples.controls, samples.note,
    element("div", { class: "samples" }, samples.list, samples.detail));
}

async function loadSamples() {
  const { now, base } = choice;
  const names = [now?.name, now?.problems, base?.name, base?.problems];
  const [answers, problems, before, problemsBefore] = await Promise.all(names.map((name) => (name ? part(name) : null)));
  if (choice.now !== now || choice.base !== base) return;
  Object.assign(samples, { now, base, missing: Boolean(now) && !(answers && problems) });
  const earlier = before && problemsBefore ? answersById(before, problemsBefore) : new Map();
  const laterShares = answers && problems && earlier.size ? await sharesOf(now) : null;
  const earlierShares = earlier.size ? await sharesOf(base) : null;
  samples.rows = answers && problems ? answers.problem.map((index, row) => sampleRow(answers, problems, row, index, { earlier, laterShares, earlierShares })) : [];
  drawControls();
  applyFilter();
}

function answersById(answers, problems) {
  return new Map(answers.problem.map((index, row) => [`${problems.id[index]}/${answers.sample[row]}`, { answers, row }]));
}

function sampleRow(answers, problems, row, index, others) {
  const id = problems.id[index];
  const known = others.earlierShares?.has(id);
  return {
    answers, problems, row, index, id,
    before: others.earlier.get(`${id}/${answers.sample[row]}`) ?? others.earlier.get(`${id}/0`) ?? null,
    change: known ? changeOf(others.laterShares.get(id), others.earlierShares.get(id)) : "",
    text: null,
  };
}

/** What search looks in; made when it is first needed. */
function searched(sample) {
  sample.text ??= [sample.id, sample.problems.problem[sample.index], sample.answers.response[sample.row], sample.answers.extracted[sample.row] ?? ""].join("\n").toLowerCase();
  return sample.text;
}

function matches(sample, filter, words) {
  const { answers, problems, row, index } = sample;
  if (filter.verdict && answers.verdict[row] !== filter.verdict) return false;
  if (filter.change && sample.change !== filter.change) return false;
  if (filter.subject && problems.subject[index] !== filter.subject) return false;
  if (filter.level && problems.level[index] !== filter.level) return false;
  if (filter.finish && (answers.finish[row] === "length") !== (filter.finish === "length")) return false;
  return words.every((word) => searched(sample).includes(word));
}

const orderings = {
  problem: null,
  long: (a, b) => b.answers.tokens[b.row] - a.answers.tokens[a.row],
  short: (a, b) => a.answers.tokens[a.row] - b.answers.tokens[b.row],
  unsure: (a, b) => (b.answers.entropy[b.row] ?? 0) - (a.answers.entropy[a.row] ?? 0),
};

function applyFilter() {
  const { filter } = samples;
  const words = filter.search.toLowerCase().split(/\s+/).filter(Boolean);
  samples.shown = samples.rows.filter((sample) => matches(sample, filter, words));
  if (orderings[filter.order]) samples.shown.sort(orderings[filter.order]);
  samples.selected = 0;
  samples.list.scrollTop = 0;
  samples.tall.style.height = `${samples.shown.length * ROW_HEIGHT}px`;
  const total = samples.rows.length;
  const asked = samples.now?.rates.num_answers ?? total;
  samples.note.textContent = samples.missing
    ? `The answers of this evaluation are not in the page, which would be too large; they lie in evaluations/${samples.now.directory}.`
    : `${whole(samples.shown.length)} of ${whole(total)} answers${total < asked ? ` (${whole(asked)} were given; the rest would make the page too large)` : ""}. Arrow keys move through the list.`;
  drawRows();
  drawSample();
}

function drawControls() {
  const { filter } = samples;
  const set = (name) => (value) => { filter[name] = value; applyFilter(); };
  const choices = (name, label, values) => select(label, values, filter[name], set(name));
  const distinct = (values) => [...new Set(values)].sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
  const first = samples.rows[0];
  const listed = (any, values) => [["", any], ...distinct(values).map((value) => [value, value])];
  let timer = null;
  const search = element("input", { type: "search", id: "search", placeholder: "Search problems and answers", value: filter.search,
    on: { input: (event) => { clearTimeout(timer); timer = setTimeout(() => set("search")(event.target.value), 120); } } });
  samples.controls.replaceChildren(search,
    choices("verdict", "verdict", listed("any verdict", first ? first.answers.verdict : [])),
    choices("change", "change", CHANGES),
    choices("subject", "subject", listed("any subject", first ? first.problems.subject : [])),
    choices("level", "level", [["", "any level"], ...distinct(first ? first.problems.level : []).map((level) => [level, levelName(level)])]),
    choices("finish", "end", [["", "any end"], ["stop", "ended by itself"], ["length", "cut off"]]),
    choices("order", "order", ORDERS),
    element("button", { id: "reset", on: { click: () => { samples.filter = { ...EVERYTHING }; drawControls(); applyFilter(); } } }, "Reset"));
}

/** Jump here with a filter, as from a cell of the heat map. */
function showSamples(filter) {
  samples.filter = { ...EVERYTHING, ...filter };
  drawControls();
  applyFilter();
  document.getElementById("samples").scrollIntoView({ behavior: "smooth" });
}

function drawRows() {
  const { list, shown, tall } = samples;
  const from = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - 4);
  const to = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_HEIGHT) + 4);
  // Rows that stay in sight stay as they are: their mathematics is drawn once.
  const drawn = new Map();
  for (let at = from; at < to; at += 1) {
    const row = samples.drawn.get(shown[at]) ?? listRow(shown[at]);
    place(row, shown[at], at);
    drawn.set(shown[at], row);
  }
  samples.drawn = drawn;
  tall.replaceChildren(...drawn.values());
  // While the list runs past, nobody reads formulas.
  clearTimeout(samples.timer);
  samples.timer = setTimeout(() => drawLines(tall), STILL_MILLISECONDS);
}

function place(row, sample, at) {
  row.style.top = `${at * ROW_HEIGHT}px`;
  row.setAttribute("aria-selected", String(at === samples.selected));
}

function listRow(sample) {
  const { answers, problems, row, index, change } = sample;
  const marks = { gained: element("span", { class: "up" }, "▲ gained · "), lost: element("span", { class: "down" }, "▼ lost · ") };
  return element("div", {
    class: `row ${answers.right[row] ? "right" : "wrong"}`, role: "option", on: { click: () => selectSample(samples.shown.indexOf(sample)) },
  }, oneLine(problems.problem[index]),
  element("div", { class: "facts" }, marks[change], `${answers.verdict[row].replace("_", " ")} · ${problems.subject[index]} · L${problems.level[index]} · ${answers.tokens[row] ?? "?"} tokens`));
}

function selectSample(at) {
  samples.selected = Math.max(0, Math.min(samples.shown.length - 1, at));
  const top = samples.selected * ROW_HEIGHT;
  const { list } = samples;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
  drawRows();
  drawSample();
}

function moveSelection(event) {
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity }[event.key];
  if (steps === undefined) return;
  event.preventDefault();
  selectSample(samples.selected + steps);
}
