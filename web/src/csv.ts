// Comma-separated values, RFC 4180, with full precision and base units.

export type Cell = string | number | null | undefined;

/** Rows as CSV. Text that a spreadsheet would take for a formula gets an apostrophe before it. */
export function csv(head: string[], rows: Cell[][]): string {
  return [head, ...rows].map((row) => row.map(field).join(',') + '\r\n').join('');
}

function field(x: Cell): string {
  if (x == null) return '';
  if (typeof x === 'number') return Number.isFinite(x) ? String(x) : '';
  const safe = /^[=+\-@\t\r]/.test(x) ? `'${x}` : x;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Lets the browser save text under a name. */
export function save(name: string, text: string): void {
  const a = document.createElement('a');
  a.href = URL.createObjectURL(new Blob([text], { type: 'text/csv' }));
  a.download = `${name.replace(/[^\w-]+/g, '-').toLowerCase()}.csv`;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
}
