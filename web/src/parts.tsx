// Parts of pages: panels, notices, tiles, bars, tables.
import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { csv, save, type Cell } from './csv';
import * as picture from './picture';
import { sortBy } from './sort';
import { palette } from './stack';
import { useApp, type Loaded } from './state';

interface PanelProps { title: string; note?: ComponentChildren; loading?: boolean; actions?: ComponentChildren; children: ComponentChildren }

export function Panel({ title, note, loading = false, actions, children }: PanelProps) {
  return (
    <section class="panel" aria-busy={loading} aria-label={title}>
      <header><h2>{title}</h2>{actions && <div class="actions">{actions}</div>}</header>
      {note && <p class="note">{note}</p>}
      {children}
    </section>
  );
}

/** Something to know or to do. */
export function Notice({ kind = 'info', title, children }: { kind?: 'info' | 'bad' | 'good'; title: string; children?: ComponentChildren }) {
  // Only the title is read out by itself: what is below it may change every second.
  return <div class={`notice ${kind}`}><strong role={kind === 'bad' ? 'alert' : 'status'}>{title}</strong>{children && <div>{children}</div>}</div>;
}

/** What was loaded, or why it is not there. */
export function Loading<T>({ of, empty, children }:
  { of: Loaded<T>; empty?: (data: T) => ComponentChildren; children: (data: T) => ComponentChildren }) {
  const { data, error } = of;
  return (
    <>
      {error && <Notice kind="bad" title={data ? 'These figures are old.' : 'No figures.'}>
        <p>The hub says: {error.message}. Tried again by itself; if it stays, look at what the hub writes to its terminal.</p>
      </Notice>}
      {data ? (empty?.(data) ?? children(data)) : !error && <p class="loading" role="status">Asking the hub…</p>}
    </>
  );
}

export function Tile({ name, value, more, bad = false }: { name: string; value: ComponentChildren; more?: ComponentChildren; bad?: boolean }) {
  return <div class={bad ? 'tile bad' : 'tile'}><dt>{name}</dt><dd>{value}{more && <small>{more}</small>}</dd></div>;
}

export interface Bar { name: string; value: number; low?: number | undefined; high?: number | undefined; text: string; color: number; href?: string }

/** Horizontal bars from 0; with whiskers where low and high are known. */
export function Bars({ title, note, period, bars, unit, loading = false }:
  { title: string; note?: string; period: string; bars: Bar[]; unit: string; loading?: boolean }) {
  const { dark } = useApp();
  const colors = dark ? palette.dark : palette.light;
  // A whisker far beyond all means may leave the chart; the text has its numbers.
  const most = Math.max(...bars.map((b) => b.value), 0);
  const top = Math.min(most * 2, Math.max(most, ...bars.map((b) => b.high ?? 0))) || 1;
  const x = (v: number) => `${Math.min(100, (100 * v) / top)}%`;
  const whiskers = bars.some((b) => b.low != null);
  const png = () => picture.bars({ title, period }, bars.map((b) => ({
    name: b.name, text: b.text, color: palette.light[b.color] ?? '', end: b.value / top,
    ...(b.low != null && b.high != null && { low: b.low / top, high: b.high / top }),
  })));
  return (
    <Panel title={title} note={note} loading={loading} actions={<>
      <button type="button" aria-label={`${title} as PNG`} onClick={() => void png()}>PNG</button>
      <button type="button" aria-label={`${title} as CSV`} onClick={() => save(title, whiskers
        ? csv(['name', `mean (${unit})`, `low95 (${unit})`, `high95 (${unit})`], bars.map((b) => [b.name, b.value, b.low, b.high]))
        : csv(['name', unit], bars.map((b) => [b.name, b.value])))}>CSV</button>
    </>}>
      <ul class={bars.length <= 8 ? 'bars few' : 'bars'}>
        {bars.map((b) => (
          <li key={b.name}>
            <span class="name">{b.href ? <a href={b.href}>{b.name}</a> : b.name}</span>
            <span class="track" aria-hidden="true">
              <span class="bar" style={{ width: x(b.value), background: colors[b.color] }} />
              {b.low != null && b.high != null && <span class="whisker" style={{ left: x(b.low), width: `calc(${x(b.high)} - ${x(b.low)})` }} />}
            </span>
            <span class="text">{b.text}</span>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

export interface Column<T> {
  key: string;
  name: ComponentChildren;
  /** Name and unit for CSV. */
  head: string;
  number?: boolean;
  /** Only in CSV: on the page another column has it. */
  hidden?: boolean;
  /** Not on a phone, where the first column has it. */
  wide?: boolean;
  value: (row: T) => Cell;
  cell?: (row: T) => ComponentChildren;
}

interface TableProps<T> {
  title: string; note?: ComponentChildren; rows: T[]; columns: Column<T>[]; id: (row: T) => string; empty: ComponentChildren;
  sort: string; onSort?: (sort: string) => void; loading?: boolean;
  /** Of a longer table so many rows are shown at first. */
  glance?: number;
}

const look = (c: { number?: boolean; wide?: boolean }): string => `${c.number ? 'number' : ''}${c.wide ? ' wide' : ''}`;

/** A table to sort by its heads. The first column names the row. */
export function Table<T>({ title, note, rows, columns, id, empty, sort, onSort, loading = false, glance = 40 }: TableProps<T>) {
  const [own, setOwn] = useState(sort);
  const current = onSort ? sort : own;
  const [whole, setWhole] = useState(false);
  const descending = current.startsWith('-');
  const by = columns.find((c) => c.key === current.replace(/^-/, '')) ?? columns[0]!;
  const sorted = sortBy(rows, by.value, descending);
  const cut = !whole && rows.length > glance * 1.25;
  const seen = columns.filter((c) => !c.hidden);
  // First down for numbers, whose largest is asked for; up for names.
  const next = (c: Column<T>) => (c.key === by.key ? (descending ? c.key : `-${c.key}`) : c.number ? `-${c.key}` : c.key);
  return (
    <Panel title={title} note={note} loading={loading} actions={
      <button type="button" aria-label={`${title} as CSV`} disabled={rows.length === 0}
        onClick={() => save(title, csv(columns.map((c) => c.head), sorted.map((r) => columns.map((c) => c.value(r)))))}>CSV</button>}>
      {rows.length === 0 ? <div class="empty">{empty}</div> : (
        <div class="scroll" tabIndex={0} role="region" aria-label={`${title}: table`}>
          <table>
            <thead>
              <tr>{seen.map((c) => (
                <th key={c.key} scope="col" class={look(c)} aria-sort={c === by ? (descending ? 'descending' : 'ascending') : 'none'}>
                  <button type="button" onClick={() => (onSort ?? setOwn)(next(c))}>
                    {c.name}<span class="arrow" aria-hidden="true">{c === by ? (descending ? '▼' : '▲') : ''}</span>
                  </button>
                </th>
              ))}</tr>
            </thead>
            <tbody>{(cut ? sorted.slice(0, glance) : sorted).map((r) => (
              <tr key={id(r)}>{seen.map((c, i) => {
                const content = c.cell ? c.cell(r) : c.value(r);
                return i === 0 ? <th scope="row" key={c.key}>{content}</th> : <td key={c.key} class={look(c)}>{content}</td>;
              })}</tr>
            ))}</tbody>
          </table>
        </div>
      )}
      {cut && <p class="more"><button type="button" onClick={() => setWhole(true)}>Show all {rows.length} rows</button></p>}
    </Panel>
  );
}

/** A state in a word, with a sign for who does not see its colour. */
export function State({ ok, children }: { ok: boolean; children: ComponentChildren }) {
  return <span class={ok ? 'state good' : 'state bad'}><span aria-hidden="true">{ok ? '●' : '▲'}</span> {children}</span>;
}
