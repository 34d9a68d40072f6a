// Node: one board's power split into base, functions, everything else and cold starts; and the model that splits it.
import { useMemo } from 'preact/hooks';
import { Chart } from '../chart';
import { count, none, percent, si } from '../format';
import { nodesOf } from '../live';
import { Loading, Notice, Table, Tile, type Column } from '../parts';
import { query, queryRange, type Labels, type Sample } from '../prometheus';
import { byFunction, byWorkload, increase, last, max, mean, quote, rate, select, sum } from '../promql';
import { colorOf, grey, lines, most, type Line } from '../stack';
import { useApp, useData, useLive } from '../state';
import { Nothing, watts } from './cluster';
import { short } from './functions';

/** Who used energy: a function with all its pods, or another workload. */
interface Account { kind: string; namespace: string; name: string; energy: number; cold: number | undefined; stddev: number | undefined }

export function Node() {
  const { route, go, window: w } = useApp();
  const live = useLive();
  const known = useData(`nodes ${w.end}`, (signal) => query('max by (node) (last_over_time(wattlet_node_info[1d]))', w.end, signal));
  const all = nodesOf(live);
  const told = [...(known.data ?? []).map((s) => s.labels['node'] ?? ''), ...all.map((n) => n.view.node), route.node];
  const names = [...new Set(told)].filter(Boolean).sort();
  const node = route.node || names[0] || '';
  const split = useMemo(() => <Split key={node} node={node} />, [node]);
  if (!node) {
    return <Loading of={known}>{() => <Nothing />}</Loading>;
  }
  return (
    <>
      <form class="filters" onSubmit={(e) => e.preventDefault()}>
        <label>Node <select value={node} onChange={(e) => go({ node: e.currentTarget.value })}>
          {names.map((n) => <option key={n}>{n}</option>)}
        </select></label>
      </form>
      <Now node={node} />
      {split}
    </>
  );
}

/** What the agent tells right now. */
function Now({ node }: { node: string }) {
  const live = useLive();
  const here = nodesOf(live).find((n) => n.view.node === node);
  if (!here) return live ? <Notice title={`No agent tells of ${node} now.`}><p>The charts show what is stored of it.</p></Notice> : null;
  const { view, agent } = here;
  const model = view.attribution?.model;
  const micro = (x: number | null | undefined, unit: string) => si(agent.up && x != null ? x / 1e6 : null, unit);
  const rejected = Object.values(model?.rejected ?? {}).reduce((a, b) => a + b, 0);
  return (
    <dl class="tiles">
      <Tile name="Power now" value={micro(view.power_uw, 'W')} more={view.estimated ? 'estimated from charge' : ''} bad={!agent.up} />
      <Tile name="Current, voltage" value={micro(view.current_ua, 'A')} more={micro(view.voltage_uv, 'V')} />
      <Tile name="Idle board" value={model ? watts(model.base_w, model.base_stddev_w) : none} more="learnt, 95 % interval" />
      <Tile name="Per busy core" value={model ? watts(model.core_w, model.core_stddev_w) : none} more="learnt, 95 % interval" />
      <Tile name="Power follows load by" value={model && model.lag_peak > 0 ? si(model.lag_us / 1e6, 's') : 'not found'}
        more={model && model.lag_peak > 0 ? `correlation ${model.lag_peak.toFixed(2)}` : ''} />
      <Tile name="Unannounced changes" value={model ? count(model.changes) : none}
        more={rejected ? `${count(rejected)} ${rejected === 1 ? 'interval' : 'intervals'} not learnt from` : ''} />
    </dl>
  );
}

function Split({ node }: { node: string }) {
  const { window: w } = useApp();
  const seconds = w.end - w.start;
  const watt = (metric: string, by: string[]) => sum(by, rate(select(metric, { node }), w.rate));
  const noFunction = (metric: string) => `${metric}{node=${quote(node)}, kind!="function"}`;
  const loaded = useData(`node ${node} ${w.start} ${w.end} ${w.step}`, async (signal) => {
    const over = (expr: string) => queryRange(expr, w, signal);
    const at = (expr: string) => query(expr, w.end, signal);
    const grown = (metric: string, by: readonly string[]) => at(sum(by, increase(metric, seconds)));
    const [
      base, unattributed, functions, others, cold, modelBase, modelCore, clocks, energy, coldEnergy, stddev, ofOthers, stddevOfOthers,
    ] = await Promise.all([
      over(watt('wattlet_node_base_joules_total', ['node'])),
      over(watt('wattlet_node_unattributed_joules_total', ['node'])),
      over(watt('wattlet_function_energy_joules_total', ['namespace', 'function'])),
      over(sum(['kind'], rate(noFunction('wattlet_workload_energy_joules_total'), w.rate))),
      over(watt('wattlet_workload_coldstart_joules_total', ['node'])),
      over(max(['node'], select('wattlet_model_base_watts', { node }))),
      over(max(['node'], select('wattlet_model_core_watts', { node }))),
      over(max(['class'], mean(select('wattlet_node_cpu_frequency_hertz', { node }), w.rate))),
      grown(select('wattlet_function_energy_joules_total', { node }), byFunction),
      grown(select('wattlet_function_coldstart_joules_total', { node }), byFunction),
      at(max(byFunction, last(select('wattlet_function_energy_stddev_joules', { node }), seconds))),
      grown(noFunction('wattlet_workload_energy_joules_total'), byWorkload),
      at(max(byWorkload, last(noFunction('wattlet_workload_energy_stddev_joules'), seconds))),
    ]);
    const find = (samples: Sample[], l: Labels) => samples.find((s) => Object.entries(l).every(([k, v]) => s.labels[k] === v))?.value;
    const rows = [
      ...energy.map((s): Account => ({
        kind: 'function', namespace: s.labels['namespace'] ?? '', name: s.labels['function'] ?? '', energy: s.value,
        cold: find(coldEnergy, s.labels), stddev: find(stddev, s.labels),
      })),
      ...ofOthers.map((s): Account => ({
        kind: s.labels['kind'] ?? '', namespace: s.labels['namespace'] ?? '', name: s.labels['name'] ?? '', energy: s.value,
        cold: undefined, stddev: find(stddevOfOthers, s.labels),
      })),
    ].filter((r) => r.energy >= 1e-6 || (r.cold ?? 0) > 0);
    const one = (m: typeof base, name: string, color: number): Line[] => m.series.slice(0, 1).map((s) => ({ name, color, values: s.values }));
    // What could not be given to anyone is counted with the base; here it is seen by itself.
    const idle = one(base, 'idle board', grey).map((l) => ({
      ...l, values: l.values.map((v, i) => (v == null ? null : v - (unattributed.series[0]?.values[i] ?? 0))),
    }));
    const kinds = lines(others, (l) => plural[l['kind'] ?? ''] ?? l['kind'] ?? '');
    const fns = most(lines(functions, (l) => short(l['namespace'] ?? '', l['function'] ?? '')), 8, 'other functions');
    const parts = [...fns, ...kinds, ...one(cold, 'cold starts', 0), ...one(unattributed, 'unattributed', 0).filter((l) => l.values.some((v) => v))];
    return {
      times: base.times, rows,
      split: [...idle, ...parts.map((l, i) => ({ ...l, color: colorOf(i) }))],
      model: [...one(modelBase, 'idle board', grey), ...one(modelCore, 'per busy core', 1)],
      clocks: lines(clocks, (l) => (l['class'] === 'cpu' ? 'all cores' : `${l['class']} cores`)),
    };
  });
  return (
    <Loading of={loaded} empty={(d) => (d.split.length === 0 && d.rows.length === 0 ? <Nothing /> : null)}>
      {(d) => {
        const total = d.rows.reduce((s, r) => s + r.energy, 0);
        return (
          <>
            <Chart title={`Power of ${node}`} note="Who draws it: rate of the accounts, which sum to what was measured." unit="W" stacked
              times={d.times} lines={d.split} loading={loaded.loading} />
            {d.model.length + d.clocks.length > 0 && (
              <div class="grid">
                {d.model.length > 0 && <Chart title="Model" note="Power of the idle board and of one busy core, as learnt." unit="W"
                  times={d.times} lines={d.model} loading={loaded.loading} />}
                {d.clocks.length > 0 && <Chart title="Clock frequency" note="Mean over all cores of a kind, idle time included." unit="Hz"
                  times={d.times} lines={d.clocks} loading={loaded.loading} />}
              </div>
            )}
            <Table title="Energy by workload" rows={d.rows} columns={columns(total)} sort="-energy" glance={15} loading={loaded.loading}
              id={(r) => `${r.kind} ${r.namespace} ${r.name}`}
              note={<>Active energy in the range, of functions and of all else that runs; the standard deviation is of the total since the agent's
                start.</>}
              empty={<p>No workload of {node} has an account: its agent only measures, or cannot read control groups. See{' '}
                <code>wattlet --once</code> on the board.</p>} />
          </>
        );
      }}
    </Loading>
  );
}

const plural: Record<string, string> = { pod: 'other pods', system: 'system', agent: 'agent' };

const columns = (total: number): Column<Account>[] => [
  { key: 'name', name: 'Workload', head: 'workload', value: (r) => r.name,
    cell: (r) => <>{short(r.namespace, r.name)}<small class="narrow">{r.kind}</small></> },
  { key: 'kind', name: 'Kind', head: 'kind', wide: true, value: (r) => r.kind },
  { key: 'energy', name: 'Energy', head: 'active energy (J)', number: true, value: (r) => r.energy, cell: (r) => si(r.energy, 'J') },
  { key: 'share', name: 'Of active', head: 'share of active energy', number: true, value: (r) => (total ? r.energy / total : null),
    cell: (r) => (total ? percent(r.energy / total) : none) },
  { key: 'cold', name: 'Cold starts', head: 'cold-start energy (J)', number: true, value: (r) => r.cold, cell: (r) => si(r.cold, 'J') },
  { key: 'stddev', name: 'Std. deviation', head: 'standard deviation since start (J)', number: true, value: (r) => r.stddev,
    cell: (r) => si(r.stddev, 'J') },
];
