// Every op of @lomo/tensor and @lomo/optim on the host double: the host-compiled kernels against the float64 definition, with the threads
// of a block in several orders. `pnpm test:sanitized` runs this file under the address and undefined-behaviour sanitizers.
import { optimOps } from '@lomo/optim';
import { tensorOps } from '@lomo/tensor';
import { registerConformance } from '@lomo/tensor/conformance';
import { afterEach, beforeEach, describe, test } from 'vitest';
import { double } from './double.ts';

const ops = [...tensorOps, ...optimOps];

// 0: warp after warp; 1: from the last one down; others at random, blocks too.
describe.each([
  { schedule: '0', cases: 6 },
  { schedule: '1', cases: 2 },
  { schedule: '20', cases: 2 },
])('schedule $schedule', ({ schedule, cases }) => {
  beforeEach(() => {
    process.env['LOMO_DOUBLE_SEED'] = schedule;
  });
  afterEach(() => {
    delete process.env['LOMO_DOUBLE_SEED'];
  });
  registerConformance(test, { backend: () => double(), ops, cases, seed: 1 + 100 * Number(schedule) });
});
