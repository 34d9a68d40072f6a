import { describe, expect, test } from 'vitest';
import { byRule } from '../src/alerts';
import { csv } from '../src/csv';
import { ticks } from '../src/distribution';
import { axis, clock, count, duration, interval, none, percent, period, si } from '../src/format';
import { atZero, growth, mean, parseHistogram, quantile, shares } from '../src/histogram';
import { nodesOf, parseLive } from '../src/live';
import { allIn, matches, merge, short } from '../src/pages/functions';
import { choose, type Row } from '../src/pages/invocations';
import { matrix } from '../src/prometheus';
import * as promql from '../src/promql';
import { format, home, parse, to, type Route } from '../src/route';
import { sortBy } from '../src/sort';
import { add, grey, lines, most, palette, stack } from '../src/stack';

const nbsp = '\u202f';

describe('format', () => {
  test.each([
    [0, 'J', '0 J'], [1, 'W', '1.00 W'], [0.01234, 'J', '12.3 mJ'], [999.4, 'J', '999 J'], [999.6, 'J', '1.00 kJ'], [16_120, 'J', '16.1 kJ'],
    [-0.5, 'W', '−500 mW'], [4.2e-5, 's', '42.0 µs'], [3.6e6, 'J', '3.60 MJ'], [1e-12, 'J', '0 J'], [7e-10, 'J', '0.700 nJ'], [NaN, 'J', none],
      [undefined, 'J', none],
    [Infinity, 'W', none], [null, 'W', none],
  ])('si %s', (x, unit, want) => expect(si(x, unit)).toBe(want));

  test.each([
    [1.575, 1.5278, 1.6222, '1.57 ± 0.05 J'], // half 0.0472: one digit; 1.575 is a little less in binary
    [2.4, 2.376, 2.424, '2.40 ± 0.02 J'],
    [0.3325, 0.3225, 0.3425, '333 ± 10 mJ'],
    [0.612, 0.38, 0.919, '612 (380 to 919) mJ'],
    [2, 2, 2, '2.00 ± 0.00 J'],
    [0.666, undefined, undefined, '666 mJ (too few for ±)'],
    [undefined, 1, 2, none],
  ])('interval %s', (mean, low, high, want) => expect(interval(mean, low, high, 'J')).toBe(want));

  test.each([[0, '0'], [999, '999'], [1802.4, `1${nbsp}802`], [12345678, `12${nbsp}345${nbsp}678`], [null, none]])('count %s',
    (x, want) => expect(count(x)).toBe(want));
  test.each([[0.04, '40.0 ms'], [3.4, '3.40 s'], [59.6, '1 min'], [900, '15 min'], [3725, '1 h 2 min'], [86400, '1 d'], [90061, '1 d 1 h'],
    [3605, '1 h']])(
    'duration %s', (s, want) => expect(duration(s)).toBe(want));
  test.each([[0, '0 %'], [0.0004, '< 0.1 %'], [0.004, '0.4 %'], [0.12, '12 %'], [1, '100 %'], [NaN, none]])('percent %s',
    (x, want) => expect(percent(x)).toBe(want));
  test.each([
    [[0, 5, 10, 15], 'W', '0 W|5 W|10 W|15 W'], [[0, 0.2, 0.4, 1.2], 'W', '0 W|0.2 W|0.4 W|1.2 W'],
      [[0, 2.5e8, 5e8, 1.25e9], 'Hz', '0 GHz|0.25 GHz|0.50 GHz|1.25 GHz'],
    [[0, 0.025, 0.05], 'A', '0 mA|25 mA|50 mA'], [[0, 2.5, 5, 7.5], 'J', '0 J|2.5 J|5.0 J|7.5 J'], [[0], 'J', '0 J'], [[], 'J', ''],
  ])('axis %s', (values, unit, want) => expect(axis(values, unit).join('|')).toBe(want));
  test('a period says its day and its zone', () => {
    const t = (h: number, day = 3) => new Date(2026, 4, day, h, 5, 7).getTime() / 1000;
    expect(period(t(9), t(10))).toMatch(/^2026-05-03 09:05:07 to 10:05:07, UTC([+−]\d\d:\d\d)?$/);
    expect(period(t(9), t(10, 4))).toMatch(/^2026-05-03 09:05:07 to 2026-05-04 10:05:07, UTC/);
  });
  test('clock shows the date of other days only', () => {
    const now = new Date(2026, 4, 3, 12, 0, 0);
    expect(clock(new Date(2026, 4, 3, 9, 5, 7).getTime() / 1000, now)).toBe('09:05:07');
    expect(clock(new Date(2026, 4, 2, 23, 59, 59).getTime() / 1000, now)).toBe('2026-05-02 23:59:59');
  });
});

describe('csv', () => {
  test('quotes, and lets no text be a formula', () => {
    expect(csv(['name', 'J'], [['a,b', 1.25], ['say "x"', null], ['=1+1', NaN], ['-x', -3]])).toBe(
      'name,J\r\n"a,b",1.25\r\n"say ""x""",\r\n\'=1+1,\r\n\'-x,-3\r\n');
  });
});

describe('promql', () => {
  test('escapes what a label may hold', () => expect(promql.select('m', { a: 'x"\\\ny', b: '' })).toBe('m{a="x\\"\\\\\\ny"}'));
  test('several values are a pattern of exactly those', () => {
    expect(promql.select('m', { f: ['a.b', 'c|d', 'e'] })).toBe('m{f=~"a\\\\.b|c\\\\|d|e"}');
    expect(promql.select('m', { f: ['a'], n: '' })).toBe('m{f=~"a"}');
  });
  test('builds', () => {
    const w = promql.grid(1000, 1900, 5);
    expect(promql.nodePower(w)).toBe('sum by (node) (rate(wattlet_node_energy_joules_total[20s]))');
    expect(promql.nodePower(w, 'pi')).toBe('sum by (node) (rate(wattlet_node_energy_joules_total{node="pi"}[20s]))');
    expect(promql.nodeCurrent(w)).toBe('sum by (node) (rate(wattlet_node_charge_coulombs_total[20s]))');
    expect(promql.invocationEnergy(60, 'pi')).toBe(
      'sum by (node, namespace, function) (increase(wattlet_function_invocation_energy_joules{node="pi"}[60s]))');
    expect(promql.nodeEnergy(900)).toBe('sum by (node) (increase(wattlet_node_energy_joules_total[900s]))');
    expect(promql.functionIncrease('m', 60, { policy: 'equal' })).toBe('sum by (node, namespace, function) (increase(m{policy="equal"}[60s]))');
    expect(promql.joulesPerInvocation(120, { node: 'pi' })).toBe(
      'sum by (node, namespace, function) (increase(wattlet_function_energy_joules_total{node="pi"}[120s])) / ' +
      'sum by (node, namespace, function) (increase(wattlet_function_invocations_total{node="pi"}[120s]))');
  });
  test.each([
    [1003, 1903, 5, { start: 1000, end: 1900, step: 5, rate: 20 }],
    [86_407, 172_807, 5, { start: 86_405, end: 172_805, step: 300, rate: 300 }],
    [1001, 1003, 5, { start: 995, end: 1000, step: 5, rate: 20 }],
    [0, 604_800, 5, { start: 0, end: 604_800, step: 1800, rate: 1800 }],
    [0, 300, 30, { start: 0, end: 300, step: 30, rate: 120 }],
  ])('grid %s to %s', (from, end, scrape, want) => expect(promql.grid(from, end, scrape)).toEqual(want));
});

describe('matrix', () => {
  test('puts samples on the grid, and leaves gaps and NaN empty', () => {
    const w = { start: 10, end: 25, step: 5, rate: 20 };
    expect(matrix([{ metric: { node: 'a' }, values: [[10, '1'], [20, 'NaN'], [25, '2.5'], [30, '9']] }], w)).toEqual(
      { times: [10, 15, 20, 25], series: [{ labels: { node: 'a' }, values: [1, null, null, 2.5] }] });
  });
});

describe('route', () => {
  const all: Route = { page: 'functions', range: '6h', zoom: { from: 100, to: 160 }, node: 'a b&c', filter: 'x=%/#', policy: 'requested',
    sort: '-mean',
    fn: ['a b/ns/f&g', 'pi/ns/h'] };
  test('a link keeps everything', () => expect(parse(format(all))).toEqual(all));
  test('home is short', () => expect(format(home)).toBe('#/cluster'));
  test.each(['', '#', '#/nonsense?range=9y&from=5&to=5&policy=no', '#/cluster?from=x&to=Infinity'])('%s is home',
    (hash) => expect(parse(hash)).toEqual(home));
  test('another page keeps the time, not the filter', () =>
    expect(parse(to(all, 'node', 'pi'))).toEqual({ ...home, page: 'node', node: 'pi', range: '6h', zoom: all.zoom, policy: 'requested' }));
});

describe('sort', () => {
  const rows = [{ n: 'b10', v: 2 }, { n: 'b9', v: undefined }, { n: 'a', v: NaN }, { n: 'c', v: 7 }];
  test.each([
    ['v up', sortBy(rows, (r) => r.v, false), 'b10 c b9 a'], ['v down', sortBy(rows, (r) => r.v, true), 'c b10 b9 a'],
    ['names count', sortBy(rows, (r) => r.n, false), 'a b9 b10 c'],
  ])('%s', (_, got, want) => expect(got.map((r) => r.n).join(' ')).toBe(want));
});

describe('stack', () => {
  const line = (name: string, ...values: (number | null)[]) => ({ name, color: 0, values });
  test('sums upwards, with gaps only where nothing is known', () =>
    expect(stack([line('a', 1, null, null), line('b', 2, 5, null), line('c', 0, -1, null)])).toEqual([[1, 0, null], [3, 5, null], [3, 5, null]]));
  test('the smallest become one', () => {
    const got = most([line('a', 1, 1), line('b', 9, 9), line('c', 2, null), line('d', 8, 8)], 3, 'others');
    expect(got).toEqual([line('b', 9, 9), line('d', 8, 8), { name: 'others (2)', color: grey, values: [3, 1] }]);
  });
  test('nothing is not zero', () => expect(add([line('a', null), line('b', null)], 'x').values).toEqual([null]));
  test('colours go by name, not by value', () =>
    expect(lines({ times: [1], series: [{ labels: { n: 'z' }, values: [9] }, { labels: { n: 'a' }, values: [1] }] }, (l) => l['n']!)).toEqual(
      [{ name: 'a', color: 0, values: [1] }, { name: 'z', color: 1, values: [9] }]));

  test('a line that is missing leaves its colour unused', () =>
    expect(lines({ times: [1], series: [{ labels: { n: 'z' }, values: [9] }, { labels: { n: 'new' }, values: [1] }] }, (l) => l['n']!,
      ['a', 'm', 'z'])
      .map((l) => [l.name, l.color])).toEqual([['new', grey], ['z', 2]]));

  // WCAG 2.2, 1.4.11: graphics have 3:1 against what is beside them.
  const luminance = (hex: string) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((s, c, i) => s + c * [0.2126, 0.7152, 0.0722][i]!, 0);
  test.each([['light', palette.light, '#ffffff'], ['dark', palette.dark, '#16191e']] as const)('colours can be seen: %s', (_, colors, back) => {
    expect(new Set(colors).size).toBe(grey + 1);
    for (const c of colors) {
      const [dim, bright] = [luminance(c), luminance(back)].sort((a, b) => a - b);
      expect((bright! + 0.05) / (dim! + 0.05), c).toBeGreaterThanOrEqual(3);
    }
  });
});

describe('live', () => {
  test('tells up from down from never heard', () => {
    const snapshot = { time: '', nodes: [{ node: 'pi', meter: 'm' }], meters: [{ meter: 'm', up: true }] };
    const live = parseLive(JSON.stringify({ format: 'wattlet-live/1', time: '2026-05-03T12:00:00Z', targets: [
      { target: 'a', url: 'http://a', age_ms: 40, snapshot }, { target: 'b', url: 'http://b', error: 'refused', age_ms: 9000, snapshot },
      { target: 'c', url: 'http://c', age_ms: null, snapshot: null },
    ] }));
    expect(live.time).toBe(1777809600);
    expect(live.agents.map((a) => [a.name, a.up, a.age])).toEqual([['a', true, 0.04], ['b', false, 9], ['c', false, null]]);
    expect(nodesOf(live).map((n) => [n.view.node, n.meter?.up, n.agent.name])).toEqual([['pi', true, 'a'], ['pi', true, 'b']]);
  });
  test('no targets are no agents', () => expect(parseLive('{"time":"2026-05-03T12:00:00Z","targets":null}').agents).toEqual([]));
});

describe('functions', () => {
  const labels = (f: string) => ({ node: 'pi', namespace: 'openfaas-fn', function: f });
  test('answers meet in one row', () =>
    expect(merge({ energy: [{ labels: labels('f'), value: 3 }, { labels: labels('g'), value: 4 }],
      mean: [{ labels: labels('f'), value: 0.1 }] })).toEqual([
      { node: 'pi', namespace: 'openfaas-fn', name: 'f', energy: 3, mean: 0.1 }, { node: 'pi', namespace: 'openfaas-fn', name: 'g', energy: 4 }]));
  test('names', () => expect([short('openfaas-fn', 'f'), short('', 'f'), short('dev', 'f')]).toEqual(['f', 'f', 'dev/f']));
  test('filter', () => expect([matches(' GZ', 'a', 'gzip'), matches('a/g', 'a', 'gzip'), matches('x', 'a', 'gzip')]).toEqual([true, true, false]));
});

describe('histogram', () => {
  // What a hub answered to increase(wattlet_function_invocation_energy_joules[1m]), and to histogram_quantile() of it.
  const buckets: [number, string, string, string][] = [
    [0, '0.5946035575013605', '0.6484197773255048', '6.1938'], [0, '0.7071067811865475', '0.7711054127039704', '8.2584']];
  const raw = { count: '14.4522', sum: '9.9712778409', buckets };
  test('parses', () => {
    const h = parseHistogram(raw);
    expect(h.count).toBe(14.4522);
    expect(h.buckets[1]).toEqual({ low: 0.7071067811865475, high: 0.7711054127039704, count: 8.2584 });
    expect(mean(h)).toBeCloseTo(0.68995, 5);
    expect(parseHistogram({ count: '0', sum: '0' })).toEqual({ count: 0, sum: 0, buckets: [] });
    expect(mean(parseHistogram({ count: '0', sum: '0' }))).toBeNull();
  });
  test('quantiles are those of PromQL', () => {
    // By hand: rank 7.2261 is 1.0323 into the second bucket, 1/8 of it; 0.7071 · 2^((1/8)/8) = 0.71481.
    expect(quantile(parseHistogram(raw), 0.5)).toBeCloseTo(0.7148066691959849, 12);
    expect(quantile(parseHistogram(raw), 1)).toBeCloseTo(0.7711054127039704, 12);
    expect(quantile(parseHistogram({ count: '0', sum: '0' }), 0.5)).toBeNull();
  });
  test('what took nothing', () => {
    const h = parseHistogram({ count: '8', sum: '6', buckets: [[3, '-0', '0', '2'], [0, '1', String(growth), '6']] });
    expect(atZero(h)).toBe(0.25);
    expect(quantile(h, 0.25)).toBe(0);
    expect(quantile(h, 0.625)).toBeCloseTo(growth ** 0.5, 12);
  });
  test('shares stand on common edges', () => {
    const a = parseHistogram({ count: '4', sum: '5', buckets: [[0, '1', String(growth), '1'], [0, String(growth ** 2), String(growth ** 3), '3']] });
    const b = parseHistogram({ count: '2', sum: '2', buckets: [[0, '1', String(growth ** 2), '2']] }); // buckets twice as wide
    const { edges, shares: got } = shares([a, b]);
    expect(edges.map((e) => Math.round(Math.log(e) / Math.log(growth)))).toEqual([-1, 0, 1, 2, 3, 4]);
    expect(got).toEqual([[0, 0.25, 0, 0.75, 0], [0, 0.5, 0.5, 0, 0]]);
    expect(shares([parseHistogram({ count: '0', sum: '0' })])).toEqual({ edges: [], shares: [[]] });
  });
  test.each([[0.8, 7, 900, '0.8 1 1.2 1.5 2 2.5 3 4 5 6'], [0.8, 7, 200, '1 3'], [0.001, 50, 400, '0.001 0.01 0.1 1 10'], [1.01, 1.19, 900, '']])(
    'ticks from %s to %s on %s pixels', (min, max, pixels, want) => expect(ticks(min, max, pixels).join(' ')).toBe(want));
});

describe('invocations', () => {
  const row = (id: string, sum: number, count = 5): Row => {
    const [node, namespace, name] = id.split('/') as [string, string, string];
    return { id, node, namespace, name, histogram: { count, sum, buckets: [] } };
  };
  const all = [row('a/x/f', 2), row('b/x/f', 9), row('a/x/g', 5), row('c/y/f', 3), row('d/x/f', 0, 0)];
  const ids = (rows: Row[]) => rows.map((r) => r.id).join(' ');
  test('draws the function with the most energy, where it ran', () => expect(ids(choose(all, all, []))).toBe('b/x/f a/x/f'));
  test('of those that match', () => expect(ids(choose(all, [all[2]!, all[3]!], []))).toBe('a/x/g'));
  test('draws what was picked, in that order, whatever matches', () =>
    expect(ids(choose(all, [all[0]!], ['c/y/f', 'gone/x/f', 'a/x/g']))).toBe('c/y/f a/x/g'));
  test('picks that are gone count as none', () => expect(ids(choose(all, all, ['gone/x/f']))).toBe('b/x/f a/x/f'));
  test('nothing', () => expect(choose([], [], [])).toEqual([]));
});

describe('alerts', () => {
  const alert = (alertname: string, severity: string, instance: string, state = 'firing') =>
    ({ labels: { alertname, severity, instance }, annotations: {}, state, activeAt: '' });
  test('the gravest first, by rule, only what fires, and no word twice', () => {
    const got = byRule([
      alert('B', 'warning', 'x'), alert('A', 'info', 'x'), alert('B', 'warning', 'y'), alert('C', 'critical', 'x'),
        alert('D', 'critical', 'x', 'pending'),
      alert('WattletAgentDown', 'warning', 'x'), alert('WattletAgentDown', 'warning', 'z'),
    ], new Set(['x']));
    expect(got.map((rule) => rule.map((a) => `${a.labels['alertname']} ${a.labels['instance']}`))).toEqual(
      [['C x'], ['B x', 'B y'], ['WattletAgentDown z'], ['A x']]);
  });
});

test('all in, an invocation bears cold starts and base', () => {
  const fn = { node: 'pi', namespace: 'x', name: 'f', invocations: 4, energy: 6, base: 9 };
  expect(allIn({ ...fn, coldJoules: 1 })).toBe(4);
  expect(allIn(fn)).toBe(3.75);
  expect(allIn({ ...fn, invocations: 0 })).toBeUndefined();
  expect(allIn({ node: 'pi', namespace: 'x', name: 'f', invocations: 4, energy: 6 })).toBeUndefined();
});
