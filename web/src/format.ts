// Numbers as people read them: three significant digits, SI prefixes, and an interval with as many digits as it deserves.

const prefixes: [number, string][] = [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, ''], [1e-3, 'm'], [1e-6, 'µ'], [1e-9, 'n']];

/** What a missing number looks like. */
export const none = '–';

/** x with three significant digits and the prefix that leaves 1 to 999 before the unit: 0.01234 J is 12.3 mJ. */
export function si(x: number | null | undefined, unit: string): string {
  if (x == null || !Number.isFinite(x)) return none;
  if (Math.abs(x) < 5e-10) return `0 ${unit}`; // accounts are kept in millionths: what is less is rounding
  const [scale, prefix] = prefixOf(x);
  return `${digits(x / scale, 3).replace('-', '−')} ${prefix}${unit}`;
}

/** Values of an axis with one prefix and as many digits as tell them apart: 0 W, 0.5 W, 1 W. */
export function axis(values: readonly number[], unit: string): string[] {
  const top = Math.max(...values.map(Math.abs));
  const [scale, prefix] = prefixOf(top || 1);
  const step = values.length > 1 ? Math.abs(values[1]! - values[0]!) / scale : 1;
  const places = Math.max(0, Math.min(9, -Math.floor(Math.log10(step) + 1e-9)));
  // Steps of 2.5 need a digit more than their size tells.
  const more = Math.abs(step * 10 ** places - Math.round(step * 10 ** places)) > 1e-6 ? 1 : 0;
  return values.map((v) => `${v === 0 ? '0' : (v / scale).toFixed(places + more).replace('-', '−')} ${prefix}${unit}`);
}

/** The largest prefix at which x, rounded to three digits, is at least 1. */
function prefixOf(x: number): [number, string] {
  const rounded = Math.abs(Number(x.toPrecision(3)));
  return prefixes.find(([scale]) => rounded >= scale) ?? [1e-9, 'n'];
}

/** x with n significant digits, but no fewer than its integer part has, and never an exponent. */
function digits(x: number, n: number): string {
  const a = Math.abs(Number(x.toPrecision(n)));
  const before = Math.floor(Math.log10(a || 1)) + 1;
  return x.toFixed(Math.max(0, Math.min(12, n - before)));
}

/** A mean with its interval: 1.23 ± 0.04 J if that is symmetric to a tenth, else 1.23 (1.10 to 1.50) J; alone if there is none. */
export function interval(mean: number | undefined, low: number | undefined, high: number | undefined, unit: string): string {
  if (mean == null || !Number.isFinite(mean)) return none;
  if (low == null || high == null || !Number.isFinite(low) || !Number.isFinite(high)) return `${si(mean, unit)} (too few for ±)`;
  const [scale, prefix] = prefixOf(mean);
  const half = (high - low) / 2;
  // One digit of the half width, two if the first is 1: there one digit alone would be off by up to a third.
  const first = Number((half / scale).toPrecision(1)).toExponential();
  const places = half > 0 ? Math.max(0, Math.min(6, Number(first.startsWith('1')) - Number(first.split('e')[1]))) : 2;
  const f = (x: number) => (x / scale).toFixed(places);
  if (Math.abs(mean - (low + high) / 2) <= half / 10) return `${f(mean)} ± ${f(half)} ${prefix}${unit}`;
  return `${f(mean)} (${f(low)} to ${f(high)}) ${prefix}${unit}`;
}

/** A count with thin spaces between thousands; counts that were extrapolated are not whole, and are rounded. */
export function count(x: number | null | undefined): string {
  if (x == null || !Number.isFinite(x)) return none;
  return Math.round(x).toString().replace(/\B(?=(\d{3})+$)/g, '\u202f');
}

/** Seconds as the two largest of days, hours, minutes, seconds: 3725 is 1 h 2 min. */
export function duration(s: number | null | undefined): string {
  if (s == null || !Number.isFinite(s)) return none;
  if (Math.abs(s) < 10) return si(s, 's');
  let rest = Math.round(s);
  const parts: string[] = [];
  for (const [size, name] of [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']] as const) {
    const n = Math.floor(rest / size);
    if (n > 0 || parts.length > 0) parts.push(n > 0 ? `${n} ${name}` : '');
    rest -= n * size;
    if (parts.length === 2) break;
  }
  return parts.filter(Boolean).join(' ');
}

/** A ratio as a percentage. */
export function percent(x: number | null | undefined): string {
  if (x == null || !Number.isFinite(x)) return none;
  return x > 0 && x < 0.0005 ? '< 0.1 %' : `${(x * 100).toFixed(x !== 0 && Math.abs(x) < 0.1 ? 1 : 0)} %`;
}

/** A period in full, for whoever sees it another day and elsewhere. */
export function period(from: number, to: number): string {
  const other = new Date(0); // so that the date is shown
  const [a, b] = [clock(from, other), clock(to, other)];
  const minutes = -new Date(to * 1000).getTimezoneOffset();
  const hours = `${String(Math.floor(Math.abs(minutes) / 60)).padStart(2, '0')}:${String(Math.abs(minutes) % 60).padStart(2, '0')}`;
  const zone = minutes === 0 ? 'UTC' : `UTC${minutes < 0 ? '−' : '+'}${hours}`;
  return `${a} to ${b.slice(0, 10) === a.slice(0, 10) ? b.slice(11) : b}, ${zone}`;
}

/** A Unix time in seconds as local time of day, with the date if it is not today's. */
export function clock(t: number, now = new Date()): string {
  const d = new Date(t * 1000);
  const two = (n: number) => String(n).padStart(2, '0');
  const time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return d.toDateString() === now.toDateString() ? time : `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${time}`;
}
