// Fails if the page is heavier than it may be: boards and hubs are reached over slow links.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const most = 150_000;

/** Bytes of dist, compressed. */
export function weight() {
  const dist = fileURLToPath(new URL('../dist', import.meta.url));
  const files = readdirSync(dist, { recursive: true, withFileTypes: true }).filter((f) => f.isFile());
  return files.reduce((sum, f) => sum + gzipSync(readFileSync(join(f.parentPath, f.name))).length, 0);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(`weight: ${(weight() / 1000).toFixed(1)} kB gzip of ${most / 1000}`);
  if (weight() > most) {
    console.error('too heavy: look for what came in with `npx vite build --sourcemap`');
    process.exit(1);
  }
}
