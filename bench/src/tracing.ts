// One step of a setup as a Chrome trace.
import { initialise } from '@lomo/models';
import type { Backend } from '@lomo/tensor';
import { Device, Trace } from '@lomo/tensor';
import type { Setup } from './assembly.ts';
import { assemble, batchesOf, planStep, run } from './assembly.ts';

/** Trains two steps and traces the third; the trace's JSON. */
export async function traceOf(backend: Backend, setup: Setup): Promise<string> {
  const plan = await planStep(backend, setup);
  const device = new Device(backend, { bytes: plan.extent });
  const made = assemble(device, setup);
  initialise(made.model, 0);
  const stream = Uint8Array.from({ length: 2 ** 16 }, (_, i) => Math.imul(i, 2654435761) >>> 24);
  const step = (n: number): Promise<number> => run(made, { step: n, lr: 0, batches: batchesOf(setup, stream, n) });
  await step(1);
  await step(2);
  const trace = new Trace(device);
  await trace.step(3, () => step(3));
  device.free();
  return trace.json();
}
