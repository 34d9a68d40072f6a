// Functions: what an invocation costs, how sure that is, and what the function used in the range.
import { Chart } from '../chart';
import { count, duration, interval, period, si } from '../format';
import { Bars, Loading, Notice, Table, type Column } from '../parts';
import { query, queryRange, type Sample } from '../prometheus';
import { functionGauge, functionIncrease, joulesPerInvocation } from '../promql';
import { policies, to, type Policy, type Route } from '../route';
import { sortBy } from '../sort';
import { lines } from '../stack';
import { useApp, useData, useLive } from '../state';
import { Nothing } from './cluster';

interface Fn {
  node: string; namespace: string; name: string;
  mean?: number; low?: number; high?: number; invocations?: number; energy?: number; coldStarts?: number; coldJoules?: number; base?: number;
}

export const idOf = (l: Record<string, string>): string => `${l['node']}\n${l['namespace']}\n${l['function']}`;
/** OpenFaaS's own namespace goes without saying. */
export const short = (namespace: string, name: string): string => (namespace === '' || namespace === 'openfaas-fn' ? name : `${namespace}/${name}`);

/** Each function once, with the answers of queries under their keys. */
export function merge(answers: Partial<Record<keyof Fn, Sample[]>>): Fn[] {
  const all = new Map<string, Fn>();
  for (const [key, samples] of Object.entries(answers)) {
    for (const s of samples) {
      const id = idOf(s.labels);
      const fn = all.get(id) ?? { node: s.labels['node'] ?? '', namespace: s.labels['namespace'] ?? '', name: s.labels['function'] ?? '' };
      all.set(id, Object.assign(fn, { [key]: s.value }));
    }
  }
  return [...all.values()];
}

export function Functions() {
  const { route, go, window: w } = useApp();
  const { policy, node, filter } = route;
  const seconds = w.end - w.start;
  const loaded = useData(`functions ${w.start} ${w.end} ${policy}`, async (signal) => {
    const at = (expr: string) => query(expr, w.end, signal);
    const per = (bound: string) => at(functionGauge('wattlet_function_joules_per_invocation', seconds, { bound }));
    const [mean, low, high, energy, invocations, coldStarts, coldJoules, base] = await Promise.all([
      per('mean'), per('low'), per('high'),
      at(functionIncrease('wattlet_function_energy_joules_total', seconds)),
      at(functionIncrease('wattlet_function_invocations_total', seconds)),
      at(functionIncrease('wattlet_function_cold_starts_total', seconds)),
      at(functionIncrease('wattlet_function_coldstart_joules_total', seconds)),
      at(functionIncrease('wattlet_function_base_share_joules_total', seconds, { policy })),
    ]);
    return { rows: merge({ mean, low, high, energy, invocations, coldStarts, coldJoules, base }), policy, seconds, end: w.end };
  });
  return (
    <Loading of={loaded} empty={(d) => (d.rows.length === 0 ? <NoFunctions /> : null)}>
      {(d) => {
        const rows = d.rows.filter((r) => (!node || r.node === node) && matches(filter, r.namespace, r.name));
        const name = (r: Fn) => short(r.namespace, r.name) + (node ? '' : ` · ${r.node}`);
        const known = sortBy(rows.filter((r) => r.mean != null), (r) => r.mean, true).slice(0, 16);
        return (
          <>
            <Filters nodes={d.rows.map((r) => r.node)} policy />
            <Table title="Functions" rows={rows} columns={columns(d.policy, route)} loading={loaded.loading}
              note={<>J per invocation is active energy since the agent's start, with its 95 % interval; the other figures are
                of {duration(d.seconds)}. All in, an invocation also bears its part of the cold starts and of the idle board's energy.</>}
              id={(r) => `${r.node} ${r.namespace} ${r.name}`} sort={route.sort || '-energy'} onSort={(sort) => go({ sort }, true)}
              empty={<NoMatch />} />
            {rows.length > 0 && (
              <div class="grid">
                {known.length > 0 && (
                  <Bars title="J per invocation" unit="J" loading={loaded.loading}
                    note="Mean since the agent's start; the whisker is its 95 % interval."
                    period={`Since the agents' start, as of ${period(d.end, d.end).split(' to ')[0]}`}
                    bars={known.map((r) => ({
                      name: name(r), value: r.mean ?? 0, low: r.low, high: r.high,
                      text: interval(r.mean, r.low, r.high, 'J'), color: 0, href: distribution(route, r),
                    }))} />
                )}
                <OverTime of={sortBy(rows, (r) => r.energy, true).slice(0, 8)} all={rows.length} />
              </div>
            )}
          </>
        );
      }}
    </Loading>
  );
}

/** What functions cost over time. Only those that are drawn are asked for: there may be hundreds. */
function OverTime({ of, all }: { of: Fn[]; all: number }) {
  const { route, window: w } = useApp();
  const seconds = Math.max(120, w.rate);
  const ids = of.map((r) => `${r.node}\n${r.namespace}\n${r.name}`).sort();
  const loaded = useData(`over ${w.start} ${w.end} ${w.step} ${ids.join()} ${route.node}`, async (signal) => {
    const each = (key: 'node' | 'namespace' | 'name') => [...new Set(of.map((r) => r[key]))].sort();
    const m = await queryRange(joulesPerInvocation(seconds, { node: each('node'), namespace: each('namespace'), function: each('name') }), w, signal);
    const label = (l: Record<string, string>) => short(l['namespace'] ?? '', l['function'] ?? '') + (route.node ? '' : ` · ${l['node']}`);
    return { times: m.times, lines: lines({ ...m, series: m.series.filter((s) => ids.includes(idOf(s.labels))) }, label), seconds };
  });
  return (
    <Loading of={loaded}>
      {(d) => (
        <Chart title="J per invocation over time" unit="J" loading={loaded.loading} times={d.times} lines={d.lines}
          note={`Active energy over invocations of ${duration(d.seconds)}; gaps where none completed.${
            all > of.length ? ' Of the eight functions with the most energy: filter for others.' : ''}`} />
      )}
    </Loading>
  );
}

/** Which functions are shown; all of it in the address. */
export function Filters({ nodes, policy = false }: { nodes: string[]; policy?: boolean }) {
  const { route, go } = useApp();
  return (
    <form class="filters" role="search" onSubmit={(e) => e.preventDefault()}>
      <label>Function <input type="search" value={route.filter} placeholder="name or namespace" autocomplete="off"
        onInput={(e) => go({ filter: e.currentTarget.value }, true)} /></label>
      <label>Node <select value={route.node} onChange={(e) => go({ node: e.currentTarget.value })}>
        <option value="">all</option>{[...new Set([...nodes, route.node])].filter(Boolean).sort().map((n) => <option key={n}>{n}</option>)}
      </select></label>
      {policy && <label>Base shared <select value={route.policy} onChange={(e) => go({ policy: e.currentTarget.value as Policy })}>
        {policies.map((p) => <option key={p} value={p}>{explained[p]}</option>)}
      </select></label>}
    </form>
  );
}

export function NoMatch() {
  const { go } = useApp();
  return <p>No function matches. <button type="button" onClick={() => go({ filter: '', node: '' })}>Show all</button></p>;
}

export const matches = (filter: string, namespace: string, name: string): boolean =>
  `${namespace}/${name}`.toLowerCase().includes(filter.trim().toLowerCase());

const explained: Record<Policy, string> = { equal: 'equally', proportional: 'by active energy', requested: 'by requested CPU' };

/** A link to the distribution of a function's energy. */
const distribution = (route: Route, r: Fn): string => to(route, 'invocations', '', { filter: r.name, fn: [`${r.node}/${r.namespace}/${r.name}`] });

/** Joules of an invocation with its part of what no invocation draws by itself; undefined where a share is not known. */
export const allIn = (r: Fn): number | undefined =>
  (r.invocations && r.energy != null && r.base != null ? (r.energy + (r.coldJoules ?? 0) + r.base) / r.invocations : undefined);

const columns = (policy: Policy, route: Route): Column<Fn>[] => [
  { key: 'name', name: 'Function', head: 'function', value: (r) => r.name,
    cell: (r) => <><a href={distribution(route, r)}>{short(r.namespace, r.name)}</a><small class="narrow">{r.node}</small></> },
  { key: 'node', name: 'Node', head: 'node', wide: true, value: (r) => r.node, cell: (r) => <a href={to(route, 'node', r.node)}>{r.node}</a> },
  { key: 'mean', name: 'J per invocation', head: 'joules per invocation', number: true, value: (r) => r.mean,
    cell: (r) => interval(r.mean, r.low, r.high, 'J') },
  { key: 'low', name: '95 % low', head: 'joules per invocation low95', hidden: true, value: (r) => r.low },
  { key: 'high', name: '95 % high', head: 'joules per invocation high95', hidden: true, value: (r) => r.high },
  { key: 'invocations', name: 'Invocations', head: 'invocations', number: true, value: (r) => r.invocations, cell: (r) => count(r.invocations) },
  { key: 'energy', name: 'Energy', head: 'active energy (J)', number: true, value: (r) => r.energy, cell: (r) => si(r.energy, 'J') },
  { key: 'coldStarts', name: 'Cold starts', head: 'cold starts', number: true, value: (r) => r.coldStarts, cell: (r) => count(r.coldStarts) },
  { key: 'coldJoules', name: 'Cold-start energy', head: 'cold-start energy (J)', number: true, value: (r) => r.coldJoules,
    cell: (r) => si(r.coldJoules, 'J') },
  { key: 'base', name: `Base share, ${policy}`, head: `base share ${policy} (J)`, number: true, value: (r) => r.base, cell: (r) => si(r.base, 'J') },
  { key: 'allin', name: 'J per invocation, all in', head: `joules per invocation with cold starts and base share ${policy}`, number: true,
    value: allIn, cell: (r) => si(allIn(r), 'J') },
];

export function NoFunctions() {
  const live = useLive();
  const measured = live?.agents.some((a) => a.snapshot?.nodes.some((n) => n.energy_uj != null));
  if (!measured) return <Nothing />;
  return (
    <Notice title="No functions are known in this range.">
      <p>Energy is measured, but no agent knows of a function. Is one deployed, and does the agent's configuration name it, under{' '}
        <code>functions</code>? On a board, <code>wattlet --once</code> prints what its agent sees.</p>
    </Notice>
  );
}
