// The paper's size, once: LOMO steps of the LLaMA-7B shape in bf16 on this machine, memory as planned. Takes minutes and 14 GiB: `pnpm test:long`.
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cpu } from '@lomo/cpu';
import { categories } from '@lomo/tensor';
import { expect, test } from 'vitest';
import { barGiB, gibibyte, paperGiB, paperStep, runSteps } from './llama7b.ts';

const results = fileURLToPath(new URL('../../bench/results/', import.meta.url));
/** What the machine must have to spare: the arena, the process around it, and other programs' room. */
const neededGiB = barGiB + 1.5;
const spareGiB = process.availableMemory() / gibibyte;

test.skipIf(spareGiB < neededGiB)(`two LOMO steps of LLaMA-7B, bf16, 1 x 1024 tokens, in at most ${barGiB} GiB (needs ${neededGiB} GiB; ${spareGiB.toFixed(1)} are free)`, async () => {
  await using backend = cpu();
  const say = (text: string): void => void process.stderr.write(`  7B: ${text}\n`);
  const { plan, parameters, size, reserved, draw, steps, processPeak } = await runSteps(backend, paperStep, { count: 2, lr: 0.03, say });
  const inGiB = (bytes: number): string => (bytes / gibibyte).toFixed(3);
  for (const category of categories) if (plan.atPeak[category] > 0) say(`${category.padEnd(12)}${inGiB(plan.atPeak[category])} GiB`);
  say(`${'arena'.padEnd(12)}${inGiB(plan.extent)} GiB (the paper: ${paperGiB} GiB), process ${inGiB(processPeak)} GiB`);
  const result = {
    name: 'llama7b',
    date: new Date().toISOString(),
    machine: `${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${cpus().length} logical cores, node ${process.version}`,
    libraries: backend.libraries.map(({ name, version }) => `${name} ${version}`).join(', '),
    isa: backend.isa,
    threads: backend.threads,
    size,
    tokens: paperStep.tokens,
    dtype: 'bf16',
    arena_gib: plan.extent / gibibyte,
    reserved_bytes: reserved,
    plan_bytes: plan.extent,
    at_peak_bytes: plan.atPeak,
    paper_gib: paperGiB,
    process_peak_gib: processPeak / gibibyte,
    draw_s: draw.seconds,
    draw_processor_s: draw.processorSeconds,
    step_tflop: (plan.flops.get('step') ?? NaN) / 1e12,
    steps: steps.map(({ loss, seconds, processorSeconds, settled }) => ({ loss, seconds, processor_s: processorSeconds, tokens_per_s: paperStep.tokens / seconds, settled: settled.length })),
  };
  mkdirSync(results, { recursive: true });
  writeFileSync(join(results, `${result.date.slice(0, 10)}-llama7b.json`), `${JSON.stringify(result, null, 1)}\n`);

  expect(size).toBe(6_738_415_616);
  expect(reserved).toBe(plan.extent);
  expect(reserved / gibibyte).toBeLessThanOrEqual(barGiB);
  for (const { loss, settled } of steps) {
    expect(loss).toBeGreaterThan(0);
    expect(loss).toBeLessThan(20);
    expect(settled.toSorted()).toEqual(parameters.toSorted());
  }
  // The same tokens again: what the first step changed has helped.
  expect(steps[1]!.loss).toBeLessThan(steps[0]!.loss);
}, 3_600_000);
