// One vitest configuration for every package: workspace sources are read through the '@lomo/source' condition, so no build is needed.
import { defineConfig } from 'vitest/config';

// Vite's own server conditions, spelled out: the packages depend on vitest, not on vite, and pnpm resolves only what is declared.
const conditions = ['@lomo/source', 'module', 'node', 'development|production'];

export const shared = defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: { env: { GOMP_SPINCOUNT: '1000' }, pool: 'forks', include: ['test/**/*.test.ts'], testTimeout: 60_000, hookTimeout: 60_000 },
});
