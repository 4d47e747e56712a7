import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  plugins: [svelte()], // runes in *.svelte.ts
  resolve: { conditions: ['browser'] }, // Svelte's server build has no effects
  test: {
    include: ['tests/*.test.ts'],
    environment: './tests/environment.ts',
    server: { deps: { inline: ['svelte'] } },
  },
});
