// The long checks of the workshop, not part of `npm test`: `pnpm test:long`.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: { pool: 'forks', include: ['*/*.long.ts'], testTimeout: 900_000, hookTimeout: 240_000 },
});
