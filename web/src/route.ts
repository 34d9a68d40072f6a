// Where the reader is, all of it in the address: page, time range, filters, order. A link shows another reader the same.

export const pages = ['cluster', 'functions', 'invocations', 'node', 'uncertain'] as const;
export type Page = (typeof pages)[number];

/** Length of the time ranges to choose from, in seconds. */
export const ranges = { '5m': 300, '15m': 900, '1h': 3600, '6h': 21600, '24h': 86400, '7d': 604800 } as const;
export type Range = keyof typeof ranges;

/** So many distributions are drawn over each other at most: more cannot be told apart. */
export const compared = 4;

export const policies = ['equal', 'proportional', 'requested'] as const;
export type Policy = (typeof policies)[number];

export interface Route {
  page: Page;
  /** The range that follows the present. */
  range: Range;
  /** A range that stands still, in Unix seconds: what was zoomed into. Null follows the present. */
  zoom: { from: number; to: number } | null;
  /** Node of the node page; filter of the function page; empty for the first or for all. */
  node: string;
  /** Text that a function's name or namespace must contain. */
  filter: string;
  policy: Policy;
  /** Column to sort by, with - before it for descending; empty for the table's own. */
  sort: string;
  /** What the invocation page compares, as node/namespace/function; empty for what it chooses. */
  fn: string[];
}

export const home: Route = { page: 'cluster', range: '15m', zoom: null, node: '', filter: '', policy: 'equal', sort: '', fn: [] };

const pick = <T extends string>(x: string | null | undefined, of: readonly T[], otherwise: T): T => of.find((o) => o === x) ?? otherwise;

/** The route of an address's part after #. What it does not know is as at home. */
export function parse(hash: string): Route {
  const [path, query] = hash.replace(/^#\/?/, '').split('?', 2);
  const q = new URLSearchParams(query ?? '');
  const [from, to] = [Number(q.get('from')), Number(q.get('to'))];
  return {
    page: pick(path, pages, home.page),
    range: pick(q.get('range'), Object.keys(ranges) as Range[], home.range),
    zoom: from > 0 && to - from >= 1 && Number.isFinite(to) ? { from, to } : null,
    node: q.get('node') ?? '',
    filter: q.get('filter') ?? '',
    policy: pick(q.get('policy'), policies, home.policy),
    sort: q.get('sort') ?? '',
    fn: q.getAll('fn').slice(0, compared),
  };
}

/** The part of an address after #; parse(format(r)) is r. What is as at home is left out. */
export function format(r: Route): string {
  const q = new URLSearchParams();
  if (r.range !== home.range) q.set('range', r.range);
  if (r.zoom) {
    q.set('from', String(r.zoom.from));
    q.set('to', String(r.zoom.to));
  }
  for (const key of ['node', 'filter', 'policy', 'sort'] as const) if (r[key] !== home[key]) q.set(key, r[key]);
  for (const fn of r.fn) q.append('fn', fn);
  const query = q.toString();
  return `#/${r.page}${query && `?${query}`}`;
}

/** A link to another page takes the time along, and nothing that is the page's own but what is given. */
export const to = (r: Route, page: Page, node = '', more: Partial<Route> = {}): string =>
  format({ ...home, page, node, range: r.range, zoom: r.zoom, policy: r.policy, ...more });
