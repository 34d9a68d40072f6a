// Alerts that fire now, as the hub's rules find them.
import { clock, duration } from './format';
import { Notice } from './parts';
import { alerts, type Alert } from './prometheus';
import { useData, useLive } from './state';

export function Alerts() {
  const live = useLive();
  const loaded = useData(`alerts ${Math.floor((live?.time ?? 0) / 10)}`, alerts);
  const down = new Set(live?.agents.filter((a) => !a.up).map((a) => a.name));
  const now = live?.time ?? Date.now() / 1000;
  return <>{byRule(loaded.data ?? [], down).map((same) => <Rule key={same[0]!.labels['alertname']} of={same} now={now} />)}</>;
}

/** Firing alerts by rule, the gravest first. Of agents that are down more is said elsewhere. */
export function byRule(all: readonly Alert[], down: ReadonlySet<string>): Alert[][] {
  const firing = all.filter((a) => a.state === 'firing' && !(a.labels['alertname'] === 'WattletAgentDown' && down.has(a.labels['instance'] ?? '')));
  const rules = new Map<string, Alert[]>();
  for (const a of firing) rules.set(a.labels['alertname'] ?? '', [...(rules.get(a.labels['alertname'] ?? '') ?? []), a]);
  const weight = (a: Alert) => ['critical', 'warning', 'info'].indexOf(a.labels['severity'] ?? 'warning');
  return [...rules.values()].sort((a, b) => weight(a[0]!) - weight(b[0]!));
}

function Rule({ of, now }: { of: Alert[]; now: number }) {
  const [first] = of as [Alert];
  const name = first.labels['alertname'] ?? 'Alert';
  const summary = (a: Alert) => a.annotations['summary'] ?? name;
  const since = (a: Alert) => {
    const t = Date.parse(a.activeAt) / 1000;
    return Number.isFinite(t) ? `Since ${clock(t)}${now - t >= 60 ? `, ${duration(Math.floor((now - t) / 60) * 60)}` : ''}.` : '';
  };
  const more = [...new Set(of.map((a) => a.annotations['description']))].filter(Boolean);
  const runbook = first.annotations['runbook_url'] ?? '';
  return (
    <Notice kind={first.labels['severity'] === 'info' ? 'info' : 'bad'} title={of.length === 1 ? summary(first) : `${of.length} alerts ${name}`}>
      {of.length === 1 ? <p>{more[0]} <span class="since">{since(first)}</span></p> : <>
        <ul>{of.map((a) => (
          <li key={JSON.stringify(a.labels)}>
            {summary(a)} {more.length > 1 && a.annotations['description']} <span class="since">{since(a)}</span>
          </li>
        ))}</ul>
        {more.length === 1 && <p>{more[0]}</p>}
      </>}
      {/^https?:\/\//.test(runbook) && <p><a href={runbook} rel="noreferrer">What to do about {name}</a></p>}
    </Notice>
  );
}
