// Prometheus's native histograms: their buckets, quantiles, and shares to draw.

export interface Bucket { low: number; high: number; count: number }
/** Buckets are in order and may have gaps, in which nothing was counted. */
export interface Histogram { count: number; sum: number; buckets: Bucket[] }

/** As the HTTP API has it: each bucket is the rule of its bounds, low, high, count. */
export interface RawHistogram { count: string; sum: string; buckets?: [number, string, string, string][] }

export function parseHistogram(raw: RawHistogram): Histogram {
  const buckets = (raw.buckets ?? []).map(([, low, high, count]): Bucket => ({ low: Number(low), high: Number(high), count: Number(count) }));
  return { count: Number(raw.count), sum: Number(raw.sum), buckets: buckets.filter((b) => b.count > 0) };
}

/**
 * The value below which a share q of the observations is; null if there are none. Within a bucket it is interpolated on a
 * logarithmic scale, as PromQL's histogram_quantile() does; it is off by one bucket's width at most.
 */
export function quantile(h: Histogram, q: number): number | null {
  const total = h.buckets.reduce((s, b) => s + b.count, 0);
  let rest = q * total;
  for (const b of h.buckets) {
    if (rest <= b.count) return b.low > 0 ? b.low * (b.high / b.low) ** (rest / b.count) : Math.max(0, b.high * (rest / b.count));
    rest -= b.count;
  }
  return h.buckets.at(-1)?.high ?? null;
}

/** The mean, exact; null if nothing was observed. */
export const mean = (h: Histogram): number | null => (h.count > 0 ? h.sum / h.count : null);

/** The share of observations that a logarithmic scale cannot show. */
export const atZero = (h: Histogram): number => h.buckets.reduce((s, b) => s + (b.low > 0 ? 0 : b.count), 0) / (h.count || 1);

/** Buckets grow by 9 %: the eighth root of 2. */
export const growth = 2 ** (1 / 8);

/**
 * Histograms on common edges: shares[k][i] of all observations of histogram k lies between edges[i] and edges[i + 1], each of
 * which is as wide as a bucket. A store may have merged buckets; one that is wider is taken to be even on a logarithmic scale.
 * There is an empty one before the first and after the last.
 */
export function shares(histograms: readonly Histogram[]): { edges: number[]; shares: number[][] } {
  const positive = histograms.flatMap((h) => h.buckets.filter((b) => b.low > 0));
  if (positive.length === 0) return { edges: [], shares: histograms.map(() => []) };
  const index = (x: number) => Math.round(Math.log(x) / Math.log(growth));
  const first = Math.min(...positive.map((b) => index(b.low))) - 1;
  const last = Math.max(...positive.map((b) => index(b.high))) + 1;
  return {
    edges: Array.from({ length: last - first + 1 }, (_, i) => growth ** (first + i)),
    shares: histograms.map((h) => {
      const out = new Array<number>(last - first).fill(0);
      for (const b of h.buckets.filter((x) => x.low > 0)) {
        const [from, to] = [index(b.low), Math.max(index(b.low) + 1, index(b.high))];
        for (let i = from; i < to; i++) out[i - first]! += b.count / (to - from) / h.count;
      }
      return out;
    }),
  };
}
