// Series of a chart: their colours, their order, and their sums when they stand on each other.
import type { Matrix } from './prometheus';

export interface Line { name: string; color: number; values: (number | null)[] }

/** Colours are told apart, and from the background, by 3:1 in either scheme; the last one, grey, is for what is nobody's. */
export const palette = {
  light: ['#0b62a4', '#c2410c', '#15803d', '#8e3fb0', '#b91c5c', '#796300', '#0e7490', '#4f46c8', '#7c4a2d', '#4b7a12', '#a8509a', '#2f4858',
    '#68717d'],
  dark: ['#5aa9f0', '#f0935a', '#56c288', '#c995ee', '#f085b0', '#d0b93f', '#4cc7db', '#9d9bff', '#c9a07f', '#a5cf5a', '#e39ad8', '#a9c9da',
    '#87919e'],
};
export const grey = 12;
/** Colours that take turns. */
const turns = 12;
export const colorOf = (index: number): number => (index < 0 ? grey : index % turns);

/** Sums from the first line up. Where nothing is known of any line there is a gap; a line missing beside others counts as 0. */
export function stack(lines: readonly Line[]): (number | null)[][] {
  const n = lines[0]?.values.length ?? 0;
  const known = Array.from({ length: n }, (_, i) => lines.some((l) => l.values[i] != null));
  const sum = new Array<number>(n).fill(0);
  return lines.map((l) => l.values.map((v, i) => (known[i] ? (sum[i] = sum[i]! + Math.max(0, v ?? 0)) : null)));
}

const total = (l: Line): number => l.values.reduce<number>((s, v) => s + (v ?? 0), 0);

/** The lines with the most, in the order they came; the others become one grey line, at the end. */
export function most(lines: Line[], n: number, rest: string): Line[] {
  if (lines.length <= n) return lines;
  const kept = new Set([...lines].sort((a, b) => total(b) - total(a)).slice(0, n - 1));
  const others = lines.filter((l) => !kept.has(l));
  return [...lines.filter((l) => kept.has(l)), add(others, `${rest} (${others.length})`)];
}

/** The sum of lines as one grey line. */
export function add(lines: Line[], name: string): Line {
  const n = lines[0]?.values.length ?? 0;
  const values = Array.from({ length: n }, (_, i) =>
    lines.reduce<number | null>((s, l) => (l.values[i] == null ? s : (s ?? 0) + l.values[i]), null));
  return { name, color: grey, values };
}

/**
 * Lines of a matrix, named and in the order of their names, so that each has its colour whatever its values are. Where several
 * charts show the same things, all are all their names, in order: one that is missing in a chart takes no other's colour.
 */
export function lines(m: Matrix, name: (labels: Record<string, string>) => string, all?: readonly string[]): Line[] {
  return m.series
    .map((s) => ({ name: name(s.labels), values: s.values }))
    .sort((a, b) => a.name.localeCompare(b.name))
    .map((l, i) => ({ ...l, color: colorOf(all ? all.indexOf(l.name) : i) }));
}
