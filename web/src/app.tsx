// The frame around the pages: where the reader is, what time it is, and whether the hub answers.
import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { clock, duration } from './format';
import { listen, type Live } from './live';
import { Cluster } from './pages/cluster';
import { Functions } from './pages/functions';
import { Invocations } from './pages/invocations';
import { Node } from './pages/node';
import { Uncertain } from './pages/uncertain';
import { Notice } from './parts';
import { query, Unreachable } from './prometheus';
import { grid, samplesIn } from './promql';
import { format, pages, parse, ranges, to, type Page, type Range, type Route } from './route';
import { Context, LiveContext, useMedia, type App } from './state';

const contents: Record<Page, [name: string, content: () => preact.JSX.Element]> = {
  cluster: ['Cluster', Cluster], functions: ['Functions', Functions], invocations: ['Invocations', Invocations], node: ['Node', Node],
  uncertain: ['Uncertain', Uncertain],
};
const names: Record<Range, string> = { '5m': '5 min', '15m': '15 min', '1h': '1 h', '6h': '6 h', '24h': '24 h', '7d': '7 d' };

function useRoute(): [Route, App['go']] {
  const [route, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => set(parse(location.hash));
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  const go = useCallback((change: Partial<Route>, replace = false) => {
    const next = { ...parse(location.hash), ...change };
    history[replace ? 'replaceState' : 'pushState'](null, '', format(next));
    set(next);
  }, []);
  return [route, go];
}

/** The newest event of the live stream, and whether the stream flows. Nothing is asked of the hub while nobody looks. */
function useStream(): [Live | null, boolean] {
  const [live, set] = useState<Live | null>(null);
  const [flows, setFlows] = useState(true);
  const [visible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const changed = () => setVisible(!document.hidden);
    document.addEventListener('visibilitychange', changed);
    return () => document.removeEventListener('visibilitychange', changed);
  }, []);
  useEffect(() => (visible ? listen((l) => { set(l); setFlows(true); }, () => setFlows(false)) : undefined), [visible]);
  return [live, flows];
}

export function Dashboard() {
  const [route, go] = useRoute();
  const [answers, reached] = useState(true);
  const [live, flows] = useStream();
  const dark = useMedia('(prefers-color-scheme: dark)');
  const [scrape, setScrape] = useState(5);
  const [tick, setTick] = useState(0);

  // Ranges end at the hub's time: the reader's clock may be wrong.
  const ahead = useRef(0);
  if (live) ahead.current = live.time - Date.now() / 1000;
  const started = live !== null;
  const window = useMemo(() => {
    if (route.zoom) return grid(route.zoom.from, route.zoom.to, scrape);
    const now = Date.now() / 1000 + ahead.current;
    return grid(now - ranges[route.range], now, scrape);
  }, [route.range, route.zoom?.from, route.zoom?.to, scrape, tick, started]);
  useEffect(() => {
    const every = Math.min(60, Math.max(scrape, window.step)) * 1000;
    const timer = setInterval(() => { if (!document.hidden) setTick((t) => t + 1); }, every);
    return () => clearInterval(timer);
  }, [scrape, window.step]);
  // Asked at first for the time between scrapes, and when the stream ends or comes back, to know whether the hub did.
  useEffect(() => {
    const abort = new AbortController();
    query(samplesIn(120), Date.now() / 1000 + ahead.current, abort.signal)
      .then((r) => {
        reached(true);
        if ((r[0]?.value ?? 0) >= 4) setScrape(nearest(120 / r[0]!.value));
      }, (e: unknown) => { if (!abort.signal.aborted) reached(!(e instanceof Unreachable)); });
    return () => abort.abort();
  }, [started, flows]);
  const [name, Content] = contents[route.page];
  useEffect(() => {
    document.title = `${route.page === 'node' && route.node ? route.node : name} · Wattlet`;
  }, [route.page, route.node]);

  const app = useMemo<App>(() => ({ route, go, window, dark, reached }), [route, go, window, dark]);
  // The same element is not drawn again: only those who use what changed are.
  const content = useMemo(() => <Content />, [Content]);
  return (
    <Context.Provider value={app}>
      <LiveContext.Provider value={live}>
        <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById('main')?.focus(); }}>To the figures</a>
        <header class="top">
          <div class="brand">Wattlet</div>
          <nav aria-label="Pages">
            {pages.map((p) => <a key={p} href={to(route, p)} aria-current={route.page === p ? 'page' : undefined}>{contents[p][0]}</a>)}
          </nav>
          <div class="time" role="group" aria-label="Time range">
            {(Object.keys(ranges) as Range[]).map((r) => (
              <button type="button" key={r} aria-pressed={!route.zoom && route.range === r} onClick={() => go({ range: r, zoom: null })}>
                {names[r]}
              </button>
            ))}
            <button type="button" class="tail" aria-pressed={!route.zoom}
              title={route.zoom ? 'Follow the present again' : 'Stop here'}
              onClick={() => go({ zoom: route.zoom ? null : { from: window.start, to: window.end } })}>
              <span class={route.zoom ? 'dot' : 'dot on'} aria-hidden="true" />Live
            </button>
          </div>
        </header>
        <main id="main" tabIndex={-1}>
          <h1 class="hide">{name}</h1>
          {route.zoom && (
            <p class="zoomed" role="status">
              {clock(route.zoom.from)} to {clock(route.zoom.to)}, {duration(route.zoom.to - route.zoom.from)}
              <button type="button" onClick={() => go({ zoom: null })}>Back to now</button>
            </p>
          )}
          <Trouble live={live} flows={flows} answers={answers} agents={route.page !== 'uncertain'} />
          {content}
        </main>
      </LiveContext.Provider>
    </Context.Provider>
  );
}

/** What stands between the reader and fresh figures. */
function Trouble({ live, flows, answers, agents }: { live: Live | null; flows: boolean; answers: boolean; agents: boolean }) {
  const down = live?.agents.filter((a) => !a.up) ?? [];
  return (
    <>
      {!answers && (
        <Notice kind="bad" title="The hub does not answer.">
          <p>Is <code>wattctl hub</code> or <code>wattctl up</code> still running, and this machine on its network? Asked again every
            two seconds{live ? `; what is shown is of ${clock(live.time)} and before` : ''}.</p>
        </Notice>
      )}
      {answers && !flows && (
        <Notice kind="bad" title="The live stream is interrupted.">
          <p>Charts go on; the present state of agents and meters is {live ? `that of ${clock(live.time)}` : 'not known'}. Opened again every two
            seconds. A hub serves 64 listeners at most: are there many open dashboards?</p>
        </Notice>
      )}
      {live?.agents.length === 0 && (
        <Notice title="The hub knows no agents.">
          <p>Tell it where they are: <code>wattctl hub --target pi=10.0.0.7:9780</code>, once for each, or by{' '}
            <code>--targets.file</code>. Without boards, <code>wattctl up</code> simulates six.</p>
        </Notice>
      )}
      {down.length > 0 && agents && (
        <Notice kind="bad" title={down.length === 1 ? `Agent ${down[0]!.name} is down.` : `${down.length} agents are down.`}>
          <ul>{down.map((a) => (
            <li key={a.name}>
              <strong>{a.name}</strong>: {a.error || 'no answer'}; {a.age == null ? 'never heard' : `last heard ${duration(a.age)} ago`}
            </li>
          ))}</ul>
          <p>On the board, <code>systemctl status wattlet</code> tells whether the agent runs and what it says.</p>
        </Notice>
      )}
    </>
  );
}

/** The time between scrapes is a setting, and no odd number. */
const nearest = (s: number): number => [1, 2, 5, 10, 15, 30].reduce((a, b) => (Math.abs(b - s) < Math.abs(a - s) ? b : a));
