// The gate on the CPU's own kernels: a NaN or an infinity in the gradient of any one parameter, and f16 weights pushed over their range, leave exactly what the mode promises.
import { createHash } from 'node:crypto';
import { cpu } from '@lomo/cpu';
import type { CpuBackend } from '@lomo/cpu';
import { adalomo, adamw, lomo, Optimizer } from '@lomo/optim';
import type { OptimizerOptions, Pass } from '@lomo/optim';
import { Dense, Grad, isLomoError } from '@lomo/tensor';
import type { DType, LomoError, Parameter, Term } from '@lomo/tensor';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cut, small } from './small.ts';

let backend: CpuBackend;
beforeAll(() => {
  backend = cpu({ threads: 1 });
});
afterAll(() => backend[Symbol.asyncDispose]());

const modes: readonly (readonly [string, Partial<OptimizerOptions>])[] = [
  ['single pass', {}],
  ['atomic, a second backward', { atomic: true }],
  ['atomic, spilled', { atomic: true, spill: 'memory' }],
  ['two passes', { clip: { norm: 0.3 } }],
  ['global norm, spilled', { clip: { norm: 0.3 }, spill: 'memory' }],
];
// Tiles of a few rows, so that every matrix has several.
const shape = { tokens: 64, microBatches: 2, tileBytes: 4096, config: { vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, tie_word_embeddings: false }, bytes: 8 * 2 ** 20 } as const;

function make(dtype: DType, options: OptimizerOptions) {
  const made = small(backend, { ...shape, dtype });
  return { ...made, optimizer: new Optimizer(made.device, made.model.parameters, { weightDecay: 0.1, ...options }) };
}
type Made = ReturnType<typeof make>;

async function hashes({ device, model, optimizer }: Made): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  const note = async (name: string, tensor: Parameter): Promise<void> => void found.set(name, createHash('sha256').update(new Uint8Array((await device.read(tensor)).buffer)).digest('hex'));
  for (const p of model.parameters) await note(p.path, p);
  for (const { path, name, tensor } of optimizer.state()) await note(`${path} ${name}`, tensor as Parameter);
  return found;
}

/** The passes, with `value` added to the last element of the gradient of the parameter that settles as number `at`. */
function injected(passes: readonly Pass[], { at: number, value }: { readonly at: number; readonly value: number }): Pass[] {
  return passes.map((pass) => ({
    ...pass,
    settle: (p, g, at) => {
      if (at.order !== number) return pass.settle(p, g, at);
      const whole = p.device.allocate({ shape: p.shape, dtype: 'f32' }, 'gradient');
      const size = p.shape.reduce((a, b) => a * b, 1);
      p.device.writeNumbers(whole, Float32Array.from({ length: size }, (_, i) => (i === size - 1 ? value : 0)));
      // The terms stay the ledger's: only what this gradient computes is given back.
      const borrowed = g.terms.map((term): Term => ({ granularity: term.granularity ?? 1, into: (tile, row, add) => term.into(tile, row, add), whole: () => null, release: () => {} }));
      const ill = new Grad(p.device, p.shape, [...borrowed, new Dense(whole)]);
      pass.settle(p, ill, at);
      ill.release();
    },
  }));
}

async function step(made: Made, n: number, passes: readonly Pass[] = made.optimizer.passes): Promise<LomoError | null> {
  try {
    await made.program.run({ step: n, seed: 1, lr: 0.02, batches: cut(128, 2, { seed: n, vocabulary: 300 }), passes });
    return null;
  } catch (error) {
    if (isLomoError(error)) return error;
    throw error;
  }
}

describe.each(modes)('%s', (_, options) => {
  test.each([
    ['lomo f32', lomo, 'f32', NaN],
    ['adalomo bf16', adalomo(), 'bf16', Infinity],
    ['adamw f16', adamw(), 'f16', -Infinity],
  ] as const)('%s: whichever gradient it is, exactly the parameters before it have changed, or none', async (_name, rule, dtype, value) => {
    const first = make(dtype, { rule, ...options });
    const order: string[] = [];
    await first.program.run({ step: 1, seed: 1, lr: 0, batches: cut(128, 2, { seed: 1, vocabulary: 300 }), passes: [{ name: 'order', settle: (p) => void order.push(p.path), finish: () => {} }] });
    first.device.free();
    for (let at = 0; at < order.length; at += 3) {
      const made = make(dtype, { rule, ...options });
      expect(await step(made, 1)).toBe(null);
      const [before, { live }] = [await hashes(made), made.device.arena];
      const error = await step(made, 2, injected(made.optimizer.passes, { at, value }));
      const after = await hashes(made);
      const { atomic } = made.optimizer.passes.at(-1)!;
      const changed = new Set([...before.keys()].filter((name) => before.get(name) !== after.get(name)).map((name) => name.split(' ')[0]!));
      expect(changed, `${at}: ${order[at]!}`).toEqual(new Set(atomic ? [] : order.slice(0, at)));
      expect(error?.code).toBe(atomic || at === 0 ? 'NonFiniteGradient' : 'TornStep');
      expect(error?.details['at']).toBe(order[at]);
      expect(made.device.arena.live).toBe(live);
      if (at === 9 && atomic) {
        const clean = make(dtype, { rule, ...options });
        for (const n of [1, 3]) expect(await step(clean, n)).toBe(null);
        expect(await step(made, 3)).toBe(null);
        expect(await hashes(made)).toEqual(await hashes(clean));
        clean.device.free();
      }
      made.device.free();
    }
  });

  // AdaLomo divides by the size of all updates: a gradient that outweighs the others by far moves nothing else, and itself little.
  test.each([['lomo', lomo, -1e7], ['adalomo', adalomo(), -0.1], ['adamw', adamw(), -1e7]] as const)('an f16 weight that would pass 65504 in the last tile of a parameter: no byte changes (%s)', async (_name, rule, value) => {
    const made = make('f16', { rule, weightDecay: 0, ...options, ...(options.clip === undefined ? {} : { clip: { norm: 1e9 } }) });
    const target = made.model.parameters.find(({ path }) => path.includes('layers.1.mlp.up_proj'))!;
    const [rows, columns] = [target.shape[0]!, target.shape[1]!];
    made.device.writeNumbers(target.rows(rows - 1, rows), Float64Array.from({ length: columns }, (_x, j) => (j === columns - 1 ? 65504 : 0)));
    const [before, { live }] = [await hashes(made), made.device.arena];
    const index = { at: -1, value: value as number };
    await made.program.run({ step: 1, seed: 1, lr: 0, batches: cut(128, 2, { seed: 1, vocabulary: 300 }), passes: [{ name: 'order', settle: (p, _g, { order }) => void (p.path === target.path && (index.at = order)), finish: () => {} }] });
    const error = await step(made, 2, injected(made.optimizer.passes, index));
    expect(error?.message).toMatch(/layers\.1\.mlp\.up_proj\.weight is not finite, or its update leaves the range of f16 \(65504\); no weight has changed$/);
    expect(await hashes(made)).toEqual(before);
    expect(made.device.arena.live).toBe(live);
    made.device.free();
  });
});
