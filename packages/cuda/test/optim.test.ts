// The update ops of @lomo/optim on the host double, and bits that must be the CPU's: stochastic rounding is one formula everywhere.
import { describe, test } from 'vitest';
import { registerConformance } from '@lomo/tensor/conformance';
import { optimOps } from '@lomo/optim';
import { double } from './double.ts';

describe('optim ops', () => {
  registerConformance(test, { backend: () => double(), ops: optimOps, cases: 10 });
});
