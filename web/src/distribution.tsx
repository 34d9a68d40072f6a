// Histograms over each other, on a logarithmic axis of joules.
import type { ComponentChildren } from 'preact';
import { useMemo } from 'preact/hooks';
import uPlot from 'uplot';
import { axisOf, Figure, type Look } from './figure';
import { percent, si } from './format';
import { growth, mean, shares, type Histogram } from './histogram';
import type { Line } from './stack';

interface Props { title: string; note: ComponentChildren; period: string; names: string[]; histograms: Histogram[]; loading: boolean }

export function Distribution({ title, note, period, names, histograms, loading }: Props) {
  const [xs, lines] = useMemo(() => {
    const { edges, shares: of } = shares(histograms);
    // A step reaches from its edge to the next; the last edge ends one.
    return [edges, names.map((name, i): Line => ({ name, color: i, values: [...of[i]!, 0] }))] as const;
  }, [names.join('\n'), ...pad(histograms)]);
  return (
    <Figure title={title} note={note} loading={loading} period={`Share of the invocations by energy, ${period}`}
      xs={xs} head="energy from (J)" text={(x) => `${si(x, 'J')} to ${si(x * growth, 'J')}`} cell={(x) => x}
      lines={lines} unit="share of invocations" value={percent} shape="distribution" rest={(i) => `mean ${si(mean(histograms[i]!), 'J')}`}
      data={(shown) => [xs, ...shown.map((l) => l.values)]} options={options} help="Arrow keys read values." />
  );
}

/** Of hooks, dependencies are as many each time. */
const pad = (h: readonly Histogram[]): (Histogram | undefined)[] => [h[0], h[1], h[2], h[3]];

function options(lines: Line[], look: Look): Partial<uPlot.Options> {
  const paths = uPlot.paths.stepped?.({ align: 1 });
  return {
    cursor: { drag: { x: false, y: false, setScale: false }, points: { show: false }, y: false },
    scales: { x: { time: false, distr: 3, range: (_, min, max) => [min, max] }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] } },
    axes: [
      { ...axisOf(look, 26), filter: (_, splits) => splits,
        splits: (u) => ticks(u.scales['x']?.min ?? 1, u.scales['x']?.max ?? 1, u.bbox.width / uPlot.pxRatio / look.k),
        values: (_, splits) => splits.map((v) => si(v, 'J').replace(/(\.\d*[1-9])0+ |\.0+ /, '$1 ')) },
      { ...axisOf(look, 62), values: (_, splits) => splits.map((v) => `${Number((v * 100).toPrecision(3))} %`) },
    ],
    series: [{}, ...lines.map((l): uPlot.Series => {
      const color = look.colors[l.color] ?? look.ink;
      return { label: l.name, stroke: color, width: 1.75 * look.k, fill: `${color}30`, points: { show: false }, ...(paths && { paths }) };
    })],
  };
}

/** Places on a logarithmic axis that is so many pixels long: 1, 2, 5 of each power of ten, or fewer or more of them. */
export function ticks(min: number, max: number, pixels: number): number[] {
  const of = (digits: number[]) => {
    const out: number[] = [];
    for (let e = Math.floor(Math.log10(min)); e <= Math.log10(max); e++) for (const d of digits) out.push(Number(`${d}e${e}`));
    return out.filter((v) => v >= min && v <= max);
  };
  const most = Math.max(2, pixels / 70);
  return [[1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8], [1, 1.5, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]].map(of).find((t) => t.length <= most) ?? [];
}
