// gpu 65b: LLaMA-65B's shape on one card of 141 GB, drawn on the device, ten LOMO steps; on a smaller card the largest shape that fits.
import { contextBytes, startupBytes } from '@lomo/cuda';
import { spread } from '../manners.ts';
import type { Conclusion } from './findings.ts';
import type { Context, Part } from './part.ts';
import { measureOne } from './part.ts';
import type { StepsResult } from './steps.ts';

const id = 'steps';
const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(2);
/** What the driver rounds a reservation up to. */
const page = 2 ** 21;
/** LLaMA's shapes, the largest first. */
const shapes = ['65b', '30b', '13b', '7b'] as const;

async function run(context: Context): Promise<void> {
  const { where, scale } = context;
  await measureOne(context, {
    id,
    job: {
      kind: 'steps', where, models: scale.tiny ? ['65b', 'tiny'] : shapes, dtype: 'bf16', seq: scale.tiny ? 32 : 1024, batch: 4, microBatches: 1, tapes: 'recomputed', headForm: 'tiles',
      lr: 0.03, warmup: 2, steps: scale.tiny ? 2 : 8, sameTokens: true, digest: false,
    },
    expects: scale.tiny ? 10 : 180,
  });
}

/** What the findings come to. */
export function concludeLargest(findings: Parameters<Part['conclude']>[0]): Conclusion {
  const found = findings.get<StepsResult>(id);
  if (found === undefined) return { lines: [], figure: 'nothing is measured', held: [], missed: [], open: [`65b: ${findings.failure(id) ?? 'not measured'}`] };
  const [held, missed, open]: [string[], string[], string[]] = [[], [], []];
  const bar = (what: string, holds: boolean): void => void (holds ? held : missed).push(what);
  const { model, losses, arena, reserved, driver, laterAllocations, passedOver } = found;
  if (model !== '65b') open.push(`65B: this device has no room for it; the largest shape that fits is ${model} (${passedOver.join('; ')})`);
  bar(`${model}: loss ${losses[0]!.toFixed(4)} falls to ${losses.at(-1)!.toFixed(4)} in ${losses.length} steps on the same tokens`, losses.at(-1)! < losses[0]! && losses.every(Number.isFinite));
  bar(`${model}: arena ${gib(reserved)} GiB, ${gib(arena)} planned`, reserved === arena);
  bar(`${model}: ${laterAllocations} native allocations after step 2`, laterAllocations === 0);
  if (driver === null) open.push('device peak by the driver: nobody can tell here');
  else bar(`${model}: ${gib(driver.end - driver.before)} GiB by the driver, ${gib(driver.end - driver.before - arena)} above the plan, +${((driver.end - driver.second) / 2 ** 20).toFixed(0)} MiB after step 2; ${gib(contextBytes + startupBytes)} are assumed`, driver.end === driver.second && driver.end - driver.before - arena <= contextBytes + startupBytes + page);
  const rate = found.tokensPerSecond;
  return {
    lines: [`${model}, ${(found.parameters / 1e9).toFixed(2)} G numbers drawn in ${found.draw.toFixed(1)} s; ${found.tokens} tokens a step; losses ${losses.map((loss) => loss.toFixed(4)).join(' ')}`, ...passedOver],
    figure: `${model} on one card: ${rate.toFixed(0)} tokens/s (${spread(found.times.slice(2)).median.toFixed(2)} s a step, ${((found.work * rate) / found.tokens / 1e12).toFixed(0)} TFLOP/s of the model), arena ${gib(arena)} GiB`,
    held,
    missed,
    open,
  };
}

export const largest: Part = { name: '65b', run, conclude: concludeLargest };
