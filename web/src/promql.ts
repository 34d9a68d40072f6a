// Queries over docs/metrics.md. Each builder returns PromQL; times are whole seconds.

export interface Window {
  start: number;
  end: number;
  step: number;
  /** Length of the range that rate() looks back: four scrapes, so that one lost scrape leaves no gap. */
  rate: number;
}

const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

/** The grid to query: up to 360 points, none closer than scrapes are. It ends with the newest scrape, however long its steps are. */
export function grid(from: number, to: number, scrape: number): Window {
  const least = Math.max((to - from) / 360, scrape);
  const step = steps.find((s) => s >= least) ?? 3600;
  const end = Math.floor(to / scrape) * scrape;
  return { start: end - Math.max(1, Math.ceil((to - from) / step)) * step, end, step, rate: Math.ceil(Math.max(4 * scrape, step)) };
}

/** A label's value as a quoted string of PromQL. */
export const quote = (s: string): string => `"${s.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`;

/** A selector: metric{label="value"}; empty values select all, several select each of them. */
export function select(metric: string, labels: Record<string, string | readonly string[]> = {}): string {
  const set = Object.entries(labels).filter(([, v]) => v !== '');
  const matcher = (v: string | readonly string[]) => (typeof v === 'string' ? `=${quote(v)}` : `=~${quote(v.map(literal).join('|'))}`);
  return metric + (set.length ? `{${set.map(([k, v]) => k + matcher(v)).join(',')}}` : '');
}

/** A regular expression, RE2, that matches s alone. */
const literal = (s: string): string => s.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');

/** Sum by labels, which drops those of the scrape (instance, job). */
export const sum = (by: readonly string[], expr: string): string => `sum by (${by.join(', ')}) (${expr})`;
/** Maximum by labels: of a gauge that two jobs may scrape. */
export const max = (by: readonly string[], expr: string): string => `max by (${by.join(', ')}) (${expr})`;
/** Watts of a counter of joules. */
export const rate = (selector: string, seconds: number): string => `rate(${selector}[${seconds}s])`;
/** Growth of a counter. */
export const increase = (selector: string, seconds: number): string => `increase(${selector}[${Math.max(1, Math.round(seconds))}s])`;

const byNode = ['node'];
export const byFunction = ['node', 'namespace', 'function'];
export const byWorkload = ['node', 'kind', 'namespace', 'name'];

export const nodePower = (w: Window, node = ''): string => sum(byNode, rate(select('wattlet_node_energy_joules_total', { node }), w.rate));
export const nodeEnergy = (seconds: number): string => sum(byNode, increase('wattlet_node_energy_joules_total', seconds));
/** Mean current: the counter of charge has it for any length of time, the gauge for the last tick alone. */
export const nodeCurrent = (w: Window): string => sum(byNode, rate('wattlet_node_charge_coulombs_total', w.rate));
export const functionIncrease = (metric: string, seconds: number, labels: Record<string, string> = {}): string =>
  sum(byFunction, increase(select(metric, labels), seconds));
/** The last value of a gauge in so many seconds: of an agent that is down, what it said last. */
export const last = (selector: string, seconds: number): string => `last_over_time(${selector}[${Math.max(1, Math.round(seconds))}s])`;
export const functionGauge = (metric: string, seconds: number, labels: Record<string, string> = {}): string =>
  max(byFunction, last(select(metric, labels), seconds));
/** Of functions by label. Where a denominator is 0 there is no value. */
export const joulesPerInvocation = (seconds: number, of: Record<string, string | readonly string[]> = {}): string =>
  `${sum(byFunction, increase(select('wattlet_function_energy_joules_total', of), seconds))} / ` +
  sum(byFunction, increase(select('wattlet_function_invocations_total', of), seconds));
/** Histograms of the energy of invocations. */
export const invocationEnergy = (seconds: number, node = ''): string =>
  sum(byFunction, increase(select('wattlet_function_invocation_energy_joules', { node }), seconds));
/** Mean of a gauge over so many seconds. */
export const mean = (selector: string, seconds: number): string => `avg_over_time(${selector}[${seconds}s])`;
/** Seconds between two samples, from how many there were in two minutes. */
export const samplesIn = (seconds: number): string => `max(count_over_time(wattlet_node_energy_joules_total[${seconds}s]))`;
