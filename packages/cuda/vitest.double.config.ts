// The tests on the host double. They need `node scripts/build.mjs --double`, which the set-up runs; apart from the workspace's test run.
import { mergeConfig } from 'vitest/config';
import { shared } from '../../vitest.shared.ts';

export default mergeConfig(shared, { test: { globalSetup: ['./test/build.ts'] } });
