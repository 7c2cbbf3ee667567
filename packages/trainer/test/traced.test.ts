// A trace that cannot be written does not cost the run its step.
import type { StepInput, StepResult } from '@lomo/parallel';
import { Device, ReferenceBackend, tensorOps } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { TracedProgram } from '../src/traced.ts';

const result: StepResult = { loss: 1, lossSum: 1, trained: 1, gradNorm: 0, clipCoefficient: 1 };

function input(step: number): StepInput {
  return { batches: [], step, seed: 0, lr: 0, passes: [] };
}

test('a trace that cannot be written is told of once; the step counts and later ones go on untraced', async () => {
  const device = new Device(new ReferenceBackend({ ops: tensorOps }), { bytes: 1024 });
  const ran: number[] = [];
  const program = new TracedProgram({ run: async ({ step }) => (ran.push(step), result) }, device);
  const [written, failures]: [number[], unknown[]] = [[], []];
  program.watch({
    steps: { from: 2, to: 4 },
    write: async (_, { steps }) => {
      written.push(...steps);
      throw new Error('no space left');
    },
    failed: (error) => void failures.push(error),
  });
  for (const step of [1, 2, 3]) expect(await program.run(input(step))).toEqual(result);
  expect([ran, written, failures]).toEqual([[1, 2, 3], [2], [new Error('no space left')]]);
  device.free();
});

test('a step that is rejected stays rejected, whatever becomes of its trace', async () => {
  const device = new Device(new ReferenceBackend({ ops: tensorOps }), { bytes: 1024 });
  const program = new TracedProgram({ run: () => Promise.reject(new Error('rejected')) }, device);
  program.watch({ steps: { from: 1, to: 1 }, write: () => Promise.reject(new Error('no space left')), failed: () => {} });
  await expect(program.run(input(1))).rejects.toThrow('rejected');
  device.free();
});
