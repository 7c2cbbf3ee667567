// Every op that training and sampling launch, on the CPU backend, against its float64 definition.
import { cpu } from '@lomo/cpu';
import { optimOps } from '@lomo/optim';
import { tensorOps } from '@lomo/tensor';
import { conformance, registerConformance } from '@lomo/tensor/conformance';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const ops = [...tensorOps, ...optimOps];

describe('cpu', () => registerConformance(test, { backend: () => cpu({ threads: 2 }), ops, cases: 40 }));

// The plainest kernels and one thread: the same definitions, another instruction set.
describe('cpu, portable', () => registerConformance(test, { backend: () => cpu({ threads: 1, isa: 'portable' }), ops, cases: 10, seed: 5000 }));

// Other shapes and values: the same in every run, so that nobody's change fails for another's seed. `pnpm test:long` draws new ones.
test('cpu: many other seeds', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1_000_000, max: 2 ** 30 }), async (seed) => {
      const rows = await conformance({ backend: () => cpu({ threads: 2 }), ops, cases: 2, seed });
      expect(rows.flatMap((row) => row.failures.map(({ seed: at, message }) => `${row.op} ${row.dtype}, seed ${at}: ${message}`))).toEqual([]);
    }),
    // Two that once failed: a NaN that the definition asks for; rows of one column, whose gradient cancels.
    { seed: 4, numRuns: 6, examples: [[283114172], [267633702]] },
  );
});
