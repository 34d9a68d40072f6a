// How heavy and how quick the built pages are, with 6 boards, 240 functions and 6 h of history, or over the hub at $WATTLET_HUB:
// first paint, frames a second while zooming, and the longest wait for one. Fails beyond what it may cost.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { browse } from './chromium.mjs';
import { weight } from './weight.mjs';

const limits = { weight: 150_000, paint: 1000, frames: 50 };
const [functions, range] = [40, process.env.RANGE ?? '6h'];
const pages = { cluster: 'Power', functions: 'J per invocation over time', node: 'Power of coral', invocations: 'Energy per invocation' };
// A process of its own, as a hub is: what it computes must not hold up the clock of the measurement.
const hub = process.env.WATTLET_HUB ? null : fork(fileURLToPath(new URL('fakehub.mjs', import.meta.url)), ['0', String(functions)],
  { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
const url = hub ? (await once(hub, 'message'))[0] : process.env.WATTLET_HUB;
const browser = await browse();
const failed = [];
const check = (name, value, unit, ok) => {
  console.log(`${name.padEnd(44)} ${value.toFixed(unit === 'kB' ? 1 : 0).padStart(6)} ${unit}${ok ? '' : '   too much'}`);
  if (!ok) failed.push(name);
};

/** Notes the time of each frame; globalThis.frameTimes() tells them. */
const watch = (page) => page.evaluate(() => {
  const times = [];
  const frame = (t) => { times.push(t); requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  globalThis.frameTimes = () => times;
});

try {
  check('page weight, gzip', weight() / 1000, 'kB', weight() <= limits.weight);
  for (const [name, panel] of Object.entries(pages)) {
    const context = await browser.newContext({ viewport: { width: 1360, height: 900 } }); // with nothing cached
    const page = await context.newPage();
    const began = performance.now();
    await page.goto(`${url}#/${name}?range=${range}${name === 'node' ? '&node=coral' : ''}`);
    const settled = () => page.waitForFunction((p) => {
      const s = document.querySelector(`section[aria-label="${p}"]`);
      return s?.getAttribute('aria-busy') === 'false' && s.querySelector('canvas') && !document.querySelector('[aria-busy="true"]');
    }, panel, { polling: 50, timeout: 60_000 });
    await settled();
    const complete = performance.now() - began;
    const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0].startTime);
    check(`${name}: first paint`, paint, 'ms', paint <= limits.paint);
    check(`${name}: all figures there`, complete, 'ms', true);
    const plot = page.locator(`section[aria-label="${panel}"] .plot`);
    await plot.scrollIntoViewIfNeeded();
    const over = page.locator(`section[aria-label="${panel}"] .u-over`);
    await watch(page);
    for (let i = 0; i < 6; i++) {
      const box = await over.boundingBox();
      const y = box.y + box.height / 2;
      const at = (share) => box.x + box.width * share;
      await page.mouse.move(at(0.2), y);
      if (name === 'invocations') { // its axis is no time: read along it, and choose another range
        await page.mouse.move(at(0.8), y, { steps: 30 });
        await page.locator('.time button').nth(3 - (i % 2)).click();
      } else {
        await page.mouse.down();
        await page.mouse.move(at(0.8), y, { steps: 30 });
        await page.mouse.up();
      }
      await settled();
      if (i === 2 && name !== 'invocations') {
        await plot.press('-');
        await settled();
        await plot.press('Escape');
        await settled();
      }
    }
    const frames = await page.evaluate(() => globalThis.frameTimes());
    const seconds = (frames.at(-1) - frames[0]) / 1000;
    const gaps = frames.slice(1).map((t, i) => t - frames[i]);
    check(`${name}: frames a second while zooming`, (frames.length - 1) / seconds, '', (frames.length - 1) / seconds >= limits.frames);
    check(`${name}: longest frame in ${seconds.toFixed(1)} s`, Math.max(...gaps), 'ms', true);
    await context.close();
  }
} finally {
  await browser.close();
  hub?.kill();
}
if (failed.length) {
  console.error(`more than it may cost: ${failed.join('; ')}`);
  process.exit(1);
}
