// Telemetry on the CPU: a measured step has the bits of any other, its numbers do not depend on threads, tiles or splits, and the plan is its plan.
import { createHash } from 'node:crypto';
import { cpu } from '@lomo/cpu';
import type { CpuBackend } from '@lomo/cpu';
import type { StepTelemetry } from '@lomo/optim';
import { adalomo, adamw, groupByRole, lomo, sgd } from '@lomo/optim';
import { makePlan, underPlan } from '@lomo/parallel';
import { decode, Device } from '@lomo/tensor';
import { afterAll, describe, expect, test } from 'vitest';
import type { SmallOptions } from './small.ts';
import { cut, small } from './small.ts';

const backends = new Map<number, CpuBackend>();
const backendOf = (threads: number): CpuBackend => {
  const known = backends.get(threads) ?? cpu({ threads });
  backends.set(threads, known);
  return known;
};
afterAll(async () => {
  for (const backend of backends.values()) await backend[Symbol.asyncDispose]();
});

const tokens = 512;
const rules = [lomo, adalomo(), adamw(), sgd].map((rule) => [rule.name, rule] as const);

interface Case extends Omit<SmallOptions, 'tokens' | 'microBatches'> {
  readonly threads?: number;
  readonly count?: number;
  readonly measures?: boolean;
}

/** Hash of all weights after two steps, and what the last one said. */
async function trained(options: Case): Promise<{ readonly weights: string; readonly said: StepTelemetry | null }> {
  const { threads = 2, count = 1, measures = true, ...rest } = options;
  const { device, model, optimizer, program } = small(backendOf(threads), { headForm: 'tiles', ...rest, telemetry: true, microBatches: count, tokens: tokens / count });
  let said: StepTelemetry | null = null;
  for (let step = 1; step <= 2; step++) {
    await program.run({ step, seed: 1, lr: 0.02, batches: cut(tokens, count, { seed: step }), passes: measures ? optimizer.measuredPasses : optimizer.passes });
    if (measures) said = await optimizer.telemetry!.read();
  }
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  device.free();
  return { weights: hash.digest('hex'), said };
}

describe.each(rules)('%s', (_, rule) => {
  test.each(['f32', 'bf16', 'f16'] as const)('%s: the bits of steps that are not measured', async (dtype) => {
    const [plain, measured] = [await trained({ rule, dtype, measures: false }), await trained({ rule, dtype })];
    expect(measured.weights).toBe(plain.weights);
    expect(measured.said!.groups.map(({ group }) => group).toSorted()).toEqual(['attention', 'embedding', 'mlp', 'norms']);
  });

  test('the same numbers over threads, tiles, kept tapes and micro-batches', async () => {
    const one = await trained({ rule, dtype: 'bf16' });
    const untied = { config: { tie_word_embeddings: false } };
    expect(await trained({ rule, dtype: 'bf16', threads: 1 })).toEqual(one);
    expect(await trained({ rule, dtype: 'bf16', threads: 4, keeps: true })).toEqual(one);
    expect(await trained({ rule, dtype: 'bf16', count: 4, accumulate: 'factors' })).toEqual(one);
    const whole = await trained({ rule, dtype: 'bf16', ...untied });
    expect(whole.said!.groups.map(({ group }) => group)).toContain('head');
    expect(await trained({ rule, dtype: 'bf16', ...untied, tileBytes: 64 * 64 * 4 })).toEqual(whole);
    expect(await trained({ rule, dtype: 'bf16', ...untied, tileBytes: 128 * 64 * 4 })).toEqual(whole);
  });

  test.each(['f32', 'bf16'] as const)('%s: a step is held to its plan, measured or not', async (dtype) => {
    const options = { rule, dtype, telemetry: true, tokens, microBatches: 1 } as const;
    const input = { seed: 1, lr: 0.02, batches: cut(tokens, 1, { seed: 1 }) };
    const plan = await makePlan(backendOf(2), function* (device) {
      let made: ReturnType<typeof small> | null = null;
      yield { name: 'setup', run: () => void (made = small(backendOf(2), { ...options, on: device })) };
      yield { name: 'step', run: () => made!.program.run({ ...input, step: 1, passes: made!.optimizer.passes }).then(() => {}) };
    });
    const device = new Device(backendOf(2), { bytes: plan.extent });
    const { program, optimizer } = await underPlan(device, plan, { name: 'setup', body: () => small(backendOf(2), { ...options, on: device }) });
    for (const [step, passes] of [[1, optimizer.measuredPasses], [2, optimizer.passes], [3, optimizer.measuredPasses]] as const) {
      await underPlan(device, plan, { name: 'step', body: () => program.run({ ...input, step, passes }) });
    }
    expect((await optimizer.telemetry!.read()).all.gradNorm).toBeGreaterThan(0);
    device.free();
  });
});

test('the gradient norm is that of clipping, without a pass of its own', async () => {
  const batches = cut(tokens, 4, { seed: 1 });
  const { device, optimizer, program } = small(backendOf(2), { clip: { norm: 0.5 }, telemetry: true, tokens: tokens / 4, microBatches: 4 });
  const { gradNorm } = await program.run({ step: 1, seed: 1, lr: 0.02, batches, passes: optimizer.measuredPasses });
  expect(gradNorm).toBeGreaterThan(0.5);
  expect(Math.abs((await optimizer.telemetry!.read()).all.gradNorm / gradNorm - 1)).toBeLessThan(1e-6);
  device.free();
});

test.each(['nearest', 'stochastic'] as const)('bf16 %s: what it says of changed elements and of the size of the step is what the weights say', async (rounding) => {
  const { device, model, optimizer, program } = small(backendOf(2), { dtype: 'bf16', rounding, telemetry: true, tokens, microBatches: 1 });
  const weights = async () => Promise.all(model.parameters.map(async (p) => ({ p, values: decode(p.dtype, await device.read(p)) })));
  const before = await weights();
  await program.run({ step: 1, seed: 1, lr: 1e-3, batches: cut(tokens, 1, { seed: 1 }), passes: optimizer.measuredPasses });
  const [after, said] = [await weights(), await optimizer.telemetry!.read()];
  for (const group of [said.all, ...said.groups]) {
    let [n, changed, moved2, size2] = [0, 0, 0, 0];
    before.forEach(({ p, values }, at) => {
      if (group.group !== 'all' && groupByRole(p) !== group.group) return;
      values.forEach((was, i) => {
        const is = after[at]!.values[i]!;
        n++;
        changed += is === was ? 0 : 1;
        moved2 += (is - was) ** 2;
        size2 += was ** 2;
      });
    });
    expect(group.elements).toBe(n);
    expect(group.changed).toBe(changed / n);
    const ratio = Math.sqrt(moved2 / size2);
    expect(Math.abs(group.ratio - ratio)).toBeLessThanOrEqual(1e-6 * ratio);
  }
  // Steps this small are far below a unit of bf16: to nearest most of the movement is lost, stochastically almost none of it is.
  if (rounding === 'nearest') expect(said.all.lost).toBeGreaterThan(0.5);
  else expect(Math.abs(said.all.lost!)).toBeLessThan(0.1);
  device.free();
});
