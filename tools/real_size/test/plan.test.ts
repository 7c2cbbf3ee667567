// The plan of the 7B step fits its bar, and the steps that the long check runs at full size run small.
import { cpu } from '@lomo/cpu';
import { expect, test } from 'vitest';
import { barGiB, gibibyte, llama7b, paperStep, planOf, runSteps } from '../llama7b.ts';

test('the plan of a LOMO step of LLaMA-7B, bf16, 1 x 1024 tokens', async () => {
  await using backend = cpu({ threads: 1 });
  const { extent, atPeak } = await planOf(backend, paperStep);
  expect(atPeak.weights).toBe(2 * 6_738_415_616);
  expect(extent / gibibyte).toBeLessThanOrEqual(barGiB);
  expect(atPeak.state).toBe(0);
});

test('the same steps on a small shape: planned bytes, every parameter settled, the loss of the same tokens lower', async () => {
  await using backend = cpu({ threads: 1 });
  const json = { ...llama7b, hidden_size: 64, intermediate_size: 160, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 4, vocab_size: 1500 };
  const report = await runSteps(backend, { json, tokens: 128, headForm: 'tiles' }, { count: 2, lr: 0.3, say: () => {} });
  expect(report.reserved).toBe(report.plan.extent);
  for (const { settled } of report.steps) expect(settled.toSorted()).toEqual(report.parameters.toSorted());
  expect(report.steps[1]!.loss).toBeLessThan(report.steps[0]!.loss);
});
