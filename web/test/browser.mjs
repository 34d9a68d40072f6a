// The built pages in a real browser, over a fake hub: what any hub must show, and a hub that is broken in the ways a hub and its
// agents break.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { crowd, startFakeHub } from './fakehub.mjs';
import { everyHub, reader } from './pages.mjs';

let hub;
beforeEach(async () => { hub = await startFakeHub(); });
const world = {
  url: () => hub.url,
  kill: () => { hub.kill('coral'); return 'coral'; },
  empty: () => { hub.state.mode = 'empty'; return hub.url; },
};
const r = reader(world);
const { open, see, panel, rows, drawn, settled, count } = r;
afterEach(() => hub.close().catch(() => undefined)); // a test may have ended it

everyHub(world, r);

test('cluster: what nobody measures is missing, not zero', async () => {
  await open('cluster');
  await drawn('Current');
  assert.equal(await panel('Energy by node').locator('li').count(), 6);
  assert.equal(await panel('Current').locator('.legend button').count(), 5); // pynq-z1 measures none
  await open('node?node=coral');
  await drawn('Model');
  assert.equal(await panel('Clock frequency').count(), 0);
});

test('functions: order goes by value', async () => {
  await open('functions?filter=gzip');
  await count('Functions', 3);
  await panel('Functions').getByRole('button', { name: 'J per invocation', exact: true }).click();
  const first = () => rows('Functions').first().locator('td').first().innerText();
  assert.equal(await first(), 'odroid-xu4-1');
  await panel('Functions').getByRole('button', { name: 'J per invocation', exact: true }).click();
  assert.equal(await first(), 'odroid-xu4-2');
  // All in: energy, cold starts and base share over invocations, here of two cold starts without energy.
  const cell = (i) => rows('Functions').first().locator(`:scope > :nth-child(${i})`).innerText();
  const [energy, base, all, n] = (await Promise.all([5, 8, 9, 4].map(cell)))
    .map((t) => Number.parseFloat(t.replaceAll('\u202f', '')) * (t.includes(' k') ? 1000 : t.includes(' m') ? 1e-3 : 1));
  assert.ok(Math.abs((energy + base) / n - all) < 0.01 * all, `(${energy} + ${base}) / ${n} is not ${all}`);
});

test('functions: hundreds are shown by and by, and only those that are drawn are asked for over time', async () => {
  const port = Number(new URL(hub.url).port);
  await hub.close();
  hub = await startFakeHub(port, crowd(40));
  await open('functions');
  await count('Functions', 40);
  await r.page.getByRole('button', { name: 'Show all 240 rows' }).click();
  await count('Functions', 240);
  await drawn('J per invocation over time');
  assert.equal(await panel('J per invocation over time').locator('.legend button').count(), 8);
  const over = hub.state.queries.filter((q) => q.includes(' / '));
  assert.ok(over.length > 0 && over.every((q) => q.includes('function=~"')), over[0]);
});

test('node: parts sum to the measured power', async () => {
  await open('node?node=odroid-xu4-1');
  await drawn('Power of odroid-xu4-1');
  await panel('Power of odroid-xu4-1').getByRole('button', { name: 'Power of odroid-xu4-1 as a table' }).click();
  const text = await panel('Power of odroid-xu4-1').locator('tbody tr').nth(3).locator('td').allInnerTexts();
  const scale = { W: 1, mW: 1e-3, µW: 1e-6 };
  const watts = text.map((t) => { const [x, unit] = t.split(' '); return Number(x) * scale[unit]; });
  const time = await panel('Power of odroid-xu4-1').locator('tbody tr').nth(3).locator('th').innerText();
  await open('cluster');
  await drawn('Power');
  await r.page.getByRole('button', { name: 'Power as a table' }).click();
  const row = panel('Power').locator('tbody tr', { hasText: time });
  const [node, unit] = (await row.locator('td').nth(2).innerText()).split(' ');
  const sum = watts.reduce((a, b) => a + b, 0);
  assert.ok(Math.abs(sum - Number(node) * scale[unit]) < 0.02, `${sum} W of parts, ${node} ${unit} measured`);
  await open('node?node=pynq-z1');
  await see('not found'); // the lag
});

test('invocations: what is picked, what has no energy, what nobody invoked', async () => {
  await open('invocations?filter=fork-short');
  await drawn('Energy per invocation');
  assert.equal(await panel('Energy per invocation').locator('.legend button').count(), 4); // of five nodes that have it
  await see('2.0 % of fork-short · raspberrypi');
  // Another filter narrows the table; what was picked stays.
  await panel('Invocations').getByLabel('fork-short on coral').uncheck();
  await r.page.getByLabel('Function', { exact: true }).fill('gzip');
  await count('Invocations', 3);
  assert.equal(await panel('Energy per invocation').locator('.legend button').count(), 3);
  await panel('Invocations').getByLabel('gzip on jetson-nano').check();
  await see('gzip · jetson-nano');
  // From the other page a function's name leads to its distribution.
  await open('functions?filter=matrix&node=coral');
  await count('Functions', 1);
  await rows('Functions').getByRole('link', { name: 'matrix' }).click();
  await drawn('Energy per invocation');
  assert.match(await panel('Energy per invocation').locator('.legend').innerText(), /^matrix · coral/);
  await open('invocations?filter=nothing');
  await r.page.getByRole('button', { name: 'Show all' }).waitFor();
  await open('invocations?node=nowhere');
  await see('Nothing to draw.');
});

test('uncertain: what deserves less trust', async () => {
  hub.state.meterDown = true;
  await open('uncertain');
  for (const [title, ...items] of [
    ['Agents and meters down', /bench-1 meter of coral: no report for 6 s/],
    ['Mostly assumed', /odroid-xu4-1 cold-rare/, /pynq-z1 cold-rare/, /raspberrypi cold-rare/],
    ['Not told apart', /jetson-nano gzip, matrix/],
    ['Unmeasured time', /pynq-z1 3\.40 s, 0\.4 %/],
    ['Unattributed energy', /coral 1\.71 J, 0\.1 %/],
    ['Sensors', /odroid-xu4-1 12 of 812345 conversions saturated/],
    ['Lag not found', /pynq-z1/],
  ]) {
    await panel(title).locator('.items li').first().waitFor();
    const texts = await panel(title).locator('.items li').allInnerTexts();
    assert.equal(texts.length, items.length, title);
    items.forEach((item, i) => assert.match(texts[i], item));
  }
});

const alert = (alertname, severity, node, state = 'firing') => ({
  labels: { alertname, severity, node, instance: node }, state, value: '1', activeAt: new Date(Date.now() - 754_000).toISOString(),
  annotations: { summary: `${alertname} at ${node}.`, description: `What ${alertname} means.`,
    runbook_url: `https://example.org/runbook.md#${alertname.toLowerCase()}` },
});

test('alerts: those that fire, the gravest first, with what to do', async () => {
  await open('cluster');
  await drawn('Power');
  assert.equal(await r.page.locator('.notice').count(), 0);
  hub.kill('coral');
  hub.state.alerts = [
    alert('ModelNotConverged', 'info', 'coral'), alert('MeterSilent', 'warning', 'coral'), alert('MeterSilent', 'warning', 'pynq-z1'),
    alert('InvariantBroken', 'critical', 'coral'), alert('ClockDrift', 'warning', 'coral', 'pending'), alert('WattletAgentDown', 'warning', 'coral'),
  ];
  await see('InvariantBroken at coral.');
  const titles = await r.page.locator('.notice strong[role]').allInnerTexts();
  assert.deepEqual(titles, ['Agent coral is down.', 'InvariantBroken at coral.', '2 alerts MeterSilent', 'ModelNotConverged at coral.']);
  const notice = r.page.locator('.notice', { hasText: 'InvariantBroken' });
  assert.match(await notice.innerText(), /What InvariantBroken means\. Since .*\d\d:\d\d:\d\d, 12 min\./);
  assert.equal(await notice.getByRole('link').getAttribute('href'), 'https://example.org/runbook.md#invariantbroken');
  assert.match(await r.page.locator('.notice', { hasText: '2 alerts' }).innerText(), /MeterSilent at pynq-z1\./);
  hub.state.alerts = null; // a hub that knows of none, not even the page
  await r.page.getByText('InvariantBroken').first().waitFor({ state: 'detached' });
  assert.equal(await r.page.locator('.notice').count(), 1);
});

test('no agents, no functions', async () => {
  hub.state.mode = 'noagents';
  await open('cluster');
  await see('The hub knows no agents.');
  await see('wattctl hub --target');
  hub.state.mode = 'nofunctions';
  await open('functions');
  await see('No functions are known in this range.');
  await open('invocations');
  await see('No functions are known in this range.');
  hub.state.mode = 'nohistograms';
  await r.page.reload();
  await see('scrape_native_histograms');
});

test('a store that was empty fills by itself', async () => {
  hub.state.mode = 'empty';
  await open('cluster');
  await see('There are no samples in this range.');
  hub.state.mode = 'ok';
  await drawn('Power');
});

test('a hub that cannot read its store says why, and recovers', async () => {
  hub.state.mode = 'broken';
  for (const [name, title] of [['functions', 'J per invocation over time'], ['invocations', 'Energy per invocation'], ['cluster', 'Power']]) {
    hub.state.mode = 'broken';
    await open(name);
    await see('no space left on device');
    await r.page.locator('.notice.bad').first().waitFor();
    hub.state.mode = 'ok';
    await drawn(title);
    await r.page.locator('.notice.bad').first().waitFor({ state: 'detached' });
  }
});

test('a hub that ended is missed, and found again', async () => {
  await open('cluster');
  await drawn('Power');
  const port = Number(new URL(hub.url).port);
  await hub.close();
  await see('The hub does not answer.');
  assert.equal(await panel('Energy by node').locator('li').count(), 6); // the last figures stay
  hub = await startFakeHub(port);
  await r.page.getByText('The hub does not answer.').waitFor({ state: 'detached' });
  r.noise.length = 0; // Chromium tells of lost connections as errors of its own
});

test('a hub with no room for another listener still shows what is stored', async () => {
  hub.state.mode = 'full';
  await open('cluster');
  await see('The live stream is interrupted.');
  await drawn('Power');
  assert.equal(await r.page.getByText('The hub does not answer.').count(), 0);
  hub.state.mode = 'ok';
  await see('6 of 6');
  await r.page.getByText('The live stream is interrupted.').waitFor({ state: 'detached' });
});

test('every query that is asked is one that PromQL knows', async () => {
  for (const name of ['cluster', 'functions?node=coral', 'invocations', 'node?node=coral', 'uncertain']) {
    await open(name);
    await settled();
  }
  assert.equal(await r.page.locator('.notice.bad').count(), 0);
  assert.ok(hub.state.queries.length > 20);
});

test('time ranges up to a week, and the present', async () => {
  await open('cluster');
  await drawn('Power');
  for (const [name, seconds] of [['5 min', 300], ['1 h', 3600], ['24 h', 86400], ['7 d', 604800]]) {
    await r.page.getByRole('button', { name, exact: true }).click();
    await r.page.getByText(`Energy in ${{ 300: '5 min', 3600: '1 h', 86400: '1 d', 604800: '7 d' }[seconds]}`).waitFor();
    await drawn('Power');
  }
  await r.page.getByRole('button', { name: 'Live' }).click(); // stops
  await r.page.waitForURL(/from=\d+&to=\d+/);
  await r.page.getByRole('button', { name: 'Live' }).click();
  await r.page.waitForURL(/range=7d$/);
});
