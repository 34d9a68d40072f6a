// Functions: what an invocation costs, how sure that is, and what the function used in the range.
import { Chart } from '../chart';
import { count, duration, interval, si } from '../format';
import { Bars, Loading, Notice, Table, type Column } from '../parts';
import { query, queryRange, type Sample } from '../prometheus';
import { functionGauge, functionIncrease, joulesPerInvocation } from '../promql';
import { policies, to, type Policy } from '../route';
import { sortBy } from '../sort';
import { lines } from '../stack';
import { useApp, useData } from '../state';
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
  const perWindow = Math.max(120, w.rate);
  const loaded = useData(`functions ${w.start} ${w.end} ${w.step} ${policy} ${node}`, async (signal) => {
    const at = (expr: string) => query(expr, w.end, signal);
    const per = (bound: string) => at(functionGauge('wattlet_function_joules_per_invocation', seconds, { bound }));
    const [mean, low, high, energy, invocations, coldStarts, coldJoules, base, over] = await Promise.all([
      per('mean'), per('low'), per('high'),
      at(functionIncrease('wattlet_function_energy_joules_total', seconds)),
      at(functionIncrease('wattlet_function_invocations_total', seconds)),
      at(functionIncrease('wattlet_function_cold_starts_total', seconds)),
      at(functionIncrease('wattlet_function_coldstart_joules_total', seconds)),
      at(functionIncrease('wattlet_function_base_share_joules_total', seconds, { policy })),
      queryRange(joulesPerInvocation(perWindow, node), w, signal),
    ]);
    return { rows: merge({ mean, low, high, energy, invocations, coldStarts, coldJoules, base }), over, policy, seconds };
  });
  return (
    <Loading of={loaded} empty={(d) => (d.rows.length === 0 ? <NoFunctions /> : null)}>
      {(d) => {
        const nodes = [...new Set(d.rows.map((r) => r.node))].sort();
        const rows = d.rows.filter((r) => (!node || r.node === node) && matches(filter, r.namespace, r.name));
        const most = new Set(sortBy(rows, (r) => r.energy, true).slice(0, 8).map((r) => `${r.node}\n${r.namespace}\n${r.name}`));
        const { over } = d;
        const label = (l: Record<string, string>) => short(l['namespace'] ?? '', l['function'] ?? '') + (node ? '' : ` · ${l['node']}`);
        const known = sortBy(rows.filter((r) => r.mean != null), (r) => r.mean, true).slice(0, 16);
        return (
          <>
            <form class="filters" role="search" onSubmit={(e) => e.preventDefault()}>
              <label>Function <input type="search" value={filter} placeholder="name or namespace" autocomplete="off"
                onInput={(e) => go({ filter: e.currentTarget.value }, true)} /></label>
              <label>Node <select value={node} onChange={(e) => go({ node: e.currentTarget.value })}>
                <option value="">all</option>{nodes.map((n) => <option key={n}>{n}</option>)}
              </select></label>
              <label>Base shared <select value={policy} onChange={(e) => go({ policy: e.currentTarget.value as Policy })}>
                {policies.map((p) => <option key={p} value={p}>{explained[p]}</option>)}
              </select></label>
            </form>
            <Table title="Functions" rows={rows} columns={columns(d.policy, (n) => to(route, 'node', n))} loading={loaded.loading}
              note={<>J per invocation is active energy since the agent's start, with its 95 % interval; the other figures are of {duration(d.seconds)}.</>}
              id={(r) => `${r.node} ${r.namespace} ${r.name}`} sort={route.sort || '-energy'} onSort={(sort) => go({ sort }, true)}
              empty={<p>No function matches. <button type="button" onClick={() => go({ filter: '', node: '' })}>Show all</button></p>} />
            {known.length > 0 && (
              <div class="grid">
                <Bars title="J per invocation" unit="J" loading={loaded.loading} note="Mean since the agent's start; the whisker is its 95 % interval."
                  bars={known.map((r) => ({
                    name: short(r.namespace, r.name) + (node ? '' : ` · ${r.node}`), value: r.mean ?? 0, low: r.low, high: r.high,
                    text: interval(r.mean, r.low, r.high, 'J'), color: 0,
                  }))} />
                <Chart title="J per invocation over time" unit="J" loading={loaded.loading}
                  note={`Active energy over invocations of ${duration(perWindow)}; gaps where none completed. Of the eight functions with the most energy: filter for others.`}
                  times={over.times} lines={lines({ ...over, series: over.series.filter((s) => most.has(idOf(s.labels))) }, label)} />
              </div>
            )}
          </>
        );
      }}
    </Loading>
  );
}

export const matches = (filter: string, namespace: string, name: string): boolean =>
  `${namespace}/${name}`.toLowerCase().includes(filter.trim().toLowerCase());

const explained: Record<Policy, string> = { equal: 'equally', proportional: 'by active energy', requested: 'by requested CPU' };

const columns = (policy: Policy, link: (node: string) => string): Column<Fn>[] => [
  { key: 'name', name: 'Function', head: 'function', value: (r) => r.name, cell: (r) => short(r.namespace, r.name) },
  { key: 'node', name: 'Node', head: 'node', value: (r) => r.node, cell: (r) => <a href={link(r.node)}>{r.node}</a> },
  { key: 'mean', name: 'J per invocation', head: 'joules per invocation', number: true, value: (r) => r.mean, cell: (r) => interval(r.mean, r.low, r.high, 'J') },
  { key: 'invocations', name: 'Invocations', head: 'invocations', number: true, value: (r) => r.invocations, cell: (r) => count(r.invocations) },
  { key: 'energy', name: 'Energy', head: 'active energy (J)', number: true, value: (r) => r.energy, cell: (r) => si(r.energy, 'J') },
  { key: 'coldStarts', name: 'Cold starts', head: 'cold starts', number: true, value: (r) => r.coldStarts, cell: (r) => count(r.coldStarts) },
  { key: 'coldJoules', name: 'Cold-start energy', head: 'cold-start energy (J)', number: true, value: (r) => r.coldJoules, cell: (r) => si(r.coldJoules, 'J') },
  { key: 'base', name: `Base share, ${policy}`, head: `base share ${policy} (J)`, number: true, value: (r) => r.base, cell: (r) => si(r.base, 'J') },
  { key: 'low', name: '95 % low', head: 'joules per invocation low95', number: true, value: (r) => r.low, cell: (r) => si(r.low, 'J') },
  { key: 'high', name: '95 % high', head: 'joules per invocation high95', number: true, value: (r) => r.high, cell: (r) => si(r.high, 'J') },
];

function NoFunctions() {
  const { live } = useApp();
  const measured = live?.agents.some((a) => a.snapshot?.nodes.some((n) => n.energy_uj != null));
  if (!measured) return <Nothing />;
  return (
    <Notice title="No functions are known in this range.">
      <p>Energy is measured, but no agent knows of a function. Is one deployed, and does the agent's configuration name it, under{' '}
        <code>functions</code>? On a board, <code>wattlet --once</code> prints what its agent sees.</p>
    </Notice>
  );
}
