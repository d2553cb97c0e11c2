/** Numbers as the page writes them. */

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Returns a count with commas: "110,016"; "–" where it is not known. */
export function whole(value) {
  return known(value) ? WHOLE.format(value) : "–";
}

/** Returns a number with three digits that count, and no more zeros than it takes: "0.115", "1.2e-5", "12,300". */
export function short(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e7 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  if (size >= 1000) return WHOLE.format(value);
  return String(Number(value.toPrecision(3)));
}

/** Returns a number for an axis: "20k", "1.5M", "0.25". */
export function axis(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${trimmed(value / 1e6)}M`;
  if (size >= 1e4) return `${trimmed(value / 1e3)}k`;
  if (size >= 1000) return WHOLE.format(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(0).replace("e+", "e");
  return trimmed(value);
}

/** Returns seconds as "2 h 05 min", "3 min 20 s", "12 s". */
export function duration(seconds) {
  if (!known(seconds)) return "–";
  const all = Math.max(0, Math.round(seconds));
  if (all >= 172800) return `${Math.floor(all / 86400)} d ${Math.floor((all % 86400) / 3600)} h`;
  if (all >= 3600) return `${Math.floor(all / 3600)} h ${String(Math.floor((all % 3600) / 60)).padStart(2, "0")} min`;
  if (all >= 60) return `${Math.floor(all / 60)} min ${String(all % 60).padStart(2, "0")} s`;
  return `${all} s`;
}

/** Returns seconds of a step as "136 ms" or "1.25 s". */
export function span(seconds) {
  if (!known(seconds)) return "–";
  if (seconds >= 10) return `${seconds.toFixed(1)} s`;
  if (seconds >= 1) return `${seconds.toFixed(2)} s`;
  return `${(seconds * 1000).toFixed(seconds < 0.0095 ? 1 : 0)} ms`;
}

/** Returns a size in bytes as "22.2 MiB". */
export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit ? value.toFixed(1) : value} ${UNITS[unit]}`;
}

/** Returns "1 step", "2 steps". */
export function counted(count, noun) {
  return `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;
}

function known(value) {
  return value !== null && value !== undefined && Number.isFinite(value);
}

function trimmed(value) {
  return String(Number(value.toPrecision(4)));
}
