import { defineConfig } from 'vite';

// Relative addresses: the hub may sit behind a proxy that gives it a folder of its own.
export default defineConfig({
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: { target: 'es2022', modulePreload: { polyfill: false } },
  // `npm run dev` shows the page with each saved change, over the data of a hub or of `npm run fakehub`.
  server: { proxy: { '/api': process.env['HUB'] ?? 'http://127.0.0.1:9779' } },
});
