// A client of Prometheus's HTTP API, https://prometheus.io/docs/prometheus/latest/querying/api/.
import { parseHistogram, type Histogram, type RawHistogram } from './histogram';
import type { Window } from './promql';

export type Labels = Record<string, string>;
export interface Sample { labels: Labels; value: number }
export interface Series { labels: Labels; values: (number | null)[] }
export interface Matrix { times: number[]; series: Series[] }

/** Nobody answered: the hub ended, or the network between did. */
export class Unreachable extends Error {}
/** The hub answered that it cannot. */
export class Refused extends Error {}

interface Answer {
  status: string;
  error?: string;
  data?: unknown;
}

interface Result { metric: Labels; value?: [number, string]; values?: [number, string][]; histogram?: [number, RawHistogram] }

async function get<T>(path: string, params: Record<string, string>, signal: AbortSignal): Promise<T> {
  let response: Response;
  try {
    response = await fetch(`api/v1/${path}?${new URLSearchParams(params)}`, { signal });
  } catch (e) {
    if (signal.aborted) throw e;
    throw new Unreachable('no answer');
  }
  const text = await response.text();
  let answer: Answer;
  try {
    answer = JSON.parse(text) as Answer;
  } catch {
    throw new Refused(`HTTP ${response.status} ${text.slice(0, 200).trim()}`);
  }
  if (answer.status !== 'success' || !answer.data) throw new Refused(answer.error ?? `HTTP ${response.status}`);
  return answer.data as T;
}

const instant = async (expr: string, time: number, signal: AbortSignal): Promise<Result[]> =>
  (await get<{ result: Result[] }>('query', { query: expr, time: String(time) }, signal)).result;

/** Instant query at a Unix time. */
export async function query(expr: string, time: number, signal: AbortSignal): Promise<Sample[]> {
  return (await instant(expr, time, signal)).flatMap((r) => (r.value ? [{ labels: r.metric, value: Number(r.value[1]) }] : []));
}

/** Instant query for histograms. */
export async function queryHistograms(expr: string, time: number, signal: AbortSignal): Promise<{ labels: Labels; histogram: Histogram }[]> {
  return (await instant(expr, time, signal)).flatMap((r) => (r.histogram ? [{ labels: r.metric, histogram: parseHistogram(r.histogram[1]) }] : []));
}

export interface Alert { labels: Labels; annotations: Labels; state: string; activeAt: string }

/** Alerts of rules that the hub evaluates, firing or about to. A hub that evaluates none has none. */
export async function alerts(signal: AbortSignal): Promise<Alert[]> {
  try {
    return (await get<{ alerts?: Alert[] | null }>('alerts', {}, signal)).alerts ?? [];
  } catch (e) {
    if (e instanceof Refused) return []; // not every API of Prometheus's kind knows of rules
    throw e;
  }
}

/** Range query. */
export async function queryRange(expr: string, w: Window, signal: AbortSignal): Promise<Matrix> {
  const params = { query: expr, start: String(w.start), end: String(w.end), step: String(w.step) };
  return matrix((await get<{ result: Result[] }>('query_range', params, signal)).result, w);
}

/** All series on one grid of times; null where a series has no sample or no finite one. */
export function matrix(result: Result[], w: Window): Matrix {
  const n = Math.round((w.end - w.start) / w.step) + 1;
  const times = Array.from({ length: n }, (_, i) => w.start + i * w.step);
  const series = result.map((r) => {
    const values = new Array<number | null>(n).fill(null);
    for (const [t, v] of r.values ?? []) {
      const i = Math.round((t - w.start) / w.step);
      const x = Number(v);
      if (i >= 0 && i < n && Number.isFinite(x)) values[i] = x;
    }
    return { labels: r.metric, values };
  });
  return { times, series };
}
