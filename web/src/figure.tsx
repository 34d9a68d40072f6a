// What all charts have: a canvas to read and zoom with pointer and keys, a legend that hides, and the same data as table, PNG and CSV.
import type { ComponentChildren } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { csv, save, type Cell } from './csv';
import { Panel } from './parts';
import { face, picture, scale } from './picture';
import { palette, type Line } from './stack';
import { useApp } from './state';

/** How a chart is drawn: k enlarges letters and lines. */
export interface Look { width: number; height: number; k: number; dark: boolean; colors: string[]; ink: string }

export interface FigureProps {
  title: string;
  /** What the chart says, in a sentence. */
  note?: ComponentChildren;
  loading?: boolean;
  /** What it is of, for who sees its picture elsewhere. */
  period: string;
  /** Positions on the x axis, their name, and what a position is called. */
  xs: number[];
  head: string;
  text: (x: number) => string;
  cell: (x: number) => Cell;
  lines: Line[];
  /** Unit of the lines, for CSV, and a value as text. */
  unit: string;
  value: (y: number | null | undefined) => string;
  /** Data of lines for uPlot, and options but what all charts have. Both must depend on nothing but lines and `shape`. */
  data: (lines: Line[]) => uPlot.AlignedData;
  options: (lines: Line[], look: Look) => Partial<uPlot.Options>;
  shape: string;
  /** What else keys do; whether they did. */
  keys?: (e: KeyboardEvent, index: number) => boolean;
  help: string;
  /** What was selected by dragging. */
  select?: (from: number, to: number) => void;
  /** What the legend says of a line while no position is read; else its newest value. */
  rest?: (line: number) => string;
  /** Tables begin with the newest. */
  reverse?: boolean;
}

export function Figure(p: FigureProps) {
  const { dark } = useApp();
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [hidden, hide] = useState<ReadonlySet<string>>(new Set());
  const [at, setAt] = useState<number | null>(null);
  const [table, setTable] = useState(false);
  const shown = p.lines.filter((l) => !hidden.has(l.name));
  const colors = dark ? palette.dark : palette.light;
  const data = useMemo(() => p.data(shown), [p.xs, p.lines, hidden, p.shape]);
  const select = useRef(p.select);
  select.current = p.select;

  const shape = shown.map((l) => `${l.name}\n${l.color}`).join('\n') + p.shape + dark;
  useEffect(() => {
    const el = box.current;
    if (!el) return undefined;
    const u = new uPlot(whole(p.options, shown, look(el, dark), {
      setCursor: [(x) => setAt(x.cursor.idx ?? null)],
      setSelect: [(x) => {
        if (x.select.width < 5) return;
        select.current?.(x.posToVal(x.select.left, 'x'), x.posToVal(x.select.left + x.select.width, 'x'));
        x.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      }],
    }), data, el);
    plot.current = u;
    const observer = new ResizeObserver(() => u.setSize(look(el, dark)));
    observer.observe(el);
    return () => {
      observer.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => { if (plot.current && plot.current.data !== data) plot.current.setData(data); }, [data]);

  const last = p.xs.length - 1;
  const index = at ?? newest(shown, last);
  const key = (e: KeyboardEvent) => {
    const u = plot.current;
    if (!u || e.ctrlKey || e.altKey || e.metaKey) return;
    const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: last }[e.key];
    if (p.keys?.(e, index)) e.preventDefault();
    else if (to !== undefined && !e.shiftKey) {
      u.setCursor({ left: u.valToPos(p.xs[Math.min(last, Math.max(0, to))] ?? 0, 'x'), top: 10 });
      e.preventDefault();
    }
  };
  const toggle = (name: string) => {
    const next = new Set(hidden);
    if (!next.delete(name)) next.add(name);
    if (next.size < p.lines.length) hide(next);
  };
  const rows = (): Cell[][] => p.xs.map((x, i) => [p.cell(x), ...p.lines.map((l) => l.values[i])]);
  // Not drawn anew with each move of the pointer: it is long.
  const asTable = useMemo(() => {
    if (!table) return null;
    const body = p.xs.map((x, i) => (
      <tr key={x}><th scope="row">{p.text(x)}</th>{p.lines.map((l) => <td class="number" key={l.name}>{p.value(l.values[i])}</td>)}</tr>));
    return (
      <div class="scroll tall" tabIndex={0} role="region" aria-label={`${p.title}: table`}>
        <table>
          <thead><tr>
            <th scope="col">{p.head[0]?.toUpperCase() + p.head.slice(1)}</th>
            {p.lines.map((l) => <th scope="col" class="number" key={l.name}>{l.name}</th>)}
          </tr></thead>
          <tbody>{p.reverse ? body.reverse() : body}</tbody>
        </table>
      </div>
    );
  }, [table, p.xs, p.lines, p.title]);

  return (
    <Panel title={p.title} note={p.note} loading={p.loading ?? false} actions={<>
      <button type="button" aria-pressed={table} aria-label={`${p.title} as a table`} onClick={() => setTable(!table)}>Table</button>
      <button type="button" aria-label={`${p.title} as PNG`} onClick={() => void png(p, shown, data)}>PNG</button>
      <button type="button" aria-label={`${p.title} as CSV`}
        onClick={() => save(p.title, csv([p.head, ...p.lines.map((l) => `${l.name} (${p.unit})`)], rows()))}>CSV</button>
    </>}>
      <div class="plot" ref={box} tabIndex={0} role="group" onKeyDown={key} aria-label={`${p.title}, ${p.lines.length} series. ${p.help}`} />
      <p class="note hint" aria-hidden="true">{p.help}</p>
      <ul class="legend" aria-label={`Series of ${p.title}; press to hide or show`}>
        {p.lines.map((l, i) => (
          <li key={l.name}>
            <button type="button" aria-pressed={!hidden.has(l.name)} onClick={() => toggle(l.name)}>
              <span class="swatch" style={{ background: colors[l.color] }} />{l.name}
              <span class="value">{at == null && p.rest ? p.rest(i) : p.value(l.values[index])}</span>
            </button>
          </li>
        ))}
        <li class="at" aria-live="off">{p.xs[index] == null || (at == null && p.rest) ? '' : p.text(p.xs[index])}</li>
      </ul>
      {asTable}
    </Panel>
  );
}

/** The newest position at which any line has a value: the last step is often not complete yet. */
function newest(lines: Line[], last: number): number {
  for (let i = last; i > 0; i--) if (lines.some((l) => l.values[i] != null)) return i;
  return last;
}

function look(el: HTMLElement, dark: boolean): Look {
  return {
    width: Math.max(200, el.clientWidth), height: el.clientWidth < 500 ? 200 : 240, k: 1, dark,
    colors: dark ? palette.dark : palette.light, ink: dark ? '#b6bec9' : '#4b5563',
  };
}

function whole(options: FigureProps['options'], lines: Line[], l: Look, hooks: uPlot.Hooks.Arrays): uPlot.Options {
  return {
    series: [], // of options
    ...options(lines, l), width: l.width, height: l.height, legend: { show: false }, padding: [8 * l.k, 8 * l.k, 0, 0], hooks,
  };
}

/** An axis as all charts have it. */
export const axisOf = (l: Look, size: number): uPlot.Axis => ({
  stroke: l.ink, font: `${12 * l.k}px ${face}`, size: size * l.k, gap: 5 * l.k, space: 36 * l.k,
    grid: { stroke: l.dark ? '#ffffff18' : '#00000014', width: l.k },
  ticks: { show: false },
});

/** The chart again, as large as a page is, with all that says what it shows. */
async function png(p: FigureProps, lines: Line[], data: uPlot.AlignedData): Promise<void> {
  const k = scale / uPlot.pxRatio;
  const l: Look = { width: 900 * k, height: 400 * k, k, dark: false, colors: palette.light, ink: '#4b5563' };
  const u = await new Promise<uPlot>((done) => {
    new uPlot(whole(p.options, lines, l, { draw: [done] }), data, document.createElement('div'));
  });
  await picture({
    title: p.title, period: p.period, width: u.ctx.canvas.width, height: u.ctx.canvas.height, paint: (c) => c.drawImage(u.ctx.canvas, 0, 0),
    legend: lines.map((x) => ({ name: x.name, color: l.colors[x.color] ?? l.ink })),
  });
  u.destroy();
}
