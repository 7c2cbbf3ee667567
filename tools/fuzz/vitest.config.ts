// A heap of 512 MiB: whatever a reader does with hostile bytes, it does in that.
import { mergeConfig } from 'vitest/config';
import { shared } from '../../vitest.shared.ts';

export default mergeConfig(shared, { test: { execArgv: ['--max-old-space-size=512'], testTimeout: 600_000 } });
