// Every op on the host double: the host-compiled kernels against the float64 definition.
import { describe, test } from 'vitest';
import { registerConformance } from '@lomo/tensor/conformance';
import { tensorOps } from '@lomo/tensor';
import { double } from './double.ts';

describe('tensor ops', () => {
  registerConformance(test, { backend: () => double(), ops: tensorOps, cases: 6 });
});
