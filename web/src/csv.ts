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

/** Lets the browser save CSV, or a picture, under the name of what it shows. */
export function save(title: string, content: string | Blob): void {
  const a = document.createElement('a');
  const blob = typeof content === 'string' ? new Blob([content], { type: 'text/csv' }) : content;
  a.href = URL.createObjectURL(blob);
  a.download = `wattlet-${title.replace(/[^\w-]+/g, '-').toLowerCase()}.${blob.type.slice(blob.type.indexOf('/') + 1)}`;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
}
