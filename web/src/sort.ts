// Order of tables.

export type Sortable = string | number | null | undefined;

const names = new Intl.Collator('en', { numeric: true });

/** Rows by a key; the missing come last either way, and equal rows stay as they were. */
export function sortBy<T>(rows: readonly T[], key: (row: T) => Sortable, descending: boolean): T[] {
  const missing = (x: Sortable) => x == null || (typeof x === 'number' && Number.isNaN(x));
  return [...rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (missing(x) || missing(y)) return Number(missing(x)) - Number(missing(y));
    const order = typeof x === 'number' && typeof y === 'number' ? x - y : names.compare(String(x), String(y));
    return descending ? -order : order;
  });
}
