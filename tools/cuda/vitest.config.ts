// Tests on the host double of the driver, which the set-up builds: seconds where nothing changed, a minute or two of one core else. No nvcc.
import { mergeConfig } from 'vitest/config';
import { shared } from '../../vitest.shared.ts';

export default mergeConfig(shared, { test: { globalSetup: ['../../packages/cuda/test/build.ts'], hookTimeout: 600_000, testTimeout: 600_000 } });
