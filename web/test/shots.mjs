// Screenshots of all pages into shots/, to be looked at: light, dark, and as wide as a phone. Of a fake hub, or of the hub at
// $WATTLET_HUB; $RANGE is the time range.
import { mkdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { browse } from './chromium.mjs';
import { startFakeHub } from './fakehub.mjs';

const out = fileURLToPath(new URL('../shots/', import.meta.url));
mkdirSync(out, { recursive: true });
const fake = process.env.WATTLET_HUB ? null : await startFakeHub();
const hub = fake?.url ?? process.env.WATTLET_HUB;
const browser = await browse();
try {
  for (const [look, options] of Object.entries({
    light: { viewport: { width: 1360, height: 900 }, colorScheme: 'light' },
    dark: { viewport: { width: 1360, height: 900 }, colorScheme: 'dark' },
    phone: { viewport: { width: 360, height: 780 }, colorScheme: 'light' },
  })) {
    const page = await browser.newPage(options);
    for (const name of ['cluster', 'functions', 'invocations', 'node?node=odroid-xu4-1', 'uncertain']) {
      await page.goto(`${hub}#/${name}${process.env.RANGE ? `${name.includes('?') ? '&' : '?'}range=${process.env.RANGE}` : ''}`);
      await page.locator('.panel[aria-busy="false"]').first().waitFor();
      await page.waitForFunction(() => !document.querySelector('[aria-busy="true"], .loading'));
      await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
      await page.screenshot({ path: `${out}${look}-${name.split('?')[0]}.png`, fullPage: true });
    }
    await page.close();
  }
} finally {
  await browser.close();
  await fake?.close();
}
