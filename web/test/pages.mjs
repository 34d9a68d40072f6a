// What the pages must do over any hub with functions that run. `everyHub` registers it as tests, over a fake hub and over a real one.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { browse } from './chromium.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const names = ['cluster', 'functions', 'invocations', 'node', 'uncertain'];

/**
 * A reader's eyes and hands. `hub` is {url(), kill(), empty(), patience}: its address; a way to end an agent, which returns its name;
 * the address of one that has stored nothing yet, or null; and how many milliseconds to wait for what is to appear.
 */
export function reader(hub) {
  let browser;
  const r = {
    page: null,
    /** What is wrong whatever else is seen: exceptions, and whatever is asked of anyone but the hub. */
    noise: [],
    home: '',
    open: (hash) => r.page.goto(`${r.home}#/${hash}`),
    see: (text) => r.page.getByText(text).first().waitFor(),
    panel: (name) => r.page.getByRole('region', { name, exact: true }),
    rows: (name) => r.panel(name).locator('tbody tr'),
    /** Waits until a chart has more on it than axes. */
    drawn: (name) => r.page.waitForFunction((label) => {
      const c = document.querySelector(`section[aria-label="${label}"] canvas`);
      if (!c?.width) return false;
      return new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size > 20;
    }, name),
    /** Waits until nothing is being asked. */
    settled: () => r.page.waitForFunction(() => document.querySelector('.panel') && !document.querySelector('[aria-busy="true"], .loading')),
    /** Waits until so many rows are there. */
    count: (name, n) => r.page.waitForFunction(
      ([label, want]) => document.querySelectorAll(`section[aria-label="${label}"] tbody tr`).length === want, [name, n]),
    /** The cells of one column; all of one moment, so compare nothing of two calls while figures move. */
    cells: (name, column) => r.rows(name).locator(`:scope > :nth-child(${column})`).allInnerTexts(),
    /** The file that a button saves. */
    saved: async (button) => {
      const [download] = await Promise.all([r.page.waitForEvent('download'), r.page.getByRole('button', { name: button, exact: true }).click()]);
      return { name: download.suggestedFilename(), bytes: readFileSync(await download.path()) };
    },
    /** Ends the live tail: from then on the page shows one stretch of time, and its figures stand still. */
    pause: async () => {
      await r.page.getByRole('button', { name: 'Live' }).click();
      await r.page.waitForURL(/from=\d+&to=\d+/);
      await r.settled();
    },
    zoom: () => { const q = new URLSearchParams(r.page.url().split('?')[1]); return [Number(q.get('from')), Number(q.get('to'))]; },
  };
  before(async () => { browser = await browse(); });
  after(() => browser.close());
  beforeEach(async () => {
    r.home = hub.url();
    r.page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    r.page.setDefaultTimeout(hub.patience ?? 30_000);
    r.noise.length = 0;
    r.page.on('pageerror', (e) => r.noise.push(String(e)));
    r.page.on('request', (q) => { if (!/^(data|blob):/.test(q.url()) && !q.url().startsWith(r.home)) r.noise.push(`asks ${q.url()}`); });
  });
  afterEach(async () => {
    await r.page.close();
    assert.deepEqual(r.noise, []);
  });
  return r;
}

/** Registers the tests that any hub must pass. */
export function everyHub(hub, r) {
  const { open, see, panel, rows, drawn, settled, count, cells, saved, pause, zoom } = r;

  test('cluster: moving figures', async () => {
    await open('cluster?range=5m');
    for (const name of ['Power', 'Energy of the last 15 s', 'Current']) await drawn(name);
    const boards = await rows('Meters').count();
    assert.ok(boards > 0);
    assert.equal(await panel('Energy by node').locator('li').count(), boards);
    await see(`${boards} of ${boards}`);
    const power = r.page.locator('.tile dd').first();
    const was = await power.innerText();
    assert.match(was, /^\d+(\.\d+)? m?W/);
    await r.page.waitForFunction((w) => document.querySelector('.tile dd').innerText !== w, was);
  });

  test('functions: filter, sort by keyboard, policy, all in the link', async () => {
    await open('functions?range=5m');
    await rows('Functions').first().waitFor();
    await pause();
    const known = await cells('Functions', 1);
    const [name, all] = [known[0], known.length];
    const these = known.filter((x) => x === name).length;
    await r.page.getByLabel('Function', { exact: true }).fill(name);
    await count('Functions', these);
    await r.page.getByLabel('Base shared').selectOption('proportional');
    await see('Base share, proportional');
    // Tab leads from the filters to the heads of the table, Enter sorts.
    const head = panel('Functions').getByRole('button', { name: 'Invocations', exact: true });
    const focused = () => head.evaluate((e) => e === document.activeElement);
    for (let i = 0; i < 20 && !await focused(); i++) await r.page.keyboard.press('Tab');
    assert.ok(await focused(), 'the head is reached');
    const inOrder = async (way, compare) => {
      await panel('Functions').locator(`[aria-sort="${way}"]`, { hasText: 'Invocations' }).waitFor();
      const invocations = (await cells('Functions', 4)).map((x) => Number(x.replaceAll(/\D/g, '')));
      assert.equal(invocations.length, these);
      assert.deepEqual(invocations, [...invocations].sort(compare));
    };
    await r.page.keyboard.press('Enter');
    await inOrder('descending', (a, b) => b - a);
    await r.page.keyboard.press('Enter');
    await inOrder('ascending', (a, b) => a - b);
    const link = r.page.url();
    assert.match(link, /filter=.*&policy=proportional&sort=invocations$/);
    await r.page.goto('about:blank');
    await r.page.goto(link);
    await count('Functions', these);
    await inOrder('ascending', (a, b) => a - b);
    await r.page.getByLabel('Function', { exact: true }).fill('no such');
    await r.page.getByRole('button', { name: 'Show all' }).click();
    await count('Functions', all);
    await drawn('J per invocation over time');
  });

  test('invocations: distributions of up to four, in the link', async () => {
    await open('functions?range=5m');
    await rows('Functions').first().waitFor();
    await open('invocations?range=5m');
    await drawn('Energy per invocation');
    await pause();
    const on = () => panel('Invocations').locator('input:checked').count();
    const at = await on();
    assert.ok(at >= 1 && at <= 4);
    const boxes = panel('Invocations').locator('input:not(:checked)');
    const more = Math.min(4 - at, await boxes.count());
    for (let i = 0; i < more; i++) await panel('Invocations').locator('input:not(:checked)').first().press('Space');
    assert.equal(await on(), at + more);
    assert.equal(await panel('Energy per invocation').locator('.legend button').count(), at + more);
    if (at + more === 4) assert.equal(await boxes.count(), await panel('Invocations').locator('input:not(:checked):disabled').count());
    const link = r.page.url();
    await r.page.goto('about:blank');
    await r.page.goto(link);
    await drawn('Energy per invocation');
    assert.equal(await on(), at + more);
    // Means lie within what is drawn, and percentiles are in order.
    for (const row of await rows('Invocations').all()) {
      const texts = await row.locator(':scope > *').allInnerTexts();
      const [p50, p90, p99] = texts.slice(4, 7).map(joules);
      for (const [low, high] of [[p50, p90], [p90, p99]]) assert.ok(!(low > high), texts.join());
    }
    // Shares of the drawn functions sum to one.
    await panel('Energy per invocation').getByRole('button', { name: 'Energy per invocation as a table' }).waitFor();
    const lines = (await saved('Energy per invocation as CSV')).bytes.toString().trim().split('\r\n').slice(1).map((l) => l.split(',').map(Number));
    const sums = Array.from({ length: at + more }, (_, k) => lines.reduce((s, l) => s + l[k + 1], 0));
    // What nobody invoked has none; what drew nothing is not on the axis.
    assert.ok(sums.every((s) => s === 0 || (s > 0.9 && s < 1.000001)) && sums.some((s) => s > 0), `shares sum to ${sums}`);
    await panel('Energy per invocation').locator('.plot').focus();
    await r.page.keyboard.press('Home');
    assert.match(await panel('Energy per invocation').locator('.at').innerText(), /J to .*J/);
  });

  test('node: parts, model, clock', async () => {
    await open('node?range=5m');
    const node = await r.page.getByRole('combobox', { name: 'Node' }).inputValue();
    for (const name of [`Power of ${node}`, 'Model']) await drawn(name);
    await rows('Energy by workload').first().waitFor();
    for (const tile of ['Idle board', 'Per busy core', 'Power follows load by']) await see(tile);
    const nodes = await r.page.getByRole('combobox', { name: 'Node' }).locator('option').allInnerTexts();
    const other = nodes.find((n) => n !== node && n !== 'coral'); // whose fake has no frequencies
    if (other) {
      await r.page.getByRole('combobox', { name: 'Node' }).selectOption(other);
      await drawn(`Power of ${other}`);
      assert.match(r.page.url(), new RegExp(`node=${other}`));
      await drawn('Clock frequency');
      assert.match(await panel('Clock frequency').locator('.legend').innerText(), /cores/);
    }
  });

  test('uncertain: every question has an answer', async () => {
    await open('uncertain?range=5m');
    await settled();
    for (const title of ['Agents and meters down', 'Mostly assumed', 'Not told apart', 'Unmeasured time', 'Unattributed energy', 'Sensors',
      'Lag not found']) {
      assert.equal(await panel(title).locator('.items li, .fine, .empty').count() > 0, true, title);
    }
  });

  test('zoom by dragging, and back', async () => {
    await open('cluster?range=1h');
    await drawn('Power');
    const box = await r.page.locator('.u-over').first().boundingBox();
    await r.page.mouse.move(box.x + box.width * 0.75, box.y + 60);
    await r.page.mouse.down();
    await r.page.mouse.move(box.x + box.width, box.y + 60, { steps: 4 });
    await r.page.mouse.up();
    await r.page.waitForURL(/from=\d+&to=\d+/);
    const [from, to] = zoom();
    assert.ok(Math.abs(to - from - 900) < 30, `a quarter of an hour, not ${to - from} s`);
    await see('Back to now');
    assert.equal(await r.page.getByRole('button', { name: 'Live' }).getAttribute('aria-pressed'), 'false');
    await drawn('Power');
    // Another page stays in the same time; the browser's way back leads out of it.
    await r.page.getByRole('link', { name: 'Functions', exact: true }).click();
    await rows('Functions').first().waitFor();
    assert.deepEqual(zoom(), [from, to]);
    await r.page.goBack();
    await r.page.goBack();
    await r.page.waitForURL(/cluster\?range=1h$/);
  });

  test('keyboard alone: skip, read, zoom, move, return, hide a series', async () => {
    await open('cluster?range=5m');
    await drawn('Power');
    await r.page.keyboard.press('Tab');
    assert.equal(await r.page.evaluate(() => document.activeElement.textContent), 'To the figures');
    await r.page.keyboard.press('Enter');
    assert.equal(await r.page.evaluate(() => document.activeElement.id), 'main');
    const plot = panel('Power').locator('.plot');
    const focused = () => plot.evaluate((e) => e === document.activeElement);
    for (let i = 0; i < 10 && !await focused(); i++) await r.page.keyboard.press('Tab');
    assert.ok(await focused(), 'the chart is reached');
    assert.notEqual(await plot.evaluate((e) => getComputedStyle(e).outlineStyle), 'none');
    const time = () => panel('Power').locator('.at').innerText();
    const now = await time();
    await r.page.keyboard.press('ArrowLeft');
    await r.page.keyboard.press('ArrowLeft');
    assert.notEqual(await time(), now);
    await r.page.keyboard.press('+');
    await r.page.waitForURL(/from=/);
    const [from, to] = zoom();
    await plot.focus();
    await r.page.keyboard.press('Shift+ArrowLeft');
    await r.page.waitForFunction((f) => Number(new URLSearchParams(location.hash.split('?')[1]).get('from')) < f, from);
    assert.ok(Math.abs(zoom()[1] - zoom()[0] - (to - from)) <= 5, 'as long as before');
    await plot.focus();
    await r.page.keyboard.press('Escape');
    await r.page.waitForURL(/#\/cluster\?range=5m$/);
    const series = panel('Power').locator('.legend button').first();
    await series.focus();
    await r.page.keyboard.press('Enter');
    assert.equal(await series.getAttribute('aria-pressed'), await panel('Power').locator('.legend button').count() > 1 ? 'false' : 'true');
  });

  test('CSV of a chart and of a table, PNG of a chart and of bars', async () => {
    await open('functions?range=5m');
    await rows('Functions').first().waitFor();
    await pause();
    const lines = (file) => file.bytes.toString().trim().split('\r\n');
    const table = await saved('Functions as CSV');
    assert.equal(table.name, 'wattlet-functions.csv');
    assert.equal(lines(table).length, 1 + await rows('Functions').count());
    assert.match(lines(table)[0],
      /^function,node,joules per invocation,joules per invocation low95,joules per invocation high95,invocations,active energy \(J\)/);
    assert.match(lines(table)[1], /^[\w-]+,[\w-]+,\d/);
    await drawn('J per invocation over time');
    const chart = await saved('J per invocation over time as CSV');
    assert.match(lines(chart)[1], /^\d{4}-\d\d-\d\dT.*Z,/);
    assert.ok(lines(chart).length > 50);
    for (const title of ['J per invocation over time', 'J per invocation']) {
      const png = await saved(`${title} as PNG`);
      assert.equal(png.name, `wattlet-${title.replaceAll(' ', '-').toLowerCase()}.png`);
      assert.deepEqual([...png.bytes.subarray(0, 8)], [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
      const seen = await r.page.evaluate(async (src) => {
        const image = new Image();
        image.src = src;
        await image.decode();
        const c = document.createElement('canvas').getContext('2d');
        [c.canvas.width, c.canvas.height] = [image.width, image.height];
        c.drawImage(image, 0, 0);
        // Dark pixels in the head, where title and period are; colours of any kind below it.
        const head = c.getImageData(0, 0, image.width, 100).data;
        const body = new Uint32Array(c.getImageData(0, 100, image.width, image.height - 100).data.buffer);
        return { width: image.width, dark: head.filter((x, i) => i % 4 === 0 && x < 100).length, colors: new Set(body).size };
      }, `data:image/png;base64,${png.bytes.toString('base64')}`);
      assert.equal(seen.width, 1864);
      assert.ok(seen.dark > 300, `title and period are drawn: ${JSON.stringify(seen)}`);
      assert.ok(seen.colors > 20, `content is drawn: ${JSON.stringify(seen)}`);
    }
  });

  test('nothing moves for who asked for that', async () => {
    await r.page.emulateMedia({ reducedMotion: 'reduce' });
    for (const name of names) {
      await open(`${name}?range=5m`);
      await settled();
      const moving = await r.page.evaluate(() => document.getAnimations()
        .filter((a) => a.playState === 'running' && a.effect.getComputedTiming().duration > 0).length);
      assert.equal(moving, 0, name);
    }
  });

  for (const [look, colorScheme, width] of [['light', 'light', 1280], ['dark', 'dark', 1280], ['phone', 'light', 360], ['dark phone', 'dark', 360]]) {
    test(`accessible and within its width: ${look}`, async () => {
      await r.page.setViewportSize({ width, height: 844 });
      await r.page.emulateMedia({ colorScheme });
      for (const name of names) {
        await open(`${name}?range=5m`);
        await settled();
        await r.page.locator('.time [aria-pressed="true"]').first().hover(); // what is pressed must be read while it is pointed at, too
        await r.page.evaluate(axe);
        const found = await r.page.evaluate(() => globalThis.axe.run(
          { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }));
        assert.deepEqual(found.violations.map((v) => `${name}: ${v.id} ${v.nodes[0].html} ${v.nodes[0].failureSummary}`), []);
        const over = await r.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(over <= 0, `${name} is ${over} px too wide`);
      }
    });
  }

  test('an empty store says how it fills', async (t) => {
    const url = await hub.empty();
    if (!url) return t.skip('needs a hub without samples: set WATTLET_EMPTY_HUB, or build bin/wattctl');
    r.home = url;
    for (const name of ['cluster', 'functions', 'invocations', 'node']) {
      await open(name);
      await see('There are no samples in this range.');
    }
    return undefined;
  });

  test('a killed agent is named, its old figures stay', async (t) => {
    await open('cluster?range=5m');
    await drawn('Power');
    const boards = await panel('Energy by node').locator('li').count();
    const name = await hub.kill();
    if (!name) return t.skip('with WATTLET_HUB it needs a way to end an agent: WATTLET_KILL="NAME=COMMAND"');
    await r.page.locator('.notice.bad li', { hasText: name }).waitFor();
    await see('connection refused');
    await see('agent down');
    assert.equal(await panel('Energy by node').locator('li').count(), boards);
    return undefined;
  });
}

/** A value of the page in joules; undefined where there is none. */
function joules(text) {
  const m = /^([\d.]+) ([kmµn]?)J$/.exec(text.trim());
  return m ? Number(m[1]) * { k: 1e3, '': 1, m: 1e-3, µ: 1e-6, n: 1e-9 }[m[2]] : undefined;
}
