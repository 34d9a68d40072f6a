// A hub that is not one: serves dist, a Prometheus API over made-up series of six boards, and the live stream. For looking at
// pages and testing them without Go:  node test/fakehub.mjs [port [functions]]. It knows of PromQL what src/promql.ts builds.
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
  'odroid-xu4-1': { base: 2.4, core: 1.75, volt: 5.05, fns: { 'analyze-sentence': 3, 'resize-image': 1.2, gzip: 2, matrix: 0.4, 'fork-short': 3,
    'cold-rare': 0.02 } },
  'odroid-xu4-2': { base: 2.3, core: 1.1, volt: 5.04, fns: { 'analyze-sentence': 2, 'resize-image': 0.9, gzip: 1.4, 'fork-short': 2,
    'cold-rare': 0.02 } },
  coral: { base: 1.9, core: 0.74, volt: 5.08, fns: { 'analyze-sentence': 1.4, 'resize-image': 0.6, matrix: 0.2, 'fork-short': 1.5 } },
  'jetson-nano': { base: 1.25, core: 1.35, volt: 5.0, fns: { 'analyze-sentence': 2.2, 'resize-image': 1, gzip: 1.5, matrix: 0.3,
    'cold-rare': 0.015 } },
};
const cpuSeconds = { 'analyze-sentence': 0.11, 'resize-image': 0.19, gzip: 0.16, matrix: 0.9, 'fork-short': 0.02, 'cold-rare': 0.35 };

// A counter that grows by p·(1 + a·sin) a second, in closed form, so that any time can be asked for.
const counter = (p, a = 0, period = 97, phase = 0) => (t) =>
  p * (t + (a * period) / (2 * Math.PI) * (Math.cos(phase) - Math.cos((2 * Math.PI * t) / period + phase)));

/** Each board with so many functions, for seeing how pages bear them. */
export function crowd(functions) {
  return Object.fromEntries(Object.entries(boards).map(([node, board]) => [node, { ...board,
    fns: Object.fromEntries(Array.from({ length: functions }, (_, i) => [`function-${String(i + 1).padStart(2, '0')}`, 0.2 + (i % 7) / 5])) }]));
}

function makeSeries(boards) {
  const all = [];
  const put = (metric, labels, value) => all.push({ metric, labels: { job: 'wattlet', instance: `${labels.node}:9780`, ...labels }, value });
  for (const [b, [node, board]] of Object.entries(boards).entries()) {
    const parts = [counter(board.base * 0.999), counter(board.base * 0.001)];
    put('wattlet_node_base_joules_total', { node }, (t) => parts[0](t) + parts[1](t));
    put('wattlet_node_unattributed_joules_total', { node }, node === 'coral' ? parts[1] : () => 0);
    const names = Object.keys(board.fns);
    for (const [i, [name, perSecond]] of Object.entries(board.fns).entries()) {
      const l = { node, namespace: 'openfaas-fn', function: name };
      const joules = (cpuSeconds[name] ?? 0.02 + (i % 11) / 200) * board.core;
      const [swing, period, phase] = [0.75, 140 + 60 * i + 17 * b, i + b];
      const energy = counter(perSecond * joules, swing, period, phase);
      const cold = counter(name === 'cold-rare' ? 0.04 : 0);
      const rare = name === 'cold-rare';
      parts.push(energy, cold);
      put('wattlet_function_energy_joules_total', l, energy);
      put('wattlet_function_invocations_total', l, (t) => Math.floor(counter(perSecond, swing, period, phase)(t)));
      put('wattlet_function_coldstart_joules_total', l, cold);
      put('wattlet_function_cold_starts_total', l, (t) => (rare ? Math.floor(t / 90) : 2));
      for (const policy of ['equal', 'proportional']) put('wattlet_function_base_share_joules_total', { ...l, policy },
        counter(board.base / names.length * (policy === 'equal' ? 1 : 0.4 + 0.3 * i)));
      // Log-normal; some of the invocations of one function took nothing that could be measured.
      all.push({ metric: 'wattlet_function_invocation_energy_joules', labels: { job: 'wattlet', instance: `${node}:9780`, ...l },
        histogram: { invocations: (t) => Math.floor(counter(perSecond, swing, period, phase)(t)), joules, sigma: rare ? 0.5 : 0.1 + i / 20,
          zero: name === 'fork-short' ? 0.02 : 0 } });
      put('wattlet_function_joules_per_invocation', { ...l, bound: 'mean' }, () => joules);
      if (name !== 'matrix' || node !== 'coral') {
        put('wattlet_function_joules_per_invocation', { ...l, bound: 'low' }, () => joules * (rare ? 0.62 : 0.97));
        put('wattlet_function_joules_per_invocation', { ...l, bound: 'high' }, () => joules * (rare ? 1.5 : 1.03));
      }
      put('wattlet_function_energy_stddev_joules', l, () => 0.4 + i / 5);
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
    if (node !== 'pynq-z1') put('wattlet_node_charge_coulombs_total', { node }, (t) => energy(t) / board.volt);
    for (const [k, cls] of (node.startsWith('odroid') ? ['big', 'little'] : node === 'coral' ? [] : ['cpu']).entries()) {
      put('wattlet_node_cpu_frequency_hertz', { node, class: cls }, (t) => 4e8 + 1e9 * Math.abs(Math.sin(t / (50 + 20 * b + 9 * k))));
    }
    put('wattlet_node_info', { node, meter: 'bench-1', channel: String(b + 1), estimated: 'false' }, () => 1);
    put('wattlet_model_base_watts', { node }, (t) => board.base * (1 + 0.004 * Math.sin(t / 300)));
    put('wattlet_model_core_watts', { node }, (t) => board.core * (1 + 0.02 * Math.sin(t / 500 + b)));
  }
  return all;
}

// Counts of a log-normal distribution in buckets that grow by the eighth root of 2, as Prometheus's HTTP API has them.
function histogram({ joules, sigma, zero }, count) {
  const buckets = zero && count ? [[3, '0', '0', String(count * zero)]] : [];
  const index = (x) => Math.round(8 * Math.log2(x));
  const [from, to] = [index(joules * Math.exp(-3 * sigma)), index(joules * Math.exp(3 * sigma))];
  const weight = (i) => Math.exp(-0.5 * ((Math.log(2) * (i + 0.5) / 8 - Math.log(joules)) / sigma) ** 2);
  let total = 0;
  for (let i = from; i < to; i++) total += weight(i);
  for (let i = from; i < to && count; i++) buckets.push([0, String(2 ** (i / 8)), String(2 ** ((i + 1) / 8)),
    String((count * (1 - zero) * weight(i)) / total)]);
  return { count: String(count), sum: String(count * joules), ...(count && { buckets }) };
}

/**
 * Serves on 127.0.0.1; what it says is changed by `state`: mode ok, empty, noagents, nofunctions, nohistograms, full (of listeners) or
 * broken; killed: names of agents; alerts: as /api/v1/alerts has them, null for a hub that has no such page.
 */
export async function startFakeHub(port = 0, of = boards) {
  const state = { mode: 'ok', killed: new Set(), queries: [], alerts: [] };
  const started = Date.now() / 1000 - 86400; // a day of history
  const series = makeSeries(of);
  const streams = new Set();

  const at = (s, t) => {
    if (t < started || t > Date.now() / 1000 + 1 || state.mode === 'empty' || state.mode === 'noagents') return NaN;
    if (state.killed.has(s.labels.node) && t > state.killedAt) return NaN;
    if (state.mode === 'nohistograms' && s.histogram) return NaN;
    if (state.mode === 'nofunctions' && (s.metric.startsWith('wattlet_function') || s.labels.kind === 'function')) return NaN;
    return s.histogram ? s.histogram.invocations(t - started) : s.value(t - started);
  };
  // An expression as series of labels and value at a time; where it has none, NaN.
  const compile = (expr) => {
    const top = splitDivision(expr);
    if (top) {
      const divisor = new Map(compile(top[1]).map((r) => [JSON.stringify(r.labels), r.value]));
      return compile(top[0]).map(({ labels, value }) => ({ labels, value: (t) => value(t) / (divisor.get(JSON.stringify(labels))?.(t) ?? NaN) }));
    }
    let m = /^(sum|max)(?: by \(([^)]*)\))? \((.*)\)$/s.exec(expr) ?? /^(sum|max)()\((.*)\)$/s.exec(expr);
    if (m) {
      const groups = new Map();
      for (const r of compile(m[3])) {
        const labels = Object.fromEntries((m[2] ?? '').split(/, ?/).filter((l) => r.labels[l]).map((l) => [l, r.labels[l]]));
        const key = JSON.stringify(labels);
        if (!groups.has(key)) groups.set(key, { labels, of: [], histogram: r.histogram });
        groups.get(key).of.push(r.value);
      }
      const most = m[1] === 'max';
      return [...groups.values()].map(({ labels, of, histogram }) => ({ labels, histogram, value: (t) => {
        const known = of.map((f) => f(t)).filter((x) => !Number.isNaN(x));
        return known.length === 0 ? NaN : most ? Math.max(...known) : known.reduce((a, b) => a + b);
      } }));
    }
    m = /^(rate|increase|count_over_time|last_over_time|avg_over_time)\((.*)\[(\d+)([sd])\]\)$/s.exec(expr);
    if (m) {
      const seconds = Number(m[3]) * (m[4] === 'd' ? 86400 : 1);
      const [, what, selector] = m;
      return matching(selector).map((s) => ({ labels: s.labels, histogram: s.histogram, value: (t) => {
        // What an agent told before it ended is still in the range.
        const end = state.killed.has(s.labels.node) && t - seconds < state.killedAt ? Math.min(t, state.killedAt) : t;
        const now = at(s, end);
        if (Number.isNaN(now) || what === 'last_over_time' || what === 'avg_over_time') return now;
        if (what === 'count_over_time') return seconds / scrape;
        const grown = now - at(s, Math.max(t - seconds, started));
        return what === 'rate' ? grown / seconds : grown;
      } }));
    }
    return matching(expr).map((s) => ({ labels: { __name__: s.metric, ...s.labels }, value: (t) => at(s, t) }));
  };
  const matching = (selector) => {
    const m = /^([a-z_]+)(?:\{(.*)\})?$/s.exec(selector.trim());
    if (!m) throw new Error(`parse error: ${selector}`);
    const want = [...(m[2] ?? '').matchAll(/([a-z_]+)(=|!=|=~)"((?:[^"\\]|\\.)*)"/g)].map(([, k, op, v]) => [k, op, JSON.parse(`"${v}"`)]);
    const fits = { '=': (x, v) => x === v, '!=': (x, v) => x !== v, '=~': (x, v) => new RegExp(`^(?:${v})$`).test(x) };
    return series.filter((s) => s.metric === m[1] && want.every(([k, op, v]) => fits[op](s.labels[k], v)));
  };
  const answer = (q, range) => {
    const of = compile(q.get('query') ?? '');
    if (!range) {
      const t = Number(q.get('time'));
      const result = of.map((r) => [r, r.value(t)]).filter(([, v]) => !Number.isNaN(v))
        .map(([r, v]) => ({ metric: r.labels, ...(r.histogram ? { histogram: [t, histogram(r.histogram, v)] } : { value: [t, String(v)] }) }));
      return { resultType: 'vector', result };
    }
    const times = [];
    for (let t = Number(q.get('start')); t <= Number(q.get('end')); t += Number(q.get('step'))) times.push(t);
    const values = (r) => times.map((t) => [t, r.value(t)]).filter(([, v]) => !Number.isNaN(v)).map(([t, v]) => [t, String(v)]);
    const result = of.map((r) => ({ metric: r.labels, values: values(r) })).filter((r) => r.values.length);
    return { resultType: 'matrix', result };
  };

  const snapshot = (node, b, now) => {
    const board = of[node];
    const value = (metric) => series.filter((s) => s.metric === metric && s.labels.node === node).map((s) => at(s, now))[0];
    const up = node !== 'coral' || !state.meterDown;
    const power = up ? value('wattlet_node_power_watts') : undefined;
    const time = new Date(now * 1000).toISOString();
    const micro = (x) => (x == null ? null : Math.round(x * 1e6));
    return {
      format: 'wattlet-snapshot/1', time,
      nodes: [{
        node, meter: 'bench-1', channel: b + 1, energy_uj: micro(value('wattlet_node_energy_joules_total')), charge_uc: null, unmeasured_us: 0,
        power_uw: micro(power), voltage_uv: micro(board.volt),
          current_ua: node === 'pynq-z1' ? null : micro(power == null ? null : power / board.volt),
        interval_us: 1000000, at: time, estimated: false, samples: 812345, saturated: node === 'odroid-xu4-1' ? 12 : 0, sensor_errors: 0,
        attribution: state.mode === 'empty' ? undefined : {
          base_uj: micro(value('wattlet_node_base_joules_total')), unattributed_uj: 0, departed_uj: 0, pending_uj: 0, invariant_uj: 0,
            workloads: [], functions: [],
          model: { base_w: board.base, base_stddev_w: 0.012, core_w: board.core, core_stddev_w: 0.031, lag_us: 214000,
            lag_peak: node === 'pynq-z1' ? 0 : 0.91,
            changes: b === 3 ? 2 : 0, rejected: { cpu: 3 } },
        },
      }],
      meters: [{
        meter: 'bench-1', kind: 'meter', identity: 'simulated', firmware: '1.0.0', up, error: up ? undefined : 'no report for 6 s',
          last_success: time,
        notifications: 9000, duplicates: 0, lost: 12 + b, recovered: 12 + b, restarts: 0, connects: 1, errors: { silence: Number(!up) },
        clock: { offset_us: 12, bound_us: 420, drift_ppm: 8.1 },
      }],
    };
  };
  const event = () => {
    const now = Date.now() / 1000;
    const targets = state.mode === 'noagents' ? [] : Object.keys(of).map((node, b) => {
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
      state.queries.push(q.get('query') ?? '');
      if (state.mode === 'broken') return json(503, { status: 'error', errorType: 'unavailable',
        error: 'storage wattlet-data: no space left on device' });
      try {
        return json(200, { status: 'success', data: answer(q, url.pathname.endsWith('_range')) });
      } catch (e) {
        return json(400, { status: 'error', errorType: 'bad_data', error: String(e) });
      }
    } else if (url.pathname === '/api/v1/alerts' && state.alerts) {
      return json(200, { status: 'success', data: { alerts: state.alerts } });
    } else if (url.pathname.startsWith('/api/')) {
      res.writeHead(404).end('404 page not found');
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
  const hub = await startFakeHub(Number(process.argv[2] ?? 9779), process.argv[3] ? crowd(Number(process.argv[3])) : boards);
  console.log(`fake hub on ${hub.url}`);
  process.send?.(hub.url);
}
