// Whole runs of the trainer on the host double: a step never waits for the GPU and makes nothing after the first one; streamed weights and
// boundaries on the host come through pinned memory with the bits of a run that keeps them; a trace costs no bit. Skipped where the double is
// not built.
import { createHash } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { modelSources } from '@lomo/models';
import { Trace } from '@lomo/tensor';
import { fit, openSession, parseRun } from '@lomo/trainer';
import type { RunInput, Session } from '@lomo/trainer';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { cuda } from '@lomo/cuda';
import type { CudaBackend } from '@lomo/cuda';
import { dataFile, modelFolder } from '../../../tools/tiny/folder.ts';
import { isDoubleBuilt, onDouble } from './double.ts';

interface Opened {
  readonly session: Session;
  readonly backend: CudaBackend;
}
const made: Opened[] = [];
afterEach(async () => {
  delete process.env['LOMO_DOUBLE_EAGER'];
  for (const { session, backend } of made.splice(0)) {
    await session.close();
    await backend[Symbol.asyncDispose]();
  }
});

vi.setConfig({ testTimeout: 300_000 });
const double = (): CudaBackend => cuda({ addon: onDouble['LOMO_CUDA_ADDON']!, driver: onDouble['LOMO_CUDA_DRIVER']!, cublasLt: onDouble['LOMO_CUBLASLT']! });

const [model, data] = [modelFolder(), dataFile()];
async function opened(changes: Partial<RunInput> = {}): Promise<Opened> {
  const backend = double();
  const { config } = parseRun({
    model_name_or_path: model, init: 'random', datasets: [{ path: data }], max_seq_length: 16, per_device_train_batch_size: 1, gradient_accumulation_steps: 2,
    max_steps: 4, optim: 'lomo', dtype: 'bf16', learning_rate: 0.1, clip_mode: 'none', lr_scheduler_type: 'constant', warmup_steps: 0,
    output_dir: mkdtempSync(join(tmpdir(), 'lomo-cuda-run-')), save_steps: 100, ...changes,
  });
  const one = { session: await openSession({ config, backend, memory: 2 ** 30 }), backend };
  made.push(one);
  return one;
}

async function digest({ assembly: { model: trained, optimizer, device } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const source of modelSources(trained)) for await (const bytes of source.slices()) hash.update(bytes);
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

async function finished({ session }: Opened, each: (step: number) => void = () => {}): Promise<string> {
  for await (const event of fit(session)) {
    if (event.kind === 'rejected' || event.kind === 'rolled back') throw event.error;
    if (event.kind === 'step') each(event.step);
  }
  return digest(session);
}

describe.skipIf(!isDoubleBuilt)('on the double', () => {
  test('steps 2 to 4: the thread that feeds the queues never waits for the GPU, and nothing is allocated', async () => {
    const one = await opened();
    const counted: { readonly waits: number; readonly allocations: number; readonly launches: number }[] = [];
    await finished(one, () => counted.push(one.backend.counters()));
    const [afterFirst, , , last] = counted;
    expect(counted.length).toBe(4);
    expect([last!.waits - afterFirst!.waits, last!.allocations - afterFirst!.allocations]).toEqual([0, 0]);
    expect(last!.launches - afterFirst!.launches).toBeGreaterThan(300);
  });

  test('streamed, offloaded and both, under early and late queues: the bits of a resident run, without a wait', async () => {
    const shape = { clip_mode: 'global', max_grad_norm: 0.2, clip_by: 'two-pass' } as const;
    const resident = await finished(await opened(shape));
    for (const [eager, ways] of [['0', { stages: 'streamed' }], ['14', { offload: 'file' }], ['0', { stages: 'streamed', offload: 'file' }], ['15', { stages: 'streamed', offload: 'file' }]] as const) {
      process.env['LOMO_DOUBLE_EAGER'] = eager;
      const one = await opened({ ...shape, ...ways });
      let waits = 0;
      expect(await finished(one, (step) => {
        if (step === 1) ({ waits } = one.backend.counters());
      })).toBe(resident);
      expect(one.backend.counters().waits).toBe(waits);
    }
  });

  test('traced: the same bits, every op of the step on the device\'s own clock, no wait within the step', async () => {
    const plain = await finished(await opened({ max_steps: 2 }));
    const one = await opened({ max_steps: 2 });
    const trace = new Trace(one.session.assembly.device);
    const steps = fit(one.session);
    for (let step = 1; step <= 2; step++) {
      const { waits } = one.backend.counters();
      await trace.step(step, () => steps.next());
      expect(one.backend.counters().waits).toBe(waits);
    }
    for await (const _ of steps);
    expect(await digest(one.session)).toBe(plain);
    expect(trace.facts).toMatchObject({ steps: [1, 2], lost: 0 });
    const { traceEvents } = JSON.parse(trace.json()) as { readonly traceEvents: readonly { readonly name: string; readonly cat?: string; readonly dur?: number }[] };
    const kernels = traceEvents.filter(({ cat }) => cat === 'kernel');
    expect(kernels.length).toBe(trace.facts.launches);
    expect(new Set(kernels.map(({ name }) => name))).toEqual(expect.objectContaining(new Set(['matmul', 'attention', 'lomo_update', 'weight_grad'])));
    expect(kernels.every(({ dur }) => dur! > 0)).toBe(true);
  });
});
