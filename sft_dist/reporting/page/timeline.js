// When everything happened: a picture of attempts and evaluations, and the events as a list.

const SVG = "http://www.w3.org/2000/svg";
const LANE = 22;

function drawing(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

function timelineSection() {
  const cards = runs.map((run) => {
    if (!run.events.length && !run.spans.length) return note(`${isOne ? "" : `${run.name}: `}Nothing has happened yet.`);
    return element("div", null, isOne ? null : element("h3", null, run.name), element("div", { class: "scroll" }, timeline(run)), isOne ? startup(run) : null, eventList(run));
  });
  return card("timeline", "Time line", ...cards);
}

function timeline(run) {
  const times = [...run.spans.flatMap((span) => [span.began, span.ended]), ...run.events.map((event) => event.time)];
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const lanes = packed(run.spans);
  const height = 18 + (lanes.length + 1) * LANE + 22;
  const x = (time) => 92 + ((time - from) / Math.max(1e-9, to - from)) * 890;
  const svg = drawing("svg", { class: "timeline", viewBox: `0 0 1000 ${height}`, role: "img", "aria-label": "time line of the run" });
  lanes.forEach((lane, index) => {
    const y = 18 + index * LANE;
    if (index === 0 || lanes[index - 1][0].lane !== lane[0].lane) svg.append(drawing("text", { x: 0, y: y + 12 }, lane[0].lane));
    for (const span of lane) {
      const width = Math.max(2, x(span.ended) - x(span.began));
      svg.append(titled(drawing("rect", { class: span.lane, x: x(span.began), y, width, height: 15, rx: 3 }), `${span.what}, ${duration(span.ended - span.began)}`));
    }
  });
  const y = 18 + lanes.length * LANE + 8;
  svg.append(drawing("text", { x: 0, y: y + 4 }, "events"));
  for (const event of run.events) svg.append(...eventMark(event, x(event.time), y));
  svg.append(...axis(x, from, to, height - 18));
  return svg;
}

/** Spans in as few rows as hold them without overlap, training first. */
function packed(spans) {
  const rows = [];
  for (const lane of ["training", "evaluation"]) {
    const own = [];
    for (const span of spans.filter((s) => s.lane === lane).sort((a, b) => a.began - b.began)) {
      const free = own.find((row) => row.at(-1).ended <= span.began);
      if (free) free.push(span); else own.push([span]);
    }
    rows.push(...own);
  }
  return rows;
}

function eventMark(event, x, y) {
  const title = `${when(event.time)} ${event.what}`;
  if (event.kind === "checkpoint") return [titled(drawing("circle", { class: "checkpoint", cx: x, cy: y, r: 4.5 }), title)];
  if (event.kind === "fault") return [titled(drawing("path", { class: "fault", d: `M${x - 5} ${y - 5}l10 10m0-10l-10 10`, fill: "none" }), title)];
  if (event.kind === "resume") return [titled(drawing("line", { class: "resume", x1: x, x2: x, y1: 14, y2: y + 8 }), title)];
  return [];
}

function titled(node, text) {
  node.append(drawing("title", {}, text));
  return node;
}

function axis(x, from, to, y) {
  const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => from + part * (to - from));
  return [drawing("line", { class: "axis", x1: 92, x2: 982, y1: y, y2: y }),
    ...marks.map((time, index) => drawing("text", { x: x(time), y: y + 14, "text-anchor": index === 4 ? "end" : index ? "middle" : "start" },
      index ? `+${duration(time - from)}` : when(time)))];
}

function eventList(run) {
  const kinds = ["fault", "warning", "resume", "start", "end"];
  const host = element("div", { class: "events" });
  const rare = run.events.filter((event) => kinds.includes(event.kind));
  const draw = (events) => host.replaceChildren(events.length
    ? table(null, events.map((event) => [when(event.time), badge(event.kind), event.what]))
    : note("No fault, warning or resume."));
  const all = element("input", { type: "checkbox", on: { change: () => draw(all.checked ? run.events : rare) } });
  draw(rare);
  return element("div", null, element("div", { class: "controls", style: { margin: "0.6rem 0 0" } }, labelled("Show checkpoints and evaluations too", all)), host);
}

/** What each start cost. */
function startup(run) {
  if (!run.startup.length) return null;
  const names = [...new Set(run.startup.flatMap((start) => Object.keys(start.parts)))];
  return element("div", { style: { "margin-top": "0.8rem" } }, table(
    ["start-up, seconds", ...names.map((name) => ({ number: name.replaceAll("_", " ") }))],
    run.startup.map((start) => [`attempt ${start.attempt ?? "?"}`, ...names.map((name) => ({ number: unless(start.parts[name], (s) => s.toFixed(1)) }))])));
}
