// A chart over time: lines or a stack. Dragging and keys zoom for all charts at once, since the time range is the page's.
import type { ComponentChildren } from 'preact';
import type uPlot from 'uplot';
import { axis, clock, period, si } from './format';
import { axisOf, Figure, type Look } from './figure';
import { stack, type Line } from './stack';
import { useApp } from './state';

interface Props {
  title: string;
  note?: ComponentChildren;
  unit: string;
  times: number[];
  lines: Line[];
  stacked?: boolean;
  loading?: boolean;
}

export function Chart({ title, note, unit, times, lines, stacked = false, loading = false }: Props) {
  const { route, go, window: w } = useApp();
  const zoom = (from: number, to: number) => {
    if (to - from >= 10) go({ zoom: { from: Math.round(from), to: Math.round(to) } });
  };
  const keys = (e: KeyboardEvent, index: number): boolean => {
    const middle = times[index] ?? w.end;
    const span = w.end - w.start;
    if (e.key === '+' || e.key === '=') zoom(Math.max(w.start, middle - span / 4), Math.min(w.end, middle + span / 4));
    else if (e.key === '-') zoom(w.start - span / 2, w.end + span / 2);
    else if (e.key === 'ArrowLeft' && e.shiftKey) zoom(w.start - span / 4, w.end - span / 4);
    else if (e.key === 'ArrowRight' && e.shiftKey) zoom(w.start + span / 4, w.end + span / 4);
    else if (e.key === 'Escape' && route.zoom) go({ zoom: null });
    else return false;
    return true;
  };
  return (
    <Figure title={title} note={note} loading={loading} period={period(times[0] ?? w.start, times.at(-1) ?? w.end)}
      xs={times} head="time" text={clock} cell={(t) => new Date(t * 1000).toISOString()} reverse
      lines={lines} unit={unit} value={(y) => si(y, unit)} shape={`${stacked} ${unit}`}
      // Of a stack the highest sum is painted first, and each lower one over it.
      data={(shown) => [times, ...(stacked ? stack(shown).reverse() : shown.map((l) => l.values))]}
      options={(shown, look) => options(unit, stacked ? [...shown].reverse() : shown, stacked, look)}
      keys={keys} select={zoom}
      help="Arrow keys read values, with shift they move through time, plus and minus zoom, Escape goes back to now." />
  );
}

function options(unit: string, lines: Line[], stacked: boolean, look: Look): Partial<uPlot.Options> {
  const { k, colors, ink } = look;
  return {
    cursor: {
      drag: { x: true, y: false, setScale: false },
      // Charts of a page read the same instant; what is dragged is one chart's own.
      sync: { key: 'time', filters: { pub: (type) => type === 'mousemove' || type === 'mouseleave', sub: () => true } },
      points: { show: !stacked },
      y: false,
    },
    scales: { x: { time: true }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] } },
    padding: [null, 20 * k, null, null], // the last time's name is wider than half its tick
    axes: [
      { ...axisOf(look, 26), space: 70 * k, values: (_, splits, __, ___, step) => splits.map((t) => tick(t, step)) },
      { ...axisOf(look, 62), values: (_, splits) => axis(splits, unit) },
    ],
    series: [{}, ...lines.map((l): uPlot.Series => {
      // A value between two gaps is no line, but a point.
      const points: uPlot.Series.Points = {
        show: true, size: 6 * k,
        filter: (u, series) => {
          const v = u.data[series]!;
          return Array.from(v.keys()).filter((i) => v[i] != null && v[i - 1] == null && v[i + 1] == null);
        },
      };
      const color = colors[l.color] ?? ink;
      return stacked
        ? { label: l.name, stroke: look.dark ? '#16191e' : '#ffffff', width: k, fill: color, points: { ...points, fill: color } }
        : { label: l.name, stroke: color, width: 1.75 * k, points: { ...points, fill: color } };
    })],
  };
}

/** A time on the axis: as fine as the distance to the next needs, and the day where one begins. */
function tick(t: number, step: number): string {
  const d = new Date(t * 1000);
  const two = (n: number) => String(n).padStart(2, '0');
  const time = `${two(d.getHours())}:${two(d.getMinutes())}`;
  if (step >= 86400 || (step >= 60 && time === '00:00')) return d.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' });
  return step < 60 ? `${time}:${two(d.getSeconds())}` : time;
}
