// The process that `bench plan` judges: it plans a run, says what the whole process will come to, then trains. Options as JSON in the first argument.
import { readFileSync } from 'node:fs';
import { cpu } from '@lomo/cpu';
import { initialise } from '@lomo/models';
import { Device } from '@lomo/tensor';
import { expectedProcess } from '@lomo/trainer';
import type { Setup } from './assembly.ts';
import { assemble, batchesOf, planStep, ruleNamed, run } from './assembly.ts';
import { modelConfig } from './models.ts';
import type { PlanProcessOptions, PlanProcessResult, Sight } from './plan.ts';

// Read when the addon loads libgomp, so set before: see ours.ts.
process.env['GOMP_SPINCOUNT'] ??= '1000';

/** What the process holds now; a mapping of `arena` bytes or more is left out of its parts. */
function sight(name: string, arena = Infinity): Sight {
  const status = readFileSync('/proc/self/status', 'utf8');
  const field = (key: string): number => 1024 * Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1] ?? NaN);
  const parts = { files: 0, code: 0, heaps: 0 };
  let part: keyof typeof parts | null = null;
  for (const line of readFileSync('/proc/self/smaps', 'utf8').split('\n')) {
    const mapping = /^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+)/.exec(line);
    if (mapping !== null) {
      const [, from, to, rights, inode] = mapping as unknown as [string, string, string, string, string];
      part = parseInt(to, 16) - parseInt(from, 16) >= arena ? null : inode !== '0' ? 'files' : rights.includes('x') ? 'code' : 'heaps';
    } else if (part !== null && line.startsWith('Rss:')) parts[part] += 1024 * Number(/\d+/.exec(line)?.[0] ?? NaN);
  }
  return { name, resident: field('VmRSS'), highest: field('VmHWM'), ...parts, v8: process.memoryUsage().heapTotal };
}

const options = JSON.parse(process.argv[2] ?? '{}') as PlanProcessOptions;
const sights = [sight('Node and the program')];
await using backend = cpu({ threads: options.threads });
sights.push(sight('addon and oneDNN open'));
const setup: Setup = { json: modelConfig(options.model), dtype: options.dtype, seq: options.seq, batch: options.batch, microBatches: 1, rule: ruleNamed(options.optim), keeps: options.keeps };
const plan = await planStep(backend, setup);
const expected = expectedProcess(plan.extent);
sights.push(sight('planned'));
const device = new Device(backend, { bytes: plan.extent });
const made = assemble(device, setup);
initialise(made.model, 0);
await device.read(made.model.parameters.at(-1)!.rows(0, 1));
sights.push(sight('weights drawn', plan.extent));
const stream = Uint8Array.from({ length: 2 ** 16 }, (_, i) => Math.imul(i, 2654435761) >>> 24);
const losses: number[] = [];
for (let i = 0; i < options.steps; i++) {
  losses.push(await run(made, { step: i + 1, lr: 0.01, batches: batchesOf(setup, stream, i) }));
  sights.push(sight(`step ${i + 1}`, plan.extent));
}
const result: PlanProcessResult = { extent: plan.extent, reserved: backend.reserved(), expected, highest: sights.at(-1)!.highest, sights, losses };
device.free();
process.stdout.write(`${JSON.stringify(result)}\n`);
