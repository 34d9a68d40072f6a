// The built pages in a real browser, over a fake hub that is broken in the ways a hub and its agents break.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { browse } from './chromium.mjs';
import { startFakeHub } from './fakehub.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let browser, hub, page, noise;

before(async () => { browser = await browse(); });
after(() => browser.close());
beforeEach(async () => {
  hub = await startFakeHub();
  page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(10_000);
  noise = [];
  page.on('pageerror', (e) => noise.push(String(e)));
  page.on('request', (r) => { if (!/^(data|blob):/.test(r.url()) && !r.url().startsWith(hub.url)) noise.push(`asks ${r.url()}`); });
});
afterEach(async () => {
  await page.close();
  await hub.close().catch(() => undefined); // a test may have ended it
  assert.deepEqual(noise, []);
});

const open = (hash) => page.goto(`${hub.url}#/${hash}`);
const see = (text) => page.getByText(text).first().waitFor();
const panel = (name) => page.getByRole('region', { name, exact: true });
const rows = (name) => panel(name).locator('tbody tr');
const drawn = (name) => page.waitForFunction((label) => {
  const c = document.querySelector(`section[aria-label="${label}"] canvas`);
  if (!c || !c.width) return false;
  const seen = new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer));
  return seen.size > 20;
}, name);

test('cluster: six boards, moving', async () => {
  await open('cluster');
  for (const name of ['Power', 'Energy of the last 15 s', 'Current']) await drawn(name);
  assert.equal(await panel('Energy by node').locator('li').count(), 6);
  assert.equal(await rows('Meters').count(), 6);
  await see('6 of 6');
  // pynq-z1 measures no current: its series is missing, not zero.
  assert.equal(await panel('Current').locator('.legend button').count(), 5);
  const power = page.locator('.tile dd').first();
  const was = await power.innerText();
  assert.match(was, /^\d+\.\d W/);
  await page.waitForFunction((w) => document.querySelector('.tile dd').innerText !== w, was);
});

test('functions: sort, filter, policy, all in the link', async () => {
  await open('functions');
  await rows('Functions').first().waitFor();
  assert.equal(await rows('Functions').count(), 27);
  await page.getByLabel('Function', { exact: true }).fill('gzip');
  await page.waitForFunction(() => document.querySelectorAll('section[aria-label="Functions"] tbody tr').length === 3);
  await page.getByLabel('Base shared').selectOption('proportional');
  await see('Base share, proportional');
  await page.getByRole('button', { name: 'J per invocation', exact: true }).click();
  const first = () => rows('Functions').first().locator('td').first().innerText();
  assert.equal(await first(), 'odroid-xu4-1');
  await page.getByRole('button', { name: 'J per invocation', exact: true }).click();
  await page.waitForFunction(() => document.querySelector('section[aria-label="Functions"] tbody td').innerText === 'odroid-xu4-2');
  const link = page.url();
  assert.match(link, /filter=gzip&policy=proportional&sort=mean$/);
  await page.goto('about:blank');
  await page.goto(link);
  await rows('Functions').first().waitFor();
  assert.equal(await rows('Functions').count(), 3);
  assert.equal(await first(), 'odroid-xu4-2');
  await page.getByLabel('Function', { exact: true }).fill('no such');
  await page.getByRole('button', { name: 'Show all' }).click();
  await page.waitForFunction(() => document.querySelectorAll('section[aria-label="Functions"] tbody tr').length === 27);
});

test('node: parts sum to the measured power', async () => {
  await open('node?node=odroid-xu4-1');
  await drawn('Power of odroid-xu4-1');
  await drawn('Model');
  const parts = await panel('Power of odroid-xu4-1').getByRole('button', { name: 'Power of odroid-xu4-1 as a table' });
  await parts.click();
  const text = await panel('Power of odroid-xu4-1').locator('tbody tr').nth(3).locator('td').allInnerTexts();
  const scale = { W: 1, mW: 1e-3, µW: 1e-6 };
  const watts = text.map((t) => { const [x, unit] = t.split(' '); return Number(x) * scale[unit]; });
  const time = await panel('Power of odroid-xu4-1').locator('tbody tr').nth(3).locator('th').innerText();
  await open('cluster');
  await drawn('Power');
  await page.getByRole('button', { name: 'Power as a table' }).click();
  const row = panel('Power').locator('tbody tr', { hasText: time });
  const [node, unit] = (await row.locator('td').nth(2).innerText()).split(' ');
  const sum = watts.reduce((a, b) => a + b, 0);
  assert.ok(Math.abs(sum - Number(node) * scale[unit]) < 0.02, `${sum} W of parts, ${node} ${unit} measured`);
  await open('node');
  await page.getByRole('combobox', { name: 'Node' }).selectOption('pynq-z1');
  await see('Power of pynq-z1');
  await see('not found'); // the lag
  assert.match(page.url(), /node=pynq-z1/);
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

test('zoom by dragging, and back', async () => {
  await open('cluster?range=1h');
  await drawn('Power');
  const over = page.locator('.u-over').first();
  const box = await over.boundingBox();
  await page.mouse.move(box.x + box.width * 0.25, box.y + 60);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.5, box.y + 60, { steps: 4 });
  await page.mouse.up();
  await page.waitForURL(/from=\d+&to=\d+/);
  const zoom = () => { const q = new URLSearchParams(page.url().split('?')[1]); return [Number(q.get('from')), Number(q.get('to'))]; };
  const [from, to] = zoom();
  assert.ok(Math.abs(to - from - 900) < 30, `a quarter of an hour, not ${to - from} s`);
  await see('Back to now');
  assert.equal(await page.getByRole('button', { name: 'Live' }).getAttribute('aria-pressed'), 'false');
  // Another page stays in the same time; the browser's way back leads out of it.
  await page.getByRole('link', { name: 'Functions' }).click();
  await rows('Functions').first().waitFor();
  assert.deepEqual(zoom(), [from, to]);
  await page.goBack();
  await page.goBack();
  await page.waitForURL(/cluster\?range=1h$/);
});

test('keyboard: read, zoom, return, hide a series', async () => {
  await open('cluster');
  await drawn('Power');
  const plot = panel('Power').locator('.plot');
  await plot.focus();
  const time = () => panel('Power').locator('.at').innerText();
  const now = await time();
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('ArrowLeft');
  assert.notEqual(await time(), now);
  await page.keyboard.press('+');
  await page.waitForURL(/from=/);
  await plot.focus();
  await page.keyboard.press('Escape');
  await page.waitForURL(/#\/cluster$/);
  const series = panel('Power').getByRole('button', { name: /^coral/ });
  await series.focus();
  await page.keyboard.press('Enter');
  assert.equal(await series.getAttribute('aria-pressed'), 'false');
});

test('CSV of a chart and of a table', async () => {
  await open('functions');
  await rows('Functions').first().waitFor();
  const save = async (name) => {
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name, exact: true }).click()]);
    return { name: download.suggestedFilename(), lines: readFileSync(await download.path(), 'utf8').trim().split('\r\n') };
  };
  const table = await save('Functions as CSV');
  assert.equal(table.name, 'wattlet-functions.csv');
  assert.equal(table.lines.length, 28);
  assert.match(table.lines[0], /^function,node,joules per invocation,invocations,active energy \(J\)/);
  assert.match(table.lines[1], /^[\w-]+,[\w-]+,\d/);
  const chart = await save('J per invocation over time as CSV');
  assert.match(chart.lines[1], /^\d{4}-\d\d-\d\dT.*Z,/);
  assert.ok(chart.lines.length > 100);
});

test('a killed agent is named, its old figures stay, the others go on', async () => {
  await open('cluster');
  await see('6 of 6');
  hub.kill('coral');
  await see('Agent coral is down.');
  await see('connect: connection refused');
  await see('5 of 6');
  await see('agent down');
  assert.equal(await panel('Energy by node').locator('li').count(), 6);
});

test('an empty store says how it fills', async () => {
  hub.state.mode = 'empty';
  for (const name of ['cluster', 'functions', 'node']) {
    await open(name);
    await see('There are no samples in this range.');
  }
  hub.state.mode = 'ok';
  await open('cluster');
  await drawn('Power'); // by itself, with the next refresh
});

test('no agents, no functions', async () => {
  hub.state.mode = 'noagents';
  await open('cluster');
  await see('The hub knows no agents.');
  await see('wattctl hub --target');
  hub.state.mode = 'nofunctions';
  await open('functions');
  await see('No functions are known in this range.');
});

test('a hub that cannot read its store says why, and recovers', async () => {
  hub.state.mode = 'broken';
  await open('cluster');
  await see('no space left on device');
  await page.locator('.notice.bad').first().waitFor();
  hub.state.mode = 'ok';
  await drawn('Power');
  assert.equal(await page.locator('.notice.bad').count(), 0);
});

test('a hub that ended is missed, and found again', async () => {
  await open('cluster');
  await drawn('Power');
  const port = Number(new URL(hub.url).port);
  await hub.close();
  await see('The hub does not answer.');
  assert.equal(await panel('Energy by node').locator('li').count(), 6); // the last figures stay
  hub = await startFakeHub(port);
  await page.getByText('The hub does not answer.').waitFor({ state: 'detached' });
  noise.length = 0; // Chromium tells of lost connections as errors of its own
});

test('a hub with no room for another listener still shows what is stored', async () => {
  hub.state.mode = 'full';
  await open('cluster');
  await see('The live stream is interrupted.');
  await drawn('Power');
  assert.equal(await page.getByText('The hub does not answer.').count(), 0);
  hub.state.mode = 'ok';
  await see('6 of 6');
  await page.getByText('The live stream is interrupted.').waitFor({ state: 'detached' });
});

test('every query that is asked is one that PromQL knows', async () => {
  for (const name of ['cluster', 'functions?node=coral', 'node?node=coral', 'uncertain']) {
    await open(name);
    await page.waitForFunction(() => document.querySelector('.panel') && !document.querySelector('[aria-busy="true"], .loading'));
  }
  assert.equal(await page.locator('.notice.bad').count(), 0);
  assert.ok(hub.state.queries.length > 20);
});

for (const [look, colorScheme, width] of [['light', 'light', 1280], ['dark', 'dark', 1280], ['phone', 'light', 390]]) {
  test(`accessible and within its width: ${look}`, async () => {
    await page.setViewportSize({ width, height: 844 });
    await page.emulateMedia({ colorScheme });
    hub.kill('coral');
    for (const name of ['cluster', 'functions', 'node', 'uncertain']) {
      await open(name);
      await page.waitForFunction(() => document.querySelector('.panel') && !document.querySelector('[aria-busy="true"], .loading'));
      await page.evaluate(axe);
      const found = await page.evaluate(() => globalThis.axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'] }));
      assert.deepEqual(found.violations.map((v) => `${name}: ${v.id} ${v.nodes[0].html} ${v.nodes[0].failureSummary}`), []);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(over <= 0, `${name} is ${over} px too wide`);
    }
  });
}
