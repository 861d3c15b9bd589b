// The data of the page: one JSON text that is read at once, and packed parts that are read on demand.

const page = JSON.parse(document.getElementById("data").textContent);
const runs = page.runs;
const isOne = runs.length === 1;
const evaluations = runs.flatMap((run, index) =>
  run.evaluations.map((evaluation) => Object.assign(evaluation, { run, runIndex: index })));
const unpacked = new Map();

/** Columns of a packed part, as a promise; null where the part is not in the page. */
function part(name) {
  if (!page.parts.includes(name)) return Promise.resolve(null);
  if (!unpacked.has(name)) unpacked.set(name, unpack(document.getElementById(name).textContent));
  return unpacked.get(name);
}

async function unpack(text) {
  const binary = atob(text);
  const packed = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) packed[i] = binary.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** How an evaluation is called in lists. */
function nameOf(evaluation) {
  const kinds = new Set(evaluation.run.evaluations.map((e) => e.series)).size;
  const prompt = kinds > 1 ? ` · ${seriesName(evaluation)}` : "";
  const step = evaluation.step === 0 ? "step 0 (base)" : `step ${evaluation.step}`;
  return `${isOne ? "" : `${evaluation.run.name} · `}${step}${prompt}`;
}

/** The prompt, and what tells its kinds apart where there are several. */
function seriesName(evaluation) {
  const same = evaluation.run.evaluations.filter((e) => e.prompt === evaluation.prompt);
  const name = evaluation.prompt ?? "unknown prompt";
  if (new Set(same.map((e) => e.series)).size < 2) return name;
  const sampling = evaluation.sampling ?? {};
  return `${name}, ${evaluation.rates.num_problems} problems, ${sampling.max_new_tokens ?? "?"} tokens`;
}

// What the reader looks at: one evaluation, beside another. Sections redraw when it changes.
const readable = evaluations.filter((evaluation) => evaluation.name);
const choice = { now: null, base: null };
const watchers = [];

function choose(now, base) {
  choice.now = now;
  choice.base = base;
  for (const watcher of watchers) watcher();
}

function chooseFirst() {
  const main = readable.filter((e) => e.runIndex === 0 && e.series === 0);
  const now = main.at(-1) ?? readable.at(-1) ?? null;
  const base = now && readable.find((e) => e.name === now.base);
  choose(now, base ?? null);
}
