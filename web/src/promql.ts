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

/** A selector: metric{label="value"}; empty values select all. */
export function select(metric: string, labels: Record<string, string> = {}): string {
  const set = Object.entries(labels).filter(([, v]) => v !== '');
  return metric + (set.length ? `{${set.map(([k, v]) => `${k}=${quote(v)}`).join(',')}}` : '');
}

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
export const nodeCurrent = (): string => max(byNode, 'wattlet_node_current_amperes');
export const functionIncrease = (metric: string, seconds: number, labels: Record<string, string> = {}): string =>
  sum(byFunction, increase(select(metric, labels), seconds));
/** The last value of a gauge in so many seconds: of an agent that is down, what it said last. */
export const last = (selector: string, seconds: number): string => `last_over_time(${selector}[${Math.max(1, Math.round(seconds))}s])`;
export const functionGauge = (metric: string, seconds: number, labels: Record<string, string> = {}): string =>
  max(byFunction, last(select(metric, labels), seconds));
export const joulesPerInvocation = (seconds: number, node = ''): string =>
  `${sum(byFunction, increase(select('wattlet_function_energy_joules_total', { node }), seconds))} / ` +
  sum(byFunction, increase(select('wattlet_function_invocations_total', { node }), seconds));
/** Seconds between two samples, from how many there were in two minutes. */
export const samplesIn = (seconds: number): string => `max(count_over_time(wattlet_node_energy_joules_total[${seconds}s]))`;
