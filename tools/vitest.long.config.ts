// The long checks of the workshop, not part of `npm test`: `pnpm test:long`. One file at a time: some take most of the machine's memory.
import { defineConfig } from 'vitest/config';
import { shared } from '../vitest.shared.ts';

export default defineConfig({
  ...shared,
  test: { ...shared.test, include: ['*/*.long.ts'], fileParallelism: false, testTimeout: 900_000, hookTimeout: 240_000 },
});
