// The plugin as a run meets it: trained, saved, opened again, generating; its gradient against finite differences.
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createModel, generate, initialise, loadModel, saveModel } from '@lomo/models';
import { optimOps } from '@lomo/optim';
import { Program } from '@lomo/parallel';
import type { HostBatch, ProgramPass } from '@lomo/parallel';
import { Device, Random, ReferenceBackend, tensorOps } from '@lomo/tensor';
import type { Backend } from '@lomo/tensor';
import { fit, openModel, openSession, parseRun } from '@lomo/trainer';
import { loadPlugins, openBackend } from 'lomo';
import { expect, test } from 'vitest';
import { families } from '../src/index.ts';
import { config, tinyRun } from './tiny.ts';

const prompt = [1, 7, 10];

async function written(model: Parameters<typeof generate>[0]): Promise<number[]> {
  const ids: number[] = [];
  for await (const id of generate(model, prompt, { maxNewTokens: 6, stop: [] })) ids.push(id);
  return ids;
}

/** Trains a run as `lomo train` does; opens what it saved as `lomo generate` does. */
async function roundTrip(backend: Backend): Promise<{ losses: number[]; before: number[]; after: number[] }> {
  const { config: run } = parseRun(tinyRun({ max_steps: 40 }));
  const plugins = await loadPlugins(run.plugins);
  const session = await openSession({ config: run, backend, memory: 2 ** 28, ...plugins });
  expect(session.assembly.model.config.modelType).toBe('parallel_llama');
  const losses: number[] = [];
  let folder = '';
  for await (const event of fit(session)) {
    if (event.kind === 'step') losses.push(event.loss);
    if (event.kind === 'saved') folder = event.path;
  }
  const before = await written(session.assembly.model);
  await session.close();
  await using opened = await openModel(folder, { backend, families: plugins.families, text: { prompt: prompt.length, fresh: 6 } });
  const after = await written(opened.model);
  return { losses, before, after };
}

test('trains, saves, loads and generates, on the definition and on the CPU kernels alike', async () => {
  const run = async (name: 'cpu' | 'reference') => {
    const { backend } = await openBackend(name, { threads: 1 });
    await using _closing = backend;
    return await roundTrip(backend);
  };
  const [reference, cpu] = await Promise.all([run('reference'), run('cpu')]);
  for (const { losses, before, after } of [reference, cpu]) {
    expect(losses[0]).toBeGreaterThan(3.2);
    expect(losses[39]).toBeLessThan(2.2);
    expect(after).toEqual(before);
  }
  cpu.losses.forEach((loss, i) => expect(loss).toBeCloseTo(reference.losses[i]!, 3));
});

const tokens = 16;
const segment = 8;

function batch(): HostBatch {
  const ids = Int32Array.from(new Random(5).ints(tokens, config.vocab_size));
  return {
    tokens: ids,
    targets: ids.map((_, t) => (t % segment === segment - 1 ? -100 : ids[t + 1]!)),
    positions: ids.map((_, t) => t % segment),
    starts: Int32Array.from([0, segment, tokens]),
  };
}

test('the gradient of every parameter is the slope of the loss', async () => {
  const device = new Device(new ReferenceBackend({ ops: [...tensorOps, ...optimOps] }), { bytes: 2 ** 22 });
  const model = createModel({ ...config, initializer_range: 0.3 }, device, { families });
  initialise(model, 3);
  const program = new Program(device, model, { tokens, maxSegments: 2, maxLength: segment, microBatches: 1 });
  const gradients = new Map<string, Promise<Float64Array>>();
  const collect: ProgramPass = {
    name: 'collect',
    settle: (p, g) => {
      using whole = g.value();
      gradients.set(p.path, device.readNumbers(whole));
    },
    finish: () => {},
  };
  await program.run({ step: 1, seed: 0, lr: 0, batches: [batch()], passes: [collect] });
  expect([...gradients.keys()].toSorted()).toEqual(model.parameters.map((p) => p.path).toSorted());
  const random = new Random(11);
  for (const p of model.parameters) {
    const [values, gradient] = [await device.readNumbers(p), await gradients.get(p.path)!];
    const drawn = random.normal(values.length);
    const length = Math.hypot(...drawn);
    const direction = drawn.map((x) => x / length);
    const loss = async (h: number): Promise<number> => {
      device.writeNumbers(p, values.map((x, i) => x + h * direction[i]!));
      return (await program.evaluate([batch()])).loss;
    };
    const h = 2 ** -7;
    const slope = ((await loss(h)) - (await loss(-h))) / (2 * h);
    device.writeNumbers(p, values);
    // The loss is read as f32: its last bit moves the slope by 2e-5.
    expect(gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0), p.path).toBeCloseTo(slope, 4);
  }
});

test('a field that the family does not know is refused', () => {
  const device = new Device(new ReferenceBackend({ ops: tensorOps }), { bytes: 2 ** 20 });
  expect(() => createModel({ ...config, use_parallel_residual: false }, device, { families })).toThrow(/use_parallel_residual/);
});

test('a folder that saveModel wrote loads by its model_type alone', async () => {
  const device = new Device(new ReferenceBackend({ ops: tensorOps }), { bytes: 2 ** 22 });
  const fresh = createModel(config, device, { families });
  initialise(fresh, 9);
  const folder = join(mkdtempSync(join(tmpdir(), 'lomo-parallel-')), 'model');
  await saveModel(fresh, folder);
  const loaded = await loadModel(folder, device, { families });
  expect(await written(loaded)).toEqual(await written(fresh));
  await expect(loadModel(folder, device)).rejects.toMatchObject({ code: 'UnsupportedConfig' });
});
