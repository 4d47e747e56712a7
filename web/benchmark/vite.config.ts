/** The page that benchmarks/chart.py opens; no part of what is shipped. */
import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  plugins: [svelte({ configFile: '../svelte.config.js' })],
  build: { emptyOutDir: true },
});
