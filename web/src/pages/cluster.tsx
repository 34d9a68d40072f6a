// Cluster: where the joules go by node, whether all meters are well, and what alerts there are.
import { Alerts } from '../alerts';
import { Chart } from '../chart';
import { count, duration, interval, none, period, si } from '../format';
import { nodesOf, type Agent, type Live, type MeterView } from '../live';
import { Bars, Loading, Notice, State, Table, Tile, type Column } from '../parts';
import { query, queryRange } from '../prometheus';
import { increase, nodeCurrent, nodeEnergy, nodePower, sum } from '../promql';
import { to } from '../route';
import { colorOf, lines } from '../stack';
import { useApp, useData, useLive } from '../state';

const node = (l: Record<string, string>): string => l['node'] ?? '';

export function Cluster() {
  const { route, window: w } = useApp();
  const seconds = w.end - w.start;
  const loaded = useData(`cluster ${w.start} ${w.end} ${w.step}`, async (signal) => {
    const [power, last, current, energy] = await Promise.all([
      queryRange(nodePower(w), w, signal),
      queryRange(sum(['node'], increase('wattlet_node_energy_joules_total', 15)), w, signal),
      queryRange(nodeCurrent(w), w, signal),
      query(nodeEnergy(seconds), w.end, signal),
    ]);
    const all = [...new Set([power, last, current].flatMap((m) => m.series.map((s) => node(s.labels))).concat(energy.map((e) => node(e.labels))))]
      .sort((a, b) => a.localeCompare(b));
    return {
      times: power.times, power: lines(power, node, all), last: lines(last, node, all), current: lines(current, node, all),
      energy: energy.map((e) => ({ name: node(e.labels), value: e.value, color: colorOf(all.indexOf(node(e.labels))) }))
        .sort((a, b) => b.value - a.value),
      seconds, period: period(w.start, w.end),
    };
  });
  return (
    <>
      <Alerts />
      <Now joules={loaded.data?.energy.reduce((s, e) => s + e.value, 0)} seconds={loaded.data?.seconds ?? seconds} />
      <Loading of={loaded} empty={(d) => (d.power.length === 0 && d.energy.length === 0 ? <Nothing /> : null)}>
        {(d) => (
          <div class="grid">
            <Chart title="Power" note="Mean power by node, standing on each other: rate of the measured energy." unit="W" stacked
              times={d.times} lines={d.power} loading={loaded.loading} />
            <Bars title="Energy by node" unit="J" loading={loaded.loading}
              note={`Measured at the supply in ${duration(d.seconds)}.`} period={d.period}
              bars={d.energy.map((e) => ({ ...e, text: si(e.value, 'J'), href: to(route, 'node', e.name) }))} />
            <Chart title="Energy of the last 15 s" note="At each moment, what the 15 s before it took." unit="J"
              times={d.times} lines={d.last} loading={loaded.loading} />
            <Chart title="Current" note="Mean current: rate of the measured charge; missing where nobody measures it." unit="A"
              times={d.times} lines={d.current} loading={loaded.loading} />
          </div>
        )}
      </Loading>
      <Meters />
    </>
  );
}

/** Joules are of the time range, all else of now. */
function Now({ joules, seconds }: { joules: number | undefined; seconds: number }) {
  const live = useLive();
  const nodes = nodesOf(live);
  const fresh = nodes.filter((n) => n.agent.up && n.view.power_uw != null);
  const meters = rows(live);
  const power = fresh.reduce((s, n) => s + (n.view.power_uw ?? 0), 0) / 1e6;
  return (
    <dl class="tiles">
      <Tile name="Power now" value={fresh.length ? si(power, 'W') : none}
        more={live && nodes.length > fresh.length ? `of ${fresh.length} of ${nodes.length} nodes` : `${fresh.length} nodes`} />
      <Tile name={`Energy in ${duration(seconds)}`} value={si(joules, 'J')} more={joules == null ? '' : `${(joules / 3600).toPrecision(3)} Wh`} />
      <Tile name="Agents up" value={live ? `${live.agents.filter((a) => a.up).length} of ${live.agents.length}` : none}
        bad={live?.agents.some((a) => !a.up) ?? false} />
      <Tile name="Meters up" value={live ? `${meters.filter((m) => up(m)).length} of ${meters.length}` : none} bad={meters.some((m) => !up(m))} />
    </dl>
  );
}

function Meters() {
  const live = useLive();
  return (
    <Table title="Meters" note="As each agent sees them now, whatever the time range." rows={rows(live)} columns={columns}
      id={(r) => `${r.agent.name} ${r.meter?.meter}`} sort="agent"
      empty={live ? <p>No agent has told of a meter yet.</p> : <p class="loading">Waiting for the hub's live stream…</p>} />
  );
}

export function Nothing() {
  const { route, go } = useApp();
  return (
    <Notice title="There are no samples in this range.">
      <p>The hub stores from the moment it starts, one sample every few seconds. {route.zoom
        ? <button type="button" onClick={() => go({ zoom: null })}>Go back to now</button>
        : 'If it has just started, the first appear by themselves; if not, see under Meters whether the agents answer.'}</p>
    </Notice>
  );
}

interface Row { agent: Agent; meter: MeterView | undefined }

const rows = (live: Live | null): Row[] =>
  (live?.agents ?? []).flatMap((agent): Row[] => (agent.snapshot?.meters.length
    ? agent.snapshot.meters.map((meter) => ({ agent, meter })) : [{ agent, meter: undefined }]));
const up = (r: Row): boolean => r.agent.up && r.meter?.up === true;
const failures = (m: MeterView | undefined): number | undefined => (m ? Object.values(m.errors ?? {}).reduce((a, b) => a + b, 0) : undefined);
const why = (r: Row): string => (!r.agent.up ? 'agent down' : !r.meter ? 'no meter' : r.meter.up ? 'up' : r.meter.error || 'silent');
const age = (r: Row): number | undefined =>
  r.meter?.last_success && r.agent.snapshot
    ? (Date.parse(r.agent.snapshot.time) - Date.parse(r.meter.last_success)) / 1000 + (r.agent.age ?? 0) : undefined;

const columns: Column<Row>[] = [
  { key: 'agent', name: 'Agent', head: 'agent', value: (r) => r.agent.name },
  { key: 'state', name: 'State', head: 'state', value: why, cell: (r) => <State ok={up(r)}>{why(r)}</State> },
  { key: 'meter', name: 'Meter', head: 'meter', value: (r) => r.meter?.meter },
  { key: 'kind', name: 'Kind', head: 'kind', wide: true, value: (r) => r.meter?.kind },
  { key: 'firmware', name: 'Firmware', head: 'firmware', wide: true, value: (r) => r.meter?.firmware },
  { key: 'age', name: 'Newest reading', head: 'age of newest reading (s)', number: true, value: age, cell: (r) => duration(age(r)) },
  { key: 'lost', name: 'Reports lost', head: 'reports lost', number: true, value: (r) => r.meter?.lost, cell: (r) => count(r.meter?.lost) },
  { key: 'recovered', name: 'Recovered', head: 'reports recovered', number: true, value: (r) => r.meter?.recovered,
    cell: (r) => count(r.meter?.recovered) },
  { key: 'restarts', name: 'Restarts', head: 'restarts', number: true, value: (r) => r.meter?.restarts, cell: (r) => count(r.meter?.restarts) },
  { key: 'errors', name: 'Errors', head: 'errors', number: true, value: (r) => failures(r.meter),
    cell: (r) => <span title={Object.entries(r.meter?.errors ?? {}).map(([k, n]) => `${k} ${n}`).join(', ')}>{count(failures(r.meter))}</span> },
  { key: 'clock', name: 'Clock known to', head: 'clock bound (us)', number: true, value: (r) => r.meter?.clock?.bound_us,
    cell: (r) => (r.meter?.clock ? `± ${si(r.meter.clock.bound_us / 1e6, 's')}` : none) },
];

/** Watts of a model with their standard deviation, as 95 % interval. */
export const watts = (mean: number, stddev: number): string => interval(mean, mean - 1.96 * stddev, mean + 1.96 * stddev, 'W');
