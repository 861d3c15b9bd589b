// Numbers as people read them. Everything takes null and gives a dash.

const DASH = "–";

const unless = (value, format) => (value === null || value === undefined ? DASH : format(value));
const percent = (share, digits = 1) => unless(share, (x) => `${(100 * x).toFixed(digits)}%`);
const points = (change, digits = 1) =>
  unless(change, (x) => `${x < 0 ? "−" : "+"}${Math.abs(100 * x).toFixed(digits)}`);
const bounds = (interval) =>
  interval ? `[${(100 * interval[0]).toFixed(1)}, ${(100 * interval[1]).toFixed(1)}]` : "";
const pointBounds = (interval) =>
  interval ? `[${points(interval[0])}, ${points(interval[1])}]` : "";
const whole = (value) => unless(value, (x) => Math.round(x).toLocaleString("en-US"));
const pValue = (p) => unless(p, (x) => (x < 1e-15 ? "< 1e-15" : x < 0.001 ? x.toExponential(0) : x.toFixed(3)));

/** Three or four significant digits, whatever the size. */
function short(value) {
  return unless(value, (x) => {
    const size = Math.abs(x);
    if (size !== 0 && (size < 0.001 || size >= 1e6)) return x.toExponential(2);
    if (size >= 1000) return Math.round(x).toLocaleString("en-US");
    return String(Number(x.toPrecision(4)));
  });
}

/** An axis label: 12k, 3e-5. */
function brief(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  if (size !== 0 && size < 0.001) return value.toExponential().replace(/(\.\d\d)\d+e/, "$1e");
  return String(Number(value.toPrecision(4)));
}

function duration(seconds) {
  return unless(seconds, (s) => {
    const total = Math.max(0, Math.round(s));
    const [days, hours, minutes] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24, Math.floor(total / 60) % 60];
    if (days) return `${days} d ${hours} h`;
    if (hours) return `${hours} h ${minutes} min`;
    return minutes ? `${minutes} min ${total % 60} s` : `${total} s`;
  });
}

const when = (time) =>
  unless(time, (t) => new Date(1000 * t).toLocaleString("sv-SE", { dateStyle: "short", timeStyle: "medium" }));

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = count > 0 ? Math.min(4, Math.floor(Math.log10(count) / 3)) : 0;
  return `${Number((count / 1000 ** power).toPrecision(3))} ${units[power]}`;
}

function mean(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}
