// bench profile: where a training step's time goes. A recorded step is replayed in order and every launch timed where it runs.
import { writeFileSync } from 'node:fs';
import { cpu } from '@lomo/cpu';
import { RecordedStep } from './launches.ts';
import type { Limits } from './limits.ts';
import { measureLimits, raised } from './limits.ts';
import type { Timed } from './ops.ts';
import { judge, keyOf } from './ops.ts';
import type { KernelOptions } from './ops.ts';
import type { Setup } from './assembly.ts';
import { ruleNamed } from './assembly.ts';
import { deliver, dtypeOf, percent, shapeOf, table } from './manners.ts';
import { modelConfig } from './models.ts';
import { traceOf } from './tracing.ts';

export interface ProfileOptions extends KernelOptions {
  readonly optims: readonly string[];
  readonly recompute: boolean;
  /** Where a Chrome trace of one step goes, if anywhere. */
  readonly trace: string | undefined;
}

/** One step as results keep it. Milliseconds. */
export interface ProfileData {
  readonly name: string;
  /** An ordinary step. */
  readonly step: number;
  /** All launches of it. */
  readonly sum: number;
  /** What passes between launches. */
  readonly between: number;
  readonly limits: Limits;
  readonly byOp: readonly Line[];
  readonly byShape: readonly Line[];
}

/** Launches of one name together. */
export interface Line {
  readonly name: string;
  launches: number;
  milliseconds: number;
  /** The time its limits allow. */
  least: number;
  flops: number;
  bytes: number;
}

/** Rows of the table by shapes. */
const longest = 16;
const replays = 5;

/** Runs the bench; returns the exit code. */
export async function profile(options: ProfileOptions): Promise<number> {
  await using backend = cpu({ threads: options.threads });
  const [lines, data]: [string[], ProfileData[]] = [[], []];
  let trace = options.trace;
  let figure = '';
  for (const dtype of options.dtypes.map(dtypeOf)) {
    const measured = await measureLimits(backend, dtype);
    for (const model of options.models) {
      for (const shape of options.shapes) {
        for (const optim of options.optims) {
          const setup: Setup = { json: modelConfig(model), dtype, ...shapeOf(shape), microBatches: 1, rule: ruleNamed(optim), keeps: !options.recompute };
          if (trace !== undefined) {
            writeFileSync(trace, await traceOf(backend, setup));
            lines.push(`traced the first of these steps: ${trace}; open it in ui.perfetto.dev or chrome://tracing`);
            trace = undefined;
          }
          const step = await RecordedStep.make(backend, setup);
          const { times, between } = await step.inOrder(replays);
          const limits = raised(measured, step.launches.map(({ op, flops }, i) => ({ op, flops, milliseconds: times[i]! })));
          const timed = step.launches.map((launch, i) => judge(launch, times[i]!, limits));
          step.free();
          const sum = times.reduce((a, b) => a + b, 0);
          const [byOp, byShape] = [group(timed, (t) => t.launch.op), group(timed, (t) => keyOf(t.launch))];
          const name = `${model} ${dtype} ${shape} ${optim}${options.recompute ? ' recomputed' : ''}`;
          lines.push(
            `${name}, ${options.threads} threads: ${step.launches.length} launches take ${sum.toFixed(1)} ms and ${between.toFixed(1)} ms pass between them, the step ${step.stepTime.toFixed(1)} ms. Limits ${(limits.flops / 1e6).toFixed(0)} GFLOP/s, ${(limits.bytes / 1e6).toFixed(1)} GB/s`,
            table([head, ...byOp.map((line) => rowOf(line, sum))], [8]),
            '',
            table([head, ...byShape.slice(0, longest).map((line) => rowOf(line, sum))], [8]),
            '',
          );
          data.push({ name, step: step.stepTime, sum, between, limits, byOp, byShape });
          figure = `${name}: ${byOp.slice(0, 3).map((line) => `${line.name} ${percent(line.milliseconds / sum)}`).join(', ')}; all launches at ${percent(byOp.reduce((a, line) => a + line.least, 0) / sum)} of their limits`;
        }
      }
    }
  }
  return deliver({ name: 'profile', lines, figure, missed: [], data: { threads: options.threads, profiles: data } }, options);
}

const head = ['ms', 'share', 'lost ms', 'of limit', 'launches', 'us each', 'GFLOP/s', 'GB/s', 'op'];

/** Timed launches of equal names together, longest first. */
export function group(timed: readonly Timed[], name: (t: Timed) => string): Line[] {
  const lines = new Map<string, Line>();
  for (const t of timed) {
    let line = lines.get(name(t));
    if (line === undefined) lines.set(name(t), (line = { name: name(t), launches: 0, milliseconds: 0, least: 0, flops: 0, bytes: 0 }));
    line.launches++;
    line.milliseconds += t.milliseconds;
    line.least += t.share * t.milliseconds;
    line.flops += t.launch.flops;
    line.bytes += t.launch.bytes;
  }
  return [...lines.values()].toSorted((a, b) => b.milliseconds - a.milliseconds);
}

function rowOf({ name, launches, milliseconds, least, flops, bytes }: Line, sum: number): string[] {
  return [
    milliseconds.toFixed(1), percent(milliseconds / sum), Math.max(0, milliseconds - least).toFixed(1), percent(least / milliseconds), String(launches), ((1000 * milliseconds) / launches).toFixed(0),
    (flops / milliseconds / 1e6).toFixed(1), (bytes / milliseconds / 1e6).toFixed(1), name,
  ];
}
