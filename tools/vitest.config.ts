// Tests of the workshop itself: arrows, README runner, pack-and-install. Run with `npx vitest run` in tools/.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: { pool: 'forks', include: ['*/*.test.ts'], exclude: ['**/scratch-*/**', '**/node_modules/**'], testTimeout: 240_000, hookTimeout: 240_000 },
});
