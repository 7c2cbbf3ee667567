// The peak of a 16-bit LOMO step, category by category, from the program run dry: weights, boundaries, one stage's work, and at most 64 MiB of gradient.
import { cpu } from '@lomo/cpu';
import type { CpuBackend } from '@lomo/cpu';
import { createModel } from '@lomo/models';
import { lomo, Optimizer } from '@lomo/optim';
import { makePlan, Program } from '@lomo/parallel';
import type { MemoryPlan } from '@lomo/parallel';
import type { Category } from '@lomo/tensor';
import { alignment, categories } from '@lomo/tensor';
import { afterAll, describe, expect, test } from 'vitest';
import { smallConfig } from './small.ts';

const mebibyte = 2 ** 20;
/** A quarter of LLaMA-7B in each direction: its head's f32 gradient is 125 MiB, twice what a tile may be. */
const shape = { hidden_size: 1024, intermediate_size: 2752, num_attention_heads: 8, num_key_value_heads: 8, vocab_size: 32000, max_position_embeddings: 1024, tie_word_embeddings: false };
const [tokens, hidden] = [1024, shape.hidden_size];

let backend: CpuBackend | null = null;
const target = (): CpuBackend => (backend ??= cpu({ threads: 2 }));
afterAll(() => backend?.[Symbol.asyncDispose]());

/** A step of a model of `layers` blocks, run without data. */
function planOf(layers: number, dtype: 'bf16' | 'f16'): Promise<MemoryPlan & { readonly sizes: readonly number[] }> {
  const sizes: number[] = [];
  return makePlan(target(), function* (device) {
    let run: (() => Promise<void>) | null = null;
    yield {
      name: 'setup',
      run: () => {
        const model = createModel({ ...smallConfig, ...shape, num_hidden_layers: layers }, device, { dtype });
        sizes.push(...model.parameters.map((p) => p.bytes));
        const { passes } = new Optimizer(device, model.parameters, { rule: lomo, telemetry: true });
        const program = new Program(device, model, { microBatches: 1, tokens, maxSegments: 1, maxLength: tokens, headForm: 'tiles' });
        const nothing = new Int32Array(tokens);
        run = async () => void (await program.run({ step: 1, seed: 0, lr: 0, passes, batches: [{ tokens: nothing, targets: nothing, positions: nothing, starts: Int32Array.of(0, tokens) }] }));
      },
    };
    yield { name: 'step', run: () => run!() };
  }).then((plan) => ({ ...plan, sizes }));
}

/** What of the peak is neither weights nor boundaries, by category. */
function work({ atPeak }: MemoryPlan): Partial<Record<Category, number>> {
  return Object.fromEntries(categories.filter((c) => c !== 'weights' && c !== 'boundary').map((c) => [c, atPeak[c]]));
}

const total = (parts: Partial<Record<Category, number>>): number => Object.values(parts).reduce((a, b) => a + b, 0);

describe.each(['bf16', 'f16'] as const)('%s', (dtype) => {
  test('weights + boundaries + one stage + 64 MiB, at every depth', async () => {
    const depths = [2, 4, 8, 16, 32];
    const plans = await Promise.all(depths.map((layers) => planOf(layers, dtype)));
    // Activations beside bf16 weights are bf16, beside f16 weights f32.
    const boundary = tokens * hidden * (dtype === 'bf16' ? 2 : 4);
    plans.forEach((plan, i) => {
      const layers = depths[i]!;
      const { atPeak, byCategory } = plan;
      const weights = plan.sizes.reduce((sum, bytes) => sum + Math.ceil(bytes / alignment) * alignment, 0);
      expect(byCategory.weights).toBe(weights);
      expect(weights).toBeGreaterThan(2 * layers * 12 * hidden ** 2);
      // One a block, and those around the first and the last.
      expect(byCategory.boundary - layers * boundary).toBe(plans[0]!.byCategory.boundary - depths[0]! * boundary);
      expect(byCategory.boundary - layers * boundary).toBeLessThanOrEqual(2 * boundary);
      // The largest stage is a block, recorded again; the head works in tiles.
      expect(byCategory.gradient, 'gradient').toBeLessThanOrEqual(64 * mebibyte);
      expect([byCategory.state, byCategory.saved, byCategory.spill]).toEqual([0, 0, 0]);
      expect(plan.peak).toBe(atPeak.weights + atPeak.boundary + total(work(plan)));
      expect(plan.extent - plan.peak, 'fragmentation').toBeLessThanOrEqual(boundary);
      process.stdout.write(`${dtype}, ${layers} layers: ${[...categories].filter((c) => atPeak[c] > 0).map((c) => `${c} ${(atPeak[c] / mebibyte).toFixed(2)}`).join(', ')}; peak ${(plan.peak / mebibyte).toFixed(2)} MiB\n`);
    });
    // What is neither weights nor boundaries is one stage's: the same at 2 and at 32 layers, category by category.
    for (const plan of plans) expect(work(plan)).toEqual(work(plans[0]!));
    const { gradient, ...stage } = work(plans[0]!);
    expect(gradient).toBeLessThanOrEqual(64 * mebibyte);
    // One stage by itself: what a model of one block works with, its gradient tile apart.
    const { gradient: _, ...alone } = work(await planOf(1, dtype));
    expect(total(stage)).toBeLessThanOrEqual(total(alone));
  });
});
