// The global norm under fusion, on the CPU: PyTorch's to 1e-6 with four micro-batches and one layer of huge gradient; and the bits of a second backward, however gradients wait.
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpu } from '@lomo/cpu';
import type { CpuBackend } from '@lomo/cpu';
import { createModel, nodeFiles } from '@lomo/models';
import type { LanguageModel } from '@lomo/models';
import { adalomo, adamw, lomo, Optimizer, optimOps, sgd } from '@lomo/optim';
import type { Spill } from '@lomo/optim';
import { makePlan, Program, underPlan } from '@lomo/parallel';
import type { HostBatch } from '@lomo/parallel';
import { Device, ReferenceBackend, tensorOps } from '@lomo/tensor';
import type { Backend } from '@lomo/tensor';
import type { ScratchFile } from '@lomo/trainer';
import { openSpillFile } from '@lomo/trainer';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { SmallOptions } from './small.ts';
import { cut, small } from './small.ts';

let backend: CpuBackend;
let file: ScratchFile;
beforeAll(async () => {
  backend = cpu({ threads: 1 });
  file = await openSpillFile(mkdtempSync(join(tmpdir(), 'lomo-clip-')), { files: nodeFiles, bytes: 2 ** 20 });
});
afterAll(async () => {
  await file[Symbol.asyncDispose]();
  await backend[Symbol.asyncDispose]();
});

const ways = ['two-pass', 'memory', 'file'] as const;
const spillOf = (way: (typeof ways)[number]): { spill?: Spill } => (way === 'two-pass' ? {} : { spill: way === 'memory' ? way : file });

interface Golden {
  readonly base: Readonly<Record<string, number | string>>;
  readonly clip: number;
  readonly ids: readonly (readonly (readonly number[])[])[];
  readonly labels: readonly (readonly (readonly number[])[])[];
  readonly cases: Readonly<Record<string, { readonly tied: boolean; readonly scales: Readonly<Record<string, number>>; readonly float64: Made; readonly float32: Made }>>;
}
interface Made {
  readonly loss: number;
  readonly norm: number;
  readonly coefficient: number;
  readonly largest: string;
  readonly share: number;
}
const golden = JSON.parse(readFileSync(new URL('fixtures/clip_norm.json', import.meta.url), 'utf8')) as Golden;

/** The weights of fixtures/clip_norm.py. */
function setWeights(model: LanguageModel, scales: Readonly<Record<string, number>>): void {
  for (const p of model.parameters) {
    const seed = Array.from(p.path, (letter, i) => letter.charCodeAt(0) * (i + 1)).reduce((a, b) => a + b, 0);
    const size = p.shape.reduce((a, b) => a * b, 1);
    const [scale, middle] = p.shape.length === 1 ? [0.25, 1] : [0.5, 0];
    const values = Float64Array.from({ length: size }, (_, i) => {
      const bits = Math.imul(i * 40503 + seed * 30011 + 977, 2654435761) >>> 16;
      return (((bits - 2 ** 15) / 2 ** 16) * scale + middle) * (scales[p.path] ?? 1);
    });
    model.device.writeNumbers(p, values);
  }
}

function goldenBatches(): HostBatch[] {
  return golden.ids.map((rows, m) => ({
    tokens: Int32Array.from(rows.flat()),
    targets: Int32Array.from(golden.labels[m]!.flatMap((row) => [...row.slice(1), -100])),
    positions: Int32Array.from(rows.flatMap((row) => row.map((_, t) => t))),
    starts: Int32Array.from([0, 8, 16]),
  }));
}

describe.each(Object.entries(golden.cases))('against PyTorch: %s', (_, made) => {
  const on = (target: Backend, way: (typeof ways)[number]) => {
    const device = new Device(target, { bytes: 8 * 2 ** 20 });
    const model = createModel({ model_type: 'llama', ...golden.base, tie_word_embeddings: made.tied }, device);
    setWeights(model, made.scales);
    const optimizer = new Optimizer(device, model.parameters, { rule: lomo, clip: { norm: golden.clip }, ...spillOf(way) });
    const program = new Program(device, model, { tokens: 16, maxSegments: 2, maxLength: 8, microBatches: 4 });
    return { device, model, optimizer, program };
  };

  test('one layer outweighs all others', () => {
    expect(made.float64.share).toBeGreaterThan(0.999_99);
  });

  test.each(ways)('%s: loss, norm and coefficient to 1e-6', async (way) => {
    for (const target of [backend, new ReferenceBackend({ ops: [...tensorOps, ...optimOps] })]) {
      const { device, optimizer, program } = on(target, way);
      const result = await program.run({ step: 1, seed: 0, lr: 0.01, batches: goldenBatches(), passes: optimizer.passes });
      expect(Math.abs(result.loss / made.float64.loss - 1)).toBeLessThan(1e-6);
      for (const torch of [made.float64, made.float32]) {
        expect(Math.abs(result.gradNorm / torch.norm - 1), `${target.name}: ${result.gradNorm} against ${torch.norm}`).toBeLessThan(1e-6);
        expect(Math.abs(result.clipCoefficient / torch.coefficient - 1)).toBeLessThan(1e-6);
      }
      device.free();
    }
  });

  test('it is the root of the sum of squares of the gradients, added in float64', async () => {
    for (const target of [backend, new ReferenceBackend({ ops: [...tensorOps, ...optimOps] })]) {
      const { device, optimizer, program } = on(target, 'two-pass');
      const values: Promise<Float64Array>[] = [];
      const batches = goldenBatches();
      await program.run({
        step: 1, seed: 0, lr: 0, batches,
        passes: [{ name: 'read', settle: (_p, g) => g.tiles((tile) => values.push(device.readNumbers(tile))), finish: () => {} }],
      });
      let square = 0;
      for (const tile of await Promise.all(values)) for (const x of tile) square += x * x;
      const { gradNorm } = await program.run({ step: 2, seed: 0, lr: 0, batches, passes: optimizer.passes });
      expect(Math.abs(gradNorm / Math.sqrt(square) - 1)).toBeLessThan(2 ** -23);
      device.free();
    }
  });
});

const tokens = 256;

async function trained(options: Omit<SmallOptions, 'tokens' | 'microBatches'> & { readonly count: number; readonly way: (typeof ways)[number] }): Promise<string> {
  const { count, way, ...rest } = options;
  const { device, model, optimizer, program } = small(backend, { bytes: 24 * 2 ** 20, ...rest, ...spillOf(way), microBatches: count, tokens: tokens / count });
  const hash = createHash('sha256');
  for (let step = 1; step <= 2; step++) {
    const { gradNorm, loss } = await program.run({ step, seed: 1, lr: 0.02, batches: cut(tokens, count, { seed: step, vocabulary: 300 }), passes: optimizer.passes });
    hash.update(`${gradNorm} ${loss}`);
  }
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  device.free();
  return hash.digest('hex');
}

describe.each([lomo, adalomo(), adamw(), sgd].map((rule) => [rule.name, rule] as const))('%s: SHA-256 over weights, state, norm and loss', (_, rule) => {
  test.each(['f32', 'bf16', 'f16'] as const)('%s', async (dtype) => {
    for (const count of [1, 4]) for (const tied of [true, false]) for (const keeps of [true, false]) {
      const options = { rule, dtype, count, keeps, clip: { norm: 0.2 }, config: { tie_word_embeddings: tied, vocab_size: 300 } };
      const twice = await trained({ ...options, way: 'two-pass' });
      for (const way of ['memory', 'file'] as const) expect(await trained({ ...options, way }), `${count} micro-batches, tied ${tied}, kept ${keeps}, ${way}`).toBe(twice);
    }
  });
});

test.each(['memory', 'file'] as const)('%s: every allocation of a step on the CPU is the planned one, and no memory is reserved beyond it', async (way) => {
  const store: Spill = way === 'memory' ? way : file;
  const options: SmallOptions = { rule: adalomo(), clip: { norm: 0.2 }, spill: store, tokens: 64, microBatches: 4 };
  const plan = await makePlan(backend, function* (on) {
    let made: ReturnType<typeof small> | null = null;
    yield { name: 'setup', run: () => void (made = small(backend, { ...options, on })) };
    yield { name: 'step', run: async () => void (await made!.program.run({ step: 1, seed: 1, lr: 0.02, batches: cut(tokens, 4, { seed: 1 }), passes: made!.optimizer.passes })) };
  });
  const reserved = backend.reserved();
  const device = new Device(backend, { bytes: plan.extent });
  const { program, optimizer } = await underPlan(device, plan, { name: 'setup', body: () => small(backend, { ...options, on: device }) });
  let allocations = 0;
  for (let step = 1; step <= 3; step++) {
    await underPlan(device, plan, { name: 'step', body: () => program.run({ step, seed: 1, lr: 0.02, batches: cut(tokens, 4, { seed: step }), passes: optimizer.passes }) });
    const { allocations: now } = backend.counters();
    if (step > 2) expect(now).toBe(allocations);
    allocations = now;
  }
  expect(backend.reserved() - reserved).toBe(plan.extent);
  expect(plan.byCategory.spill > 0).toBe(true);
  device.free();
});
