// Uncertain: every figure of the other pages that deserves less trust, and what would mend it.
import type { ComponentChildren } from 'preact';
import { duration, percent, si } from '../format';
import { nodesOf } from '../live';
import { Loading, Notice, Panel } from '../parts';
import { query, type Sample } from '../prometheus';
import { functionGauge, increase, nodeEnergy, sum } from '../promql';
import { to } from '../route';
import { useApp, useData, useLive } from '../state';
import { short } from './functions';

export function Uncertain() {
  const { route, window: w } = useApp();
  const live = useLive();
  const range = w.end - w.start;
  const loaded = useData(`uncertain ${w.start} ${w.end}`, async (signal) => {
    const at = (expr: string) => query(expr, w.end, signal);
    const [prior, collinear, unmeasured, unattributed, energy] = await Promise.all([
      at(functionGauge('wattlet_function_prior_dominated', range)),
      at(functionGauge('wattlet_function_collinear', range)),
      at(sum(['node'], increase('wattlet_node_unmeasured_seconds_total', range))),
      at(sum(['node'], increase('wattlet_node_unattributed_joules_total', range))),
      at(nodeEnergy(range)),
    ]);
    return { prior, collinear, unmeasured, unattributed, energy, seconds: range };
  });
  const link = (node = '') => <a href={to(route, 'node', node)}>{node}</a>;
  // Functions of a node whose flag is set, as one item.
  const flagged = (samples: Sample[]): Item[] => {
    const on = samples.filter((s) => s.value > 0);
    return [...new Set(on.map((s) => s.labels['node'] ?? ''))].sort().map((node) => ({
      id: node, what: link(node),
      more: on.filter((s) => s.labels['node'] === node).map((s) => short(s.labels['namespace'] ?? '', s.labels['function'] ?? '')).sort().join(', '),
    }));
  };
  const nodes = nodesOf(live);
  const agents = live?.agents ?? [];
  const down: Item[] = [
    ...agents.filter((a) => !a.up).map((a) => ({ id: a.name, what: a.name, more: `agent: ${a.error || 'no answer'}` })),
    ...agents.filter((a) => a.up).flatMap((a) => (a.snapshot?.meters ?? []).filter((m) => !m.up).map((m) => (
      { id: `${a.name} ${m.meter}`, what: m.meter, more: `meter of ${a.name}: ${m.error || 'silent'}` }))),
  ];
  const sensors: Item[] = nodes.filter((n) => n.view.saturated || n.view.sensor_errors || n.view.estimated).map((n) => ({
    id: n.view.node, what: link(n.view.node), more: [
      n.view.saturated && `${n.view.saturated} of ${n.view.samples} conversions saturated: power is a lower bound, the shunt is too large`,
      n.view.sensor_errors && `${n.view.sensor_errors} conversions failed: check the sensor's wiring`,
      n.view.estimated && 'energy is charge times an assumed voltage: the earlier firmware measures none',
    ].filter(Boolean).join('; '),
  }));
  const lag: Item[] = nodes.filter((n) => n.view.attribution && n.view.attribution.model.lag_peak === 0)
    .map((n) => ({ id: n.view.node, what: link(n.view.node), more: '' }));
  const broken: Item[] = nodes.filter((n) => n.view.attribution && n.view.attribution.invariant_uj !== 0)
    .map((n) => ({ id: n.view.node, what: link(n.view.node), more: `${n.view.attribution?.invariant_uj} µJ` }));
  return (
    <>
      {broken.length > 0 && (
        <Notice kind="bad" title="Accounts do not sum to what was measured. That is a bug: please report it."><List items={broken} /></Notice>
      )}
      <Group title="Agents and meters down" known={agents.length > 0} ok="All agents and meters answer." waiting={!live} items={down}
        note="As of now. Energy goes on being counted by a meter that lost its network, and arrives later; a meter without power counts nothing." />
      <Loading of={loaded}>
        {(d) => {
          const { seconds } = d;
          const energy = (node = '') => d.energy.find((e) => e.labels['node'] === node)?.value;
          return (
            <div class="grid">
              <Group title="Mostly assumed" known={d.prior.length > 0} ok="All functions have run enough." items={flagged(d.prior)}
                note={`The first assumption says more of these functions than the data do. Their energy is a guess with a wide interval until they
                  run more, and sometimes alone.`} />
              <Group title="Not told apart" known={d.collinear.length > 0} ok="No functions always run together." items={flagged(d.collinear)}
                note="Each runs whenever another does: their sum is known better than each. Run them at different times, or on different nodes." />
              <Group title="Unmeasured time" known={d.unmeasured.length > 0} ok={`None on record in ${duration(seconds)}.`}
                note="Nobody measured the node for so long: before the first reading, or while a meter restarted. That energy is in no figure."
                items={d.unmeasured.filter((s) => s.value >= 0.001).map((s) => ({
                  id: s.labels['node'] ?? '', what: link(s.labels['node']),
                  more: `${duration(s.value)}, ${percent(s.value / seconds)} of the range` }))} />
              <Group title="Unattributed energy" known={d.unattributed.length > 0} ok={`None on record in ${duration(seconds)}.`}
                note="Measured, but CPU time or readings of its moment are missing; it is counted with the base."
                items={d.unattributed.filter((s) => s.value >= 0.001).map((s) => ({
                  id: s.labels['node'] ?? '', what: link(s.labels['node']),
                  more: `${si(s.value, 'J')}, ${percent(s.value / (energy(s.labels['node']) ?? NaN))} of the node's energy` }))} />
            </div>
          );
        }}
      </Loading>
      <div class="grid">
        <Group title="Sensors" ok="All sensors are within their range and measure voltage." known={nodes.length > 0} waiting={!live} items={sensors}
          note="Counts are since the meter's start." />
        <Group title="Lag not found" ok="Power and CPU time are aligned on all nodes." waiting={!live} items={lag}
          known={nodes.some((n) => n.view.attribution)}
          note={`The time between CPU time and its power is not known yet: short invocations may be given to the wrong function. It is found once
            load has changed often enough.`} />
      </div>
    </>
  );
}

interface Item { id: string; what: ComponentChildren; more: ComponentChildren }

const List = ({ items }: { items: Item[] }) => <ul class="items">{items.map((i) => <li key={i.id}><strong>{i.what}</strong> {i.more}</li>)}</ul>;

interface GroupProps { title: string; note: string; ok: string; items: Item[]; waiting?: boolean; known?: boolean }

function Group({ title, note, ok, items, waiting = false, known = true }: GroupProps) {
  return (
    <Panel title={title} note={note}>
      {waiting ? <p class="loading">Waiting for the hub's live stream…</p>
        : items.length ? <List items={items} />
        : known ? <p class="fine"><span aria-hidden="true">✓</span> {ok}</p>
        : <p class="empty">Not known: there are no samples of it in this range.</p>}
    </Panel>
  );
}
