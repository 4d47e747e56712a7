import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';

import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin } from 'vite';

const SERVICE = process.env.SIMULATIONS_URL ?? 'http://localhost:8000'; // what `vite` develops against
const COMPRESSIBLE = /\.(js|css|svg|ttf|json)$/;

/** Lay a .br and a .gz beside each file, for graph to serve as they are: compressing on request would cost it CPU. */
function compressed(): Plugin {
  return {
    name: 'compressed',
    apply: 'build',
    // Of what was written: in the bundle, Vite itself has yet to put the last words in.
    async writeBundle({ dir }, bundle) {
      for (const name of Object.keys(bundle)) {
        if (!COMPRESSIBLE.test(name)) continue;
        const path = join(dir!, name);
        const bytes = await readFile(path);
        const brotli = { params: { [constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } };
        await writeFile(`${path}.br`, await promisify(brotliCompress)(bytes, brotli));
        await writeFile(`${path}.gz`, await promisify(gzip)(bytes, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  plugins: [svelte(), compressed()],
  build: {
    target: 'es2023',
    chunkSizeWarningLimit: 10_000, // GraphiQL's editor, which only its own page loads
    assetsInlineLimit: 0, // the Content-Security-Policy lets nothing inline in
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: { index: 'index.html', graphiql: 'graphiql.html' },
      onLog: (level, log, tell) => {
        if (log.code !== 'MODULE_LEVEL_DIRECTIVE') tell(level, log); // "use client": for servers that render, which we aren't
      },
    },
  },
  // GraphiQL's workers can't be bundled ahead of time; `vite` is for the dashboard.
  optimizeDeps: { entries: ['index.html'], exclude: ['graphiql', '@graphiql/react'] },
  server: { proxy: { '/graphql': { target: SERVICE, ws: true }, '/session': SERVICE } },
});
