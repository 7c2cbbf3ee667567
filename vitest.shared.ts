// One vitest configuration for every package: workspace sources are read through the '@lomo/source' condition, so no build is needed.
import { defaultServerConditions } from 'vite';
import { defineConfig } from 'vitest/config';

export const shared = defineConfig({
  resolve: { conditions: ['@lomo/source', ...defaultServerConditions] },
  ssr: { resolve: { conditions: ['@lomo/source', ...defaultServerConditions] } },
  test: { pool: 'forks', include: ['test/**/*.test.ts'], testTimeout: 60_000, hookTimeout: 60_000 },
});
