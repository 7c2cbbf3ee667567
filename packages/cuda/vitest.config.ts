// The tests run on the host double, which the set-up builds (test/build.ts); those of the build itself need nvcc.
import { mergeConfig } from 'vitest/config';
import { shared } from '../../vitest.shared.ts';

export default mergeConfig(shared, { test: { globalSetup: ['./test/build.ts'] } });
