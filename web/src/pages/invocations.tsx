// Invocations: how the energy of single invocations is distributed, up to four functions over each other.
import { useRef } from 'preact/hooks';
import { Distribution } from '../distribution';
import { count, duration, percent, period, si } from '../format';
import { atZero, mean, quantile, type Histogram } from '../histogram';
import { Loading, Notice, Table, type Column } from '../parts';
import { query, queryHistograms } from '../prometheus';
import { functionIncrease, invocationEnergy } from '../promql';
import { compared, to, type Route } from '../route';
import { sortBy } from '../sort';
import { palette } from '../stack';
import { useApp, useData } from '../state';
import { Filters, matches, NoFunctions, NoMatch, short } from './functions';

export interface Row { id: string; node: string; namespace: string; name: string; histogram: Histogram }

export function Invocations() {
  const { route, go, window: w, dark } = useApp();
  const { node, filter } = route;
  const chosen = useRef({ of: '', fn: [] as string[] });
  const loaded = useData(`invocations ${w.start} ${w.end}`, async (signal) => {
    const answer = await queryHistograms(invocationEnergy(w.end - w.start), w.end, signal);
    const rows = answer.map(({ labels, histogram }): Row => {
      const [on, namespace, name] = [labels['node'] ?? '', labels['namespace'] ?? '', labels['function'] ?? ''];
      return { id: `${on}/${namespace}/${name}`, node: on, namespace, name, histogram };
    });
    // Functions without histograms are not the same as no functions.
    const others = rows.length ? [] : await query(functionIncrease('wattlet_function_invocations_total', w.end - w.start), w.end, signal);
    return { rows, others: others.length, seconds: w.end - w.start, period: period(w.start, w.end) };
  });
  return (
    <Loading of={loaded} empty={(d) => (d.rows.length > 0 ? null : d.others > 0 ? <NoHistograms /> : <NoFunctions />)}>
      {(d) => {
        const rows = d.rows.filter((r) => (!node || r.node === node) && matches(filter, r.namespace, r.name));
        // What was chosen for the reader stays, though another function may have more energy by now.
        if (chosen.current.of !== `${node}\n${filter}`) chosen.current = { of: `${node}\n${filter}`, fn: [] };
        const drawn = choose(d.rows, rows, route.fn.length ? route.fn : chosen.current.fn);
        if (drawn.length > 0) chosen.current.fn = drawn.map((r) => r.id);
        const names = drawn.map((r) => `${short(r.namespace, r.name)} · ${r.node}`);
        const pick = (r: Row) => {
          const on = drawn.includes(r);
          go({ fn: on ? drawn.filter((x) => x !== r).map((x) => x.id) : [...drawn.map((x) => x.id), r.id] }, true);
        };
        const zero = drawn.flatMap((r, i) => (atZero(r.histogram) > 0 ? [`${percent(atZero(r.histogram))} of ${names[i]}`] : []));
        const columns: Column<Row>[] = [
          ...whose(route),
          { key: 'drawn', name: 'Drawn', head: 'drawn', value: (r) => (drawn.includes(r) ? drawn.indexOf(r) : null), hidden: true },
          ...figures,
        ];
        columns[0] = { ...columns[0]!, cell: (r) => {
          const k = drawn.indexOf(r);
          return (
            <label class="pick">
              <input type="checkbox" checked={k >= 0} disabled={k < 0 ? drawn.length >= compared : drawn.length === 1} onChange={() => pick(r)} />
              <span class="swatch" style={{ background: k < 0 ? 'none' : (dark ? palette.dark : palette.light)[k] }} />
              <span>
                {short(r.namespace, r.name)}<span class="hide"> on {r.node}</span><small class="narrow" aria-hidden="true">{r.node}</small>
              </span>
            </label>
          );
        } };
        return (
          <>
            <Filters nodes={d.rows.map((r) => r.node)} />
            {drawn.some((r) => r.histogram.count > 0)
              ? <Distribution title="Energy per invocation" loading={loaded.loading} period={d.period}
                names={names} histograms={drawn.map((r) => r.histogram)}
                note={<>Share of the invocations in {duration(d.seconds)} by their energy; steps are 9 % wide. Where invocations overlap, their
                  energy is known together only: each counts with the mean of them, so single ones spread more than is seen here.
                  {zero.length > 0 && ` Not on the axis, since no energy was found for them: ${zero.join(', ')}.`}</>} />
              : <Notice title="Nothing to draw."><p>{drawn.length
                ? <>None of the chosen functions completed an invocation in {duration(d.seconds)}. Take a longer range, or others from the table.</>
                : 'Tick functions in the table.'}</p></Notice>}
            <Table title="Invocations" rows={rows} columns={columns} loading={loaded.loading} id={(r) => r.id}
              note={<>Tick up to four to compare them. Means are exact; p50, p90 and p99, which so many percent stay below, are read from the
                steps and exact to 9 %. A percentile is left out where too few invocations lie above it to tell.</>}
              sort={route.sort || '-count'} onSort={(sort) => go({ sort }, true)} empty={<NoMatch />} />
          </>
        );
      }}
    </Loading>
  );
}

/**
 * What is drawn: what the reader picked, wherever the filter leaves it, or else the function with the most energy among those that
 * match, on the nodes where it used the most: there is something to compare.
 */
export function choose(all: readonly Row[], rows: readonly Row[], picked: readonly string[]): Row[] {
  const chosen = picked.flatMap((id) => all.filter((r) => r.id === id));
  if (chosen.length > 0) return chosen.slice(0, compared);
  const order = sortBy(rows, (r) => r.histogram.sum, true);
  const most = order[0];
  return most ? order.filter((r) => r.name === most.name && r.namespace === most.namespace && r.histogram.count > 0).slice(0, compared) : [];
}

/** A percentile; undefined if less than one invocation is expected above it. */
const percentile = (q: number) => (r: Row): number | undefined =>
  ((1 - q) * r.histogram.count >= 0.999 ? quantile(r.histogram, q) ?? undefined : undefined);

const whose = (route: Route): Column<Row>[] => [
  { key: 'name', name: 'Function', head: 'function', value: (r) => r.name },
  { key: 'node', name: 'Node', head: 'node', wide: true, value: (r) => r.node, cell: (r) => <a href={to(route, 'node', r.node)}>{r.node}</a> },
];

const joules = (key: string, name: string, head: string, value: (r: Row) => number | undefined): Column<Row> =>
  ({ key, name, head: `${head} (J)`, number: true, value, cell: (r) => si(value(r), 'J') });

const figures: Column<Row>[] = [
  { key: 'count', name: 'Invocations', head: 'invocations', number: true, value: (r) => r.histogram.count, cell: (r) => count(r.histogram.count) },
  joules('mean', 'Mean', 'mean', (r) => mean(r.histogram) ?? undefined),
  joules('p50', 'p50', 'p50', percentile(0.5)),
  joules('p90', 'p90', 'p90', percentile(0.9)),
  joules('p99', 'p99', 'p99', percentile(0.99)),
];

function NoHistograms() {
  return (
    <Notice title="There are functions, but no distributions of their energy.">
      <p>Those are native histograms, which <code>wattctl hub</code> scrapes and stores. Are the agents of an earlier version? Or is there a
        Prometheus between that does not scrape them? It does with <code>scrape_native_histograms: true</code>.</p>
    </Notice>
  );
}
