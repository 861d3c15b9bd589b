// Line charts with uPlot: colours of the theme, a read-out of our own, redrawn when either changes.

const PALETTES = {
  light: ["#2458c5", "#c2571a", "#17794a", "#8b3fb0", "#a67c00", "#0e838c", "#c0306b", "#5a6572"],
  dark: ["#82aaff", "#ffa26b", "#56c98f", "#cf9df2", "#e3bb59", "#4fcbd5", "#ff86b5", "#aab4bf"],
};
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const charts = new Set();
darkScheme.addEventListener("change", () => {
  charts.forEach((draw) => draw());
  watchers.forEach((watcher) => watcher());
});

function colour(index) {
  const palette = PALETTES[darkScheme.matches ? "dark" : "light"];
  if (index < palette.length) return palette[index];
  return `hsl(${(index * 137.5) % 360} 60% ${darkScheme.matches ? 70 : 42}%)`;
}

/** The colours of a theme name mixed into the card's, and the text that can be read on it. */
function tinted(name, strength) {
  const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const [hue, card] = [channels(themed(name)), channels(themed("--card"))];
  const mixed = hue.map((value, i) => Math.round(strength * value + (1 - strength) * card[i]));
  const linear = mixed.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  const light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  // Where black and white are read equally well, at a contrast of 4.58.
  return { background: `rgb(${mixed.join(" ")})`, color: light > 0.179 ? "#000000" : "#ffffff" };
}

const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * A figure. spec: title, unit, x, series [{label, values, colour, dash, faint, band: [low, high]}],
 * format (a value for people), axis (a value on the axis), log, from0, upTo, marks [{x, label}],
 * xLabel, stepped.
 */
function chart(spec) {
  const plot = element("div", { class: "plot" });
  const legend = element("div", { class: "legend" });
  const figure = element("figure", null,
    element("figcaption", null, spec.title, spec.unit && element("span", { class: "unit" }, ` ${spec.unit}`)),
    legend, plot);
  let drawn = null;
  const draw = () => {
    const width = plot.clientWidth;
    if (!width || !plot.isConnected) return;
    drawn?.destroy();
    drawn = new uPlot(plotOptions(spec, legend, width), plotData(spec), plot);
  };
  charts.add(draw);
  new ResizeObserver(() => {
    if (drawn && drawn.width === plot.clientWidth) return;
    if (drawn && plot.clientWidth) drawn.setSize({ width: plot.clientWidth, height: 210 });
    else draw();
  }).observe(plot);
  figure.redraw = (changes) => { Object.assign(spec, changes); draw(); };
  return figure;
}

function plotData(spec) {
  const positive = (values) => (spec.log ? values.map((v) => (v > 0 ? v : null)) : values);
  return [spec.x, ...spec.series.flatMap((s) => [s.values, ...(s.band ?? [])].map(positive))];
}

function plotOptions(spec, legend, width) {
  const show = spec.format ?? short;
  const lines = [{}];
  const bands = [];
  const shown = [];
  for (const [index, one] of spec.series.entries()) {
    shown.push({ at: lines.length, one, stroke: colour(one.colour ?? index) });
    lines.push(lineOf(spec, one, shown.at(-1).stroke));
    if (one.band) {
      bands.push({ series: [lines.length + 1, lines.length], fill: withAlpha(shown.at(-1).stroke, 0.18) });
      lines.push({ stroke: "transparent", points: { show: false } }, { stroke: "transparent", points: { show: false } });
    }
  }
  const readOut = (u) => fillLegend(legend, u, shown, spec, show);
  return {
    width, height: 210, series: lines, bands,
    legend: { show: false },
    cursor: { sync: spec.sync ? { key: spec.sync } : undefined, points: { size: 6 }, y: false },
    scales: { x: { time: false }, y: { distr: spec.log ? 3 : 1, range: (u, low, high) => rangeOf(spec, low, high) } },
    axes: [axisOf({ size: 30, values: (u, ticks) => ticks.map((t) => (t === null ? "" : brief(t))) }),
      axisOf({ size: 54, values: (u, ticks) => ticks.map((t) => (t === null ? "" : (spec.axis ?? brief)(t))) })],
    hooks: { setCursor: [readOut], ready: [readOut], draw: [(u) => drawMarks(u, spec.marks ?? [])] },
  };
}

const withAlpha = (stroke, alpha) =>
  stroke.startsWith("#") ? stroke + Math.round(255 * alpha).toString(16).padStart(2, "0")
    : stroke.replace(")", ` / ${alpha})`);

function lineOf(spec, one, stroke) {
  const few = spec.x.length <= 40;
  return {
    stroke: one.faint ? withAlpha(stroke, 0.3) : stroke, width: one.faint ? 1 : 1.8, dash: one.dash, spanGaps: true,
    points: { show: few && !one.faint && !spec.stepped, size: 6, fill: stroke },
    paths: spec.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
    fill: spec.stepped ? withAlpha(stroke, 0.2) : undefined,
  };
}

function axisOf(options) {
  const line = { stroke: themed("--line"), width: 1 };
  return { stroke: themed("--muted"), font: "11px system-ui, sans-serif", grid: line, ticks: line, ...options };
}

function rangeOf(spec, low, high) {
  if (low === null || high === null) return [0, 1];
  if (spec.log) return low === high ? [low / 2, high * 2] : [low * 0.9, high * 1.1];
  const [from, to] = uPlot.rangeNum(spec.from0 ? Math.min(0, low) : low, high, 0.08, true);
  return [spec.from0 && low >= 0 ? 0 : from, spec.upTo === undefined ? to : Math.min(to, spec.upTo)];
}

/** Values at the cursor, or the last ones. */
function fillLegend(legend, u, shown, spec, show) {
  const at = u.cursor.idx ?? null;
  const last = (values) => values.findLast((value) => value !== null && value !== undefined) ?? null;
  const idle = at === null && spec.stepped;
  const head = at === null ? [] : [element("span", null, `${spec.xLabel ?? "step"} `, element("b", null, brief(spec.x[at])))];
  legend.replaceChildren(...head, ...shown.filter(({ one }) => !one.faint).map(({ at: row, one, stroke }) =>
    element("span", null, element("i", { style: { background: stroke } }), `${one.label} `,
      idle ? null : element("b", null, show(at === null ? last(u.data[row]) : u.data[row][at])))));
}

/** Dashed lines across the plot, as where a run was resumed. */
function drawMarks(u, marks) {
  const { ctx } = u;
  ctx.save();
  ctx.strokeStyle = themed("--muted");
  ctx.setLineDash([4, 4]);
  for (const mark of marks) {
    const x = u.valToPos(mark.x, "x", true);
    if (x < u.bbox.left || x > u.bbox.left + u.bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, u.bbox.top);
    ctx.lineTo(x, u.bbox.top + u.bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

/** Several curves on one axis: [{x, y}] -> {x, columns}, with null where a curve has no point. */
function joined(curves) {
  const x = [...new Set(curves.flatMap((curve) => curve.x))].sort((a, b) => a - b);
  const place = new Map(x.map((value, index) => [value, index]));
  const columns = curves.map((curve) => {
    const column = new Array(x.length).fill(null);
    curve.x.forEach((value, i) => { column[place.get(value)] = curve.y[i]; });
    return column;
  });
  return { x, columns };
}
