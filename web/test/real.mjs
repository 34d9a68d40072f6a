// The same pages over a real hub, with real agents.
//
// By itself it starts two simulated boards with `../bin/wattctl up`, and a hub of its own over their agents: so that the end of an
// agent, and with it of `up`, leaves a hub to look at. Or it looks at another hub:
//   WATTLET_HUB=URL            a hub whose agents have functions that run
//   WATTLET_KILL=NAME=COMMAND  a shell command that ends the agent NAME; without it that test is skipped
//   WATTLET_EMPTY_HUB=URL      a hub without samples; without it and without bin/wattctl that test is skipped
import { spawn, execSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { everyHub, reader } from './pages.mjs';

const bin = process.env.WATTLET_BIN ?? fileURLToPath(new URL('../../bin/', import.meta.url));
const dist = fileURLToPath(new URL('../dist', import.meta.url));
const wattctl = join(bin, 'wattctl');
const folder = mkdtempSync(join(tmpdir(), 'wattlet-web-'));
const started = [];

/** Runs wattctl until the end of the tests. What it says is shown if it ends before. */
function start(...args) {
  const child = spawn(wattctl, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (d) => { said = (said + d).slice(-4000); });
  child.said = () => said;
  started.push(child);
  return child;
}

/** Asks until something is answered that is good enough. */
async function until(what, ask, child) {
  const end = Date.now() + 60_000;
  for (;;) {
    const answer = await ask().catch(() => undefined);
    if (answer) return answer;
    if (child?.exitCode != null) throw new Error(`${what}: wattctl ended: ${child.said()}`);
    if (Date.now() > end) throw new Error(`${what}: not within a minute: ${child?.said() ?? ''}`);
    await new Promise((done) => { setTimeout(done, 200); });
  }
}

/** A port that is free now. */
async function port() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port: free } = server.address();
  server.close();
  await once(server, 'close');
  return free;
}

/** Agents that `up` has started: their names, addresses and processes. */
function agents(up) {
  const children = readFileSync(`/proc/${up.pid}/task/${up.pid}/children`, 'utf8').trim().split(' ');
  const threads = readdirSync(`/proc/${up.pid}/task`).flatMap((t) => readFileSync(`/proc/${up.pid}/task/${t}/children`, 'utf8').trim().split(' '));
  return [...new Set([...children, ...threads])].filter(Boolean).flatMap((pid) => {
    const args = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    const flag = (name) => args.find((a) => a.startsWith(`--${name}=`))?.slice(name.length + 3);
    return flag('node') ? [{ pid: Number(pid), name: flag('node'), address: flag('web.listen-address') }] : [];
  });
}

const hubOf = async (data, targets) => {
  const listen = `127.0.0.1:${await port()}`;
  const hub = start('hub', ...targets.map((t) => `--target=${t}`), '--scrape.interval=1s', `--listen=${listen}`, `--web=${dist}`,
    `--data=${join(folder, data)}`);
  await until('the hub', async () => (await fetch(`http://${listen}/readyz`)).ok, hub);
  return `http://${listen}/`;
};

const world = {
  patience: 60_000,
  address: process.env.WATTLET_HUB?.replace(/\/*$/, '/'),
  boards: [],
  url: () => world.address,
  kill: () => {
    if (world.boards.length) {
      process.kill(world.boards[0].pid, 'SIGKILL');
      return world.boards[0].name;
    }
    const [name, command] = process.env.WATTLET_KILL?.split(/=(.*)/s) ?? [];
    if (command) execSync(command, { stdio: 'inherit' });
    return command && name;
  },
  empty: () => process.env.WATTLET_EMPTY_HUB?.replace(/\/*$/, '/') ?? (existsSync(wattctl) ? hubOf('empty', ['nobody=127.0.0.1:1']) : null),
};

before(async () => {
  if (!world.address) {
    if (!existsSync(wattctl)) throw new Error(`there is no ${wattctl}: run make build first, or set WATTLET_HUB`);
    const up = start('up', '--boards=2', `--listen=127.0.0.1:${await port()}`, `--data=${join(folder, 'up')}`);
    world.boards = await until('the agents', async () => { const found = agents(up); return found.length === 2 && found; }, up);
    world.address = await hubOf('hub', world.boards.map((b) => `${b.name}=${b.address}`));
  }
  // The model needs some seconds of load, and rates two samples.
  const asked = new URLSearchParams({
    query: 'count(increase(wattlet_function_invocation_energy_joules[1m])) > 0 and count(wattlet_model_lag_confidence_ratio > 0) > 0' });
  await until('invocations', async () => (await (await fetch(`${world.address}api/v1/query?${asked}`)).json()).data.result.length > 0);
}, { timeout: 180_000 });

after(async () => {
  for (const child of started.reverse()) {
    if (child.exitCode != null || child.signalCode != null) continue;
    const ended = once(child, 'exit');
    child.kill('SIGINT');
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

everyHub(world, reader(world));
