// A hub that is not one: serves dist, a Prometheus API over made-up series of six boards, and the live stream. For looking at
// pages and testing them without Go:  node test/fakehub.mjs [port]. It knows of PromQL what src/promql.ts builds.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const dist = fileURLToPath(new URL('../dist', import.meta.url));
const scrape = 5;
const types = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' };

// Watts of the idle board and of a busy core, cores' worth of system load, and invocations a second of each function.
const boards = {
  raspberrypi: { base: 1.42, core: 0.85, volt: 5.1, fns: { 'analyze-sentence': 1.1, 'resize-image': 0.5, 'fork-short': 2, 'cold-rare': 0.01 } },
  'pynq-z1': { base: 1.83, core: 0.43, volt: 5.02, fns: { 'analyze-sentence': 0.5, 'fork-short': 1, 'cold-rare': 0.01 } },
  'odroid-xu4-1': { base: 2.4, core: 1.75, volt: 5.05, fns: { 'analyze-sentence': 3, 'resize-image': 1.2, gzip: 2, matrix: 0.4, 'fork-short': 3, 'cold-rare': 0.02 } },
  'odroid-xu4-2': { base: 2.3, core: 1.1, volt: 5.04, fns: { 'analyze-sentence': 2, 'resize-image': 0.9, gzip: 1.4, 'fork-short': 2, 'cold-rare': 0.02 } },
  coral: { base: 1.9, core: 0.74, volt: 5.08, fns: { 'analyze-sentence': 1.4, 'resize-image': 0.6, matrix: 0.2, 'fork-short': 1.5 } },
  'jetson-nano': { base: 1.25, core: 1.35, volt: 5.0, fns: { 'analyze-sentence': 2.2, 'resize-image': 1, gzip: 1.5, matrix: 0.3, 'cold-rare': 0.015 } },
};
const cpuSeconds = { 'analyze-sentence': 0.11, 'resize-image': 0.19, gzip: 0.16, matrix: 0.9, 'fork-short': 0.02, 'cold-rare': 0.35 };

// A counter that grows by p·(1 + a·sin) a second, in closed form, so that any time can be asked for.
const counter = (p, a = 0, period = 97, phase = 0) => (t) => p * (t + (a * period) / (2 * Math.PI) * (Math.cos(phase) - Math.cos((2 * Math.PI * t) / period + phase)));

function makeSeries() {
  const all = [];
  const put = (metric, labels, value) => all.push({ metric, labels: { job: 'wattlet', instance: `${labels.node}:9780`, ...labels }, value });
  for (const [b, [node, board]] of Object.entries(boards).entries()) {
    const parts = [counter(board.base * 0.999), counter(board.base * 0.001)];
    put('wattlet_node_base_joules_total', { node }, (t) => parts[0](t) + parts[1](t));
    put('wattlet_node_unattributed_joules_total', { node }, node === 'coral' ? parts[1] : () => 0);
    const names = Object.keys(board.fns);
    for (const [i, [name, perSecond]] of Object.entries(board.fns).entries()) {
      const l = { node, namespace: 'openfaas-fn', function: name };
      const joules = cpuSeconds[name] * board.core;
      const [swing, period, phase] = [0.75, 140 + 60 * i + 17 * b, i + b];
      const energy = counter(perSecond * joules, swing, period, phase);
      const cold = counter(name === 'cold-rare' ? 0.04 : 0);
      const rare = name === 'cold-rare';
      parts.push(energy, cold);
      put('wattlet_function_energy_joules_total', l, energy);
      put('wattlet_function_invocations_total', l, (t) => Math.floor(counter(perSecond, swing, period, phase)(t)));
      put('wattlet_function_coldstart_joules_total', l, cold);
      put('wattlet_function_cold_starts_total', l, (t) => (rare ? Math.floor(t / 90) : 2));
      for (const policy of ['equal', 'proportional']) put('wattlet_function_base_share_joules_total', { ...l, policy }, counter(board.base / names.length * (policy === 'equal' ? 1 : 0.4 + 0.3 * i)));
      put('wattlet_function_joules_per_invocation', { ...l, bound: 'mean' }, () => joules);
      if (name !== 'matrix' || node !== 'coral') {
        put('wattlet_function_joules_per_invocation', { ...l, bound: 'low' }, () => joules * (rare ? 0.62 : 0.97));
        put('wattlet_function_joules_per_invocation', { ...l, bound: 'high' }, () => joules * (rare ? 1.5 : 1.03));
      }
      put('wattlet_function_prior_dominated', l, () => Number(rare && b < 3));
      put('wattlet_function_collinear', l, () => Number(node === 'jetson-nano' && (name === 'gzip' || name === 'matrix')));
      for (const pod of ['7c9f4', 'x2k8d']) {
        const w = { node, kind: 'function', namespace: 'openfaas-fn', name: `${name}-${pod}` };
        put('wattlet_workload_energy_joules_total', w, (t) => energy(t) / 2);
        put('wattlet_workload_coldstart_joules_total', w, (t) => cold(t) / 2);
        put('wattlet_workload_energy_stddev_joules', w, () => 0.4 + i / 5);
      }
    }
    for (const [kind, namespace, name, watts] of [['pod', 'kube-system', 'coredns-6799f', 0.03], ['pod', 'openfaas', 'gateway-5d4b', 0.05],
      ['system', '', 'k3s.service', 0.19], ['system', '', 'systemd-journald.service', 0.01], ['agent', '', 'wattlet.service', 0.002]]) {
      const energy = counter(watts, 0.3, 61, b);
      parts.push(energy);
      put('wattlet_workload_energy_joules_total', { node, kind, namespace, name }, energy);
      put('wattlet_workload_energy_stddev_joules', { node, kind, namespace, name }, () => watts);
    }
    const energy = (t) => parts.reduce((s, p) => s + p(t), 0);
    put('wattlet_node_energy_joules_total', { node }, energy);
    put('wattlet_node_unmeasured_seconds_total', { node }, (t) => (node === 'pynq-z1' && t > 86400 - 200 ? 3.4 : 0));
    const watts = (t) => (energy(t) - energy(t - 1)) * (1 + 0.01 * Math.sin(t * 7));
    put('wattlet_node_power_watts', { node }, watts);
    if (node !== 'pynq-z1') put('wattlet_node_current_amperes', { node }, (t) => watts(t) / board.volt);
    put('wattlet_node_info', { node, meter: 'bench-1', channel: String(b + 1), estimated: 'false' }, () => 1);
    put('wattlet_model_base_watts', { node }, (t) => board.base * (1 + 0.004 * Math.sin(t / 300)));
    put('wattlet_model_core_watts', { node }, (t) => board.core * (1 + 0.02 * Math.sin(t / 500 + b)));
  }
  return all;
}

/** Serves on 127.0.0.1; what it says is changed by `state`: mode ok, empty, noagents, nofunctions, full (of listeners) or broken; killed: names of agents. */
export async function startFakeHub(port = 0) {
  const state = { mode: 'ok', killed: new Set(), queries: [] };
  const started = Date.now() / 1000 - 86400; // a day of history
  const series = makeSeries();
  const streams = new Set();

  const at = (s, t) => {
    if (t < started || t > Date.now() / 1000 + 1 || state.mode === 'empty' || state.mode === 'noagents') return NaN;
    if (state.killed.has(s.labels.node) && t > state.killedAt) return NaN;
    if (state.mode === 'nofunctions' && (s.metric.startsWith('wattlet_function') || s.labels.kind === 'function')) return NaN;
    return s.value(t - started);
  };
  // An expression at a time, as [{labels, value}]. Missing values are NaN and left out at the end.
  const evaluate = (expr, t) => {
    const top = splitDivision(expr);
    if (top) {
      const divisor = new Map(evaluate(top[1], t).map((r) => [JSON.stringify(r.labels), r.value]));
      return evaluate(top[0], t).map((r) => ({ labels: r.labels, value: r.value / (divisor.get(JSON.stringify(r.labels)) ?? NaN) }));
    }
    let m = /^(sum|max)(?: by \(([^)]*)\))? \((.*)\)$/s.exec(expr) ?? /^(sum|max)()\((.*)\)$/s.exec(expr);
    if (m) {
      const groups = new Map();
      for (const r of evaluate(m[3], t)) {
        const labels = Object.fromEntries((m[2] ?? '').split(/, ?/).filter((l) => r.labels[l]).map((l) => [l, r.labels[l]]));
        const key = JSON.stringify(labels);
        const g = groups.get(key);
        groups.set(key, { labels, value: g === undefined ? r.value : m[1] === 'sum' ? g.value + r.value : Math.max(g.value, r.value) });
      }
      return [...groups.values()];
    }
    m = /^(rate|increase|count_over_time|last_over_time)\((.*)\[(\d+)([sd])\]\)$/s.exec(expr);
    if (m) {
      const seconds = Number(m[3]) * (m[4] === 'd' ? 86400 : 1);
      return matching(m[2]).map((s) => {
        const now = at(s, m[1] === 'last_over_time' && state.killed.has(s.labels.node) ? Math.min(t, state.killedAt) : t);
        const past = at(s, Math.max(t - seconds, started));
        const value = m[1] === 'rate' ? (now - past) / seconds : m[1] === 'increase' ? now - past : m[1] === 'last_over_time' ? now : (now, seconds / scrape);
        return { labels: s.labels, value: Number.isNaN(now) ? NaN : value };
      }).filter((r) => !Number.isNaN(r.value));
    }
    return matching(expr).map((s) => ({ labels: { __name__: s.metric, ...s.labels }, value: at(s, t) })).filter((r) => !Number.isNaN(r.value));
  };
  const matching = (selector) => {
    const m = /^([a-z_]+)(?:\{(.*)\})?$/s.exec(selector.trim());
    if (!m) throw new Error(`parse error: ${selector}`);
    const want = [...(m[2] ?? '').matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, k, v]) => [k, JSON.parse(`"${v}"`)]);
    return series.filter((s) => s.metric === m[1] && want.every(([k, v]) => s.labels[k] === v));
  };

  const snapshot = (node, b, now) => {
    const board = boards[node];
    const value = (metric, more = () => true) => series.filter((s) => s.metric === metric && s.labels.node === node && more(s.labels)).map((s) => at(s, now))[0];
    const up = node !== 'coral' || !state.meterDown;
    const power = up ? value('wattlet_node_power_watts') : undefined;
    const time = new Date(now * 1000).toISOString();
    const micro = (x) => (x == null ? null : Math.round(x * 1e6));
    return {
      format: 'wattlet-snapshot/1', time,
      nodes: [{
        node, meter: 'bench-1', channel: b + 1, energy_uj: micro(value('wattlet_node_energy_joules_total')), charge_uc: null, unmeasured_us: 0,
        power_uw: micro(power), voltage_uv: micro(board.volt), current_ua: node === 'pynq-z1' ? null : micro(power == null ? null : power / board.volt),
        interval_us: 1000000, at: time, estimated: false, samples: 812345, saturated: node === 'odroid-xu4-1' ? 12 : 0, sensor_errors: 0,
        attribution: state.mode === 'empty' ? undefined : {
          base_uj: micro(value('wattlet_node_base_joules_total')), unattributed_uj: 0, departed_uj: 0, pending_uj: 0, invariant_uj: 0, workloads: [], functions: [],
          model: { base_w: board.base, base_stddev_w: 0.012, core_w: board.core, core_stddev_w: 0.031, lag_us: 214000, lag_peak: node === 'pynq-z1' ? 0 : 0.91,
            changes: b === 3 ? 2 : 0, rejected: { cpu: 3 } },
        },
      }],
      meters: [{
        meter: 'bench-1', kind: 'meter', identity: 'simulated', firmware: '1.0.0', up, error: up ? undefined : 'no report for 6 s', last_success: time,
        notifications: 9000, duplicates: 0, lost: 12 + b, recovered: 12 + b, restarts: 0, connects: 1, errors: { silence: Number(!up) },
        clock: { offset_us: 12, bound_us: 420, drift_ppm: 8.1 },
      }],
    };
  };
  const event = () => {
    const now = Date.now() / 1000;
    const targets = state.mode === 'noagents' ? [] : Object.keys(boards).map((node, b) => {
      const killed = state.killed.has(node);
      return {
        target: node, url: `http://127.0.0.1:${9800 + b}`, ...(killed && { error: 'connect: connection refused' }),
        age_ms: killed ? Math.round((now - state.killedAt) * 1000) : 40, snapshot: snapshot(node, b, killed ? state.killedAt : now),
      };
    });
    return `data: ${JSON.stringify({ format: 'wattlet-live/1', time: new Date(now * 1000).toISOString(), targets })}\n\n`;
  };

  const server = createServer(async (req, res) => {
    const url = new URL(req.url, 'http://hub');
    const json = (status, body) => res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
    if (url.pathname === '/api/v1/live' && state.mode === 'full') {
      res.writeHead(503).end('too many listeners');
    } else if (url.pathname === '/api/v1/live') {
      res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
      res.write('retry: 300\n\n' + event());
      streams.add(res);
      res.on('close', () => streams.delete(res));
    } else if (url.pathname.startsWith('/api/v1/query')) {
      const q = url.searchParams;
      const expr = q.get('query') ?? '';
      state.queries.push(expr);
      if (state.mode === 'broken') return json(503, { status: 'error', errorType: 'unavailable', error: 'storage wattlet-data: no space left on device' });
      try {
        if (url.pathname.endsWith('_range')) {
          const found = new Map();
          for (let t = Number(q.get('start')); t <= Number(q.get('end')); t += Number(q.get('step'))) {
            for (const r of evaluate(expr, t)) {
              const key = JSON.stringify(r.labels);
              if (!found.has(key)) found.set(key, { metric: r.labels, values: [] });
              found.get(key).values.push([t, String(r.value)]);
            }
          }
          return json(200, { status: 'success', data: { resultType: 'matrix', result: [...found.values()] } });
        }
        const t = Number(q.get('time'));
        return json(200, { status: 'success', data: { resultType: 'vector', result: evaluate(expr, t).map((r) => ({ metric: r.labels, value: [t, String(r.value)] })) } });
      } catch (e) {
        return json(400, { status: 'error', errorType: 'bad_data', error: String(e) });
      }
    } else {
      const path = url.pathname === '/' ? '/index.html' : normalize(url.pathname);
      try {
        res.writeHead(200, { 'Content-Type': types[extname(path)] ?? 'application/octet-stream' }).end(await readFile(join(dist, path)));
      } catch {
        res.writeHead(404).end('not found');
      }
    }
    return undefined;
  });
  const timer = setInterval(() => streams.forEach((s) => s.write(event())), 1000);
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    state,
    url: `http://127.0.0.1:${server.address().port}/`,
    kill(node) { state.killedAt = Date.now() / 1000; state.killed.add(node); },
    close() { clearInterval(timer); server.closeAllConnections(); return new Promise((resolve) => server.close(resolve)); },
  };
}

// a / b outside of parentheses.
function splitDivision(expr) {
  let depth = 0;
  for (let i = 0; i < expr.length; i++) {
    if (expr[i] === '(') depth++;
    if (expr[i] === ')') depth--;
    if (depth === 0 && expr.startsWith(' / ', i)) return [expr.slice(0, i), expr.slice(i + 3)];
  }
  return null;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const hub = await startFakeHub(Number(process.argv[2] ?? 9779));
  console.log(`fake hub on ${hub.url}`);
}
