// bench products: every matrix product of a training step, forward, input gradient and weight gradient, against the best product of the same run.
import { cpu } from '@lomo/cpu';
import type { Launch } from './launches.ts';
import { RecordedStep } from './launches.ts';
import { measureLimits } from './limits.ts';
import { deliver, dtypeOf, percent, table } from './manners.ts';
import type { KernelOptions } from './ops.ts';
import { distinct, oneLayer } from './ops.ts';

/** What a product is for, by how it is launched: x wT, dy w, dyT x. */
function purpose({ op, attributes }: Launch): string {
  if (op.startsWith('weight_grad')) return 'dW';
  return attributes[1] === 1 ? 'forward' : 'dx';
}

/** Runs the bench; returns the exit code. */
export async function products(options: KernelOptions): Promise<number> {
  await using backend = cpu({ threads: options.threads });
  const [lines, data, weighted]: [string[], unknown[], { least: number; took: number }] = [[], [], { least: 0, took: 0 }];
  for (const dtype of options.dtypes.map(dtypeOf)) {
    const found: { readonly name: string; readonly launch: Launch; readonly milliseconds: number; readonly count: number }[] = [];
    const limits = await measureLimits(backend, dtype);
    for (const model of options.models) {
      for (const shape of options.shapes) {
        const step = await RecordedStep.make(backend, oneLayer(model, { dtype, shape }), 1);
        const all = step.launches.filter(({ op }) => op.startsWith('matmul') || op.startsWith('weight_grad'));
        const kinds = distinct(all);
        const times = await step.alone(kinds);
        for (const [i, launch] of kinds.entries()) {
          const count = all.filter((other) => other.op === launch.op && other.shapes === launch.shapes && purpose(other) === purpose(launch)).length;
          found.push({ name: `${model} ${dtype} ${shape}`, launch, milliseconds: times[i]!, count });
        }
        step.free();
      }
    }
    const best = Math.max(limits.flops, ...found.map(({ launch, milliseconds }) => launch.flops / milliseconds));
    const rows = found.map(({ name, launch, milliseconds, count }) => {
      const rate = launch.flops / milliseconds;
      weighted.least += (count * launch.flops) / best;
      weighted.took += count * milliseconds;
      data.push({ name, purpose: purpose(launch), op: launch.op, shapes: launch.shapes, gflopPerSecond: rate / 1e6, share: rate / best, count });
      return [name, purpose(launch), launch.op, launch.shapes, (rate / 1e6).toFixed(0), percent(rate / best)];
    });
    lines.push(`${dtype}, ${options.threads} threads: best product ${(best / 1e6).toFixed(0)} GFLOP/s`, table([['', 'for', 'op', 'operands', 'GFLOP/s', 'share'], ...rows], [0, 1, 2, 3]), '');
  }
  return deliver({ name: 'products', lines, figure: `${percent(weighted.least / weighted.took)} of the best product's rate, by time, over the products of one layer and the head`, missed: [], data: { threads: options.threads, products: data } }, options);
}
