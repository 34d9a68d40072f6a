// A chart over time: lines or a stack, drag to zoom, arrow keys to read, legend that hides, table and CSV of the same data.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { csv, save } from './csv';
import { clock, si } from './format';
import { palette, stack, type Line } from './stack';
import { useApp } from './state';
import { Panel } from './parts';

interface Props {
  title: string;
  /** What the chart says, in one sentence. */
  note?: string;
  unit: string;
  times: number[];
  lines: Line[];
  stacked?: boolean;
  loading?: boolean;
}

export function Chart({ title, note, unit, times, lines, stacked = false, loading = false }: Props) {
  const { go, dark, window: w } = useApp();
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [hidden, hide] = useState<ReadonlySet<string>>(new Set());
  const [at, setAt] = useState<number | null>(null);
  const [table, setTable] = useState(false);
  const shown = lines.filter((l) => !hidden.has(l.name));
  const colors = dark ? palette.dark : palette.light;

  // Of a stack the highest sum is painted first, and each lower one over it.
  const data = useMemo<uPlot.AlignedData>(
    () => [times, ...(stacked ? stack(shown).reverse() : shown.map((l) => l.values))], [times, lines, hidden, stacked]);
  const zoom = (from: number, to: number) => {
    if (to - from >= 10) go({ zoom: { from: Math.round(from), to: Math.round(to) } });
  };
  const act = useRef(zoom);
  act.current = zoom;

  const shape = shown.map((l) => `${l.name}\n${l.color}`).join('\n') + stacked + dark + unit;
  useEffect(() => {
    const el = box.current;
    if (!el) return undefined;
    const order = stacked ? [...shown].reverse() : shown;
    const u = new uPlot(options(el, unit, order, colors, stacked, dark, setAt, act), data, el);
    plot.current = u;
    const observer = new ResizeObserver(() => u.setSize(size(el)));
    observer.observe(el);
    return () => {
      observer.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(data), [data]);

  const last = times.length - 1;
  const index = at ?? newest(shown, last);
  const key = (e: KeyboardEvent) => {
    const u = plot.current;
    if (!u) return;
    const i = Math.min(last, Math.max(0, index + (e.key === 'ArrowLeft' ? -1 : 1)));
    const middle = times[index] ?? w.end;
    const span = w.end - w.start;
    if (e.key === 'ArrowLeft' || e.key === 'ArrowRight') u.setCursor({ left: u.valToPos(times[i] ?? 0, 'x'), top: 10 });
    else if (e.key === '+') zoom(Math.max(w.start, middle - span / 4), Math.min(w.end, middle + span / 4));
    else if (e.key === '-') zoom(w.start - span / 2, w.end + span / 2);
    else if (e.key === 'Escape') go({ zoom: null });
    else return;
    e.preventDefault();
  };
  const toggle = (name: string) => {
    const next = new Set(hidden);
    if (!next.delete(name)) next.add(name);
    if (next.size < lines.length) hide(next);
  };
  const rows = () => times.map((t, i) => [new Date(t * 1000).toISOString(), ...lines.map((l) => l.values[i])]);

  return (
    <Panel title={title} note={note} loading={loading} actions={<>
      <button type="button" aria-pressed={table} aria-label={`${title} as a table`} onClick={() => setTable(!table)}>Table</button>
      <button type="button" aria-label={`${title} as CSV`}
        onClick={() => save(`wattlet ${title}`, csv(['time', ...lines.map((l) => `${l.name} (${unit})`)], rows()))}>CSV</button>
    </>}>
      <div class="plot" ref={box} tabIndex={0} role="group" onKeyDown={key}
        aria-label={`${title}, ${lines.length} series. Arrow keys read values, plus and minus zoom, Escape goes back to now.`} />
      <ul class="legend" aria-label={`Series of ${title}; press to hide or show`}>
        {lines.map((l) => (
          <li key={l.name}>
            <button type="button" aria-pressed={!hidden.has(l.name)} onClick={() => toggle(l.name)}>
              <span class="swatch" style={{ background: colors[l.color] }} />{l.name}
              <span class="value">{si(l.values[index], unit)}</span>
            </button>
          </li>
        ))}
        <li class="at" aria-live="off">{times[index] ? clock(times[index]) : ''}</li>
      </ul>
      {table && (
        <div class="scroll tall" tabIndex={0} role="region" aria-label={`${title}: table`}>
          <table>
            <thead><tr><th scope="col">Time</th>{lines.map((l) => <th scope="col" class="number" key={l.name}>{l.name}</th>)}</tr></thead>
            <tbody>{times.map((t, i) => (
              <tr key={t}><th scope="row">{clock(t)}</th>
                {lines.map((l) => <td class="number" key={l.name}>{si(l.values[i], unit)}</td>)}</tr>
            )).reverse()}</tbody>
          </table>
        </div>
      )}
    </Panel>
  );
}

/** The newest index at which any line has a value: the last step is often not complete yet. */
function newest(lines: Line[], last: number): number {
  for (let i = last; i > 0; i--) if (lines.some((l) => l.values[i] != null)) return i;
  return last;
}

const size = (el: HTMLElement) => ({ width: Math.max(200, el.clientWidth), height: el.clientWidth < 500 ? 200 : 240 });

function options(el: HTMLElement, unit: string, lines: Line[], colors: string[], stacked: boolean, dark: boolean,
  setAt: (i: number | null) => void, act: { current: (from: number, to: number) => void }): uPlot.Options {
  const ink = dark ? '#b6bec9' : '#4b5563';
  const axis = { stroke: ink, font: '12px system-ui, sans-serif', grid: { stroke: dark ? '#ffffff18' : '#00000014', width: 1 }, ticks: { show: false } };
  return {
    ...size(el),
    legend: { show: false },
    padding: [8, 8, 0, 0],
    cursor: {
      drag: { x: true, y: false, setScale: false },
      // Charts of a page read the same instant; what is dragged is one chart's own.
      sync: { key: 'time', filters: { pub: (type) => type === 'mousemove' || type === 'mouseleave', sub: () => true } },
      points: { show: !stacked },
    },
    scales: { x: { time: true }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] } },
    axes: [
      { ...axis, size: 26, space: 70, values: (_, splits, __, ___, step) => splits.map((t) => tick(t, step)) },
      { ...axis, size: 62, values: (_, splits) => labels(splits, unit) },
    ],
    series: [{}, ...lines.map((l): uPlot.Series => {
      // A value between two gaps is no line, but a point.
      const points: uPlot.Series.Points = {
        show: true, size: 6,
        filter: (u, series) => {
          const v = u.data[series]!;
          return Array.from(v.keys()).filter((i) => v[i] != null && v[i - 1] == null && v[i + 1] == null);
        },
      };
      const color = colors[l.color] ?? ink;
      return stacked
        ? { label: l.name, stroke: dark ? '#16191e' : '#ffffff', width: 1, fill: color, points: { ...points, fill: color } }
        : { label: l.name, stroke: color, width: 1.75, points: { ...points, fill: color } };
    })],
    hooks: {
      setCursor: [(u) => setAt(u.cursor.idx ?? null)],
      setSelect: [(u) => {
        if (u.select.width < 5) return;
        act.current(u.posToVal(u.select.left, 'x'), u.posToVal(u.select.left + u.select.width, 'x'));
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      }],
    },
  };
}

/** Values on the axis: 5 W, 10 W, 15 W rather than 5.00 W, 10.0 W, 15.0 W. */
function labels(splits: number[], unit: string): string[] {
  const texts = splits.map((v) => si(v, unit));
  return texts.every((t) => /^\d+(\.0+)? /.test(t)) ? texts.map((t) => t.replace(/\.0+/, '')) : texts;
}

/** A time on the axis: as fine as the distance to the next needs. */
function tick(t: number, step: number): string {
  const d = new Date(t * 1000);
  const two = (n: number) => String(n).padStart(2, '0');
  if (step >= 86400) return `${two(d.getMonth() + 1)}-${two(d.getDate())}`;
  const time = `${two(d.getHours())}:${two(d.getMinutes())}`;
  return step < 60 ? `${time}:${two(d.getSeconds())}` : time;
}
