// The plugin as a run meets it, and the rule against its textbook form.
import { createModel, initialise } from '@lomo/models';
import type { LanguageModel } from '@lomo/models';
import { Optimizer, optimOps } from '@lomo/optim';
import { Program } from '@lomo/parallel';
import type { HostBatch, ProgramPass } from '@lomo/parallel';
import { Dense, Device, Grad, Random, ReferenceBackend, tensorOps } from '@lomo/tensor';
import type { Parameter, Tensor } from '@lomo/tensor';
import { fit, openSession, parseRun } from '@lomo/trainer';
import { loadPlugins, openBackend } from 'lomo';
import { describe, expect, test } from 'vitest';
import { signsgd } from '../src/index.ts';
import { config, tinyRun } from './tiny.ts';

/** Trains a run as `lomo train` does; returns its losses. */
async function losses(backendName: 'cpu' | 'reference'): Promise<number[]> {
  const { config: run } = parseRun(tinyRun({ max_steps: 40, learning_rate: 0.01 }));
  const { backend, machine } = await openBackend(backendName, { threads: 1 });
  const session = await openSession({ config: run, backend, machine, memory: 2 ** 28, ...(await loadPlugins(run.plugins)) });
  expect(session.optimizer.rule.name).toBe('signsgd');
  expect([...session.optimizer.state()]).toEqual([]);
  const seen: number[] = [];
  for await (const event of fit(session)) if (event.kind === 'step') seen.push(event.loss);
  await session.close();
  await backend[Symbol.asyncDispose]();
  return seen;
}

test('a run that names the plugin trains with it, on the definition and on the CPU kernels alike', async () => {
  const [reference, cpu] = await Promise.all([losses('reference'), losses('cpu')]);
  expect(reference).toHaveLength(40);
  expect(reference[0]).toBeGreaterThan(3.2);
  expect(reference[39]).toBeLessThan(2);
  // The first steps only: a sign that differs is a whole step apart, so later losses may drift.
  cpu.slice(0, 5).forEach((loss, i) => expect(loss).toBeCloseTo(reference[i]!, 3));
  expect(cpu[39]).toBeLessThan(2);
});

const tokens = 32;
const segment = 8;
const [lr, weightDecay] = [0.01, 0.1];

function batches(count: number): HostBatch[] {
  const random = new Random(5);
  return Array.from({ length: count }, () => {
    const ids = Int32Array.from(random.ints(tokens, config.vocab_size));
    return {
      tokens: ids,
      targets: ids.map((_, t) => (t % segment === segment - 1 ? -100 : ids[t + 1]!)),
      positions: ids.map((_, t) => t % segment),
      starts: Int32Array.from({ length: tokens / segment + 1 }, (_, s) => s * segment),
    };
  });
}

interface Case {
  readonly microBatches: number;
  readonly tied: boolean;
  readonly keeps: boolean;
}

/** One step of a fresh model with the passes `make` returns; f32 as in training. */
async function step(one: Case, make: (device: Device, model: LanguageModel) => readonly ProgramPass[]): Promise<{ model: LanguageModel; program: Program }> {
  const device = new Device(new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' }), { bytes: 2 ** 22, tileBytes: 1024 });
  const model = createModel({ ...config, tie_word_embeddings: one.tied }, device);
  initialise(model, 3);
  const program = new Program(device, model, { tokens, maxSegments: tokens / segment, maxLength: segment, microBatches: one.microBatches, keeps: () => one.keeps });
  await program.run({ step: 1, seed: 0, lr, batches: batches(one.microBatches), passes: make(device, model) });
  return { model, program };
}

async function weights(model: LanguageModel): Promise<Map<string, Float64Array>> {
  return new Map(await Promise.all(model.parameters.map(async (p) => [p.path, await p.device.readNumbers(p)] as const)));
}

describe('fused into backward = whole backward, then step, to the bit', () => {
  const cases: Case[] = [1, 3].flatMap((microBatches) => [true, false].flatMap((tied) => [true, false].map((keeps) => ({ microBatches, tied, keeps }))));
  test.each(cases)('$microBatches micro-batches, tied: $tied, kept: $keeps', async (one) => {
    const fused = await weights((await step(one, (device, model) => new Optimizer(device, model.parameters, { rule: signsgd, weightDecay }).passes)).model);

    const collected = new Map<Parameter, Tensor>();
    const collect: ProgramPass = { name: 'collect', settle: (p, g) => void collected.set(p, g.value()), finish: () => {} };
    const { model, program } = await step(one, () => [collect]);
    const before = await weights(model);
    const { passes } = new Optimizer(program.device, model.parameters, { rule: signsgd, weightDecay });
    const order = 0;
    for (const [p, g] of collected) for (const pass of passes) pass.settle(p, new Grad(p.device, p.shape, [new Dense(g)]), { step: program.step, order });
    const after = await weights(model);

    expect([...collected.keys()].map((p) => p.path).toSorted()).toEqual([...before.keys()].toSorted());
    for (const [p, gradient] of collected) {
      const g = await p.device.readNumbers(gradient);
      expect(fused.get(p.path), p.path).toEqual(after.get(p.path));
      const decay = p.shape.length >= 2 ? weightDecay : 0;
      const textbook = before.get(p.path)!.map((w, i) => w * (1 - lr * decay) - (lr * g[i]!) / (Math.abs(g[i]!) + 1e-12));
      expect(Math.max(...textbook.map((w, i) => Math.abs(w - after.get(p.path)![i]!))), p.path).toBeLessThan(2e-7);
    }
  });
});

test('a gradient that is not finite writes nothing', async () => {
  const device = new Device(new ReferenceBackend({ ops: [...tensorOps, ...optimOps] }), { bytes: 2 ** 22 });
  const model = createModel(config, device);
  initialise(model, 3);
  device.writeNumbers(model.parameters.at(-1)!, [Infinity, ...Array.from({ length: 15 }, () => 1)]);
  const before = await weights(model);
  const program = new Program(device, model, { tokens, maxSegments: tokens / segment, maxLength: segment, microBatches: 1 });
  const { passes } = new Optimizer(device, model.parameters, { rule: signsgd });
  await expect(program.run({ step: 1, seed: 0, lr, batches: batches(1), passes })).rejects.toMatchObject({ code: 'NonFiniteLoss' });
  expect(await weights(model)).toEqual(before);
});
