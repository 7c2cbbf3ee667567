// bench ops: every kernel a training step launches, by its shapes, against its own limit: the best product or the memory's bandwidth.
import { cpu } from '@lomo/cpu';
import { adalomo, adamw, lomo } from '@lomo/optim';
import type { Setup } from './assembly.ts';
import type { Launch } from './launches.ts';
import { RecordedStep } from './launches.ts';
import type { Limits } from './limits.ts';
import { measureLimits, raised } from './limits.ts';
import type { Reporting } from './manners.ts';
import { deliver, dtypeOf, geometricMean, percent, shapeOf, table } from './manners.ts';
import { modelConfig } from './models.ts';

export interface KernelOptions extends Reporting {
  readonly models: readonly string[];
  readonly dtypes: readonly string[];
  readonly shapes: readonly string[];
  readonly threads: number;
}

/** One kernel at one shape. */
export interface Timed {
  readonly launch: Launch;
  readonly milliseconds: number;
  /** Least time the limits allow over the time it took. More than 1: its operands lie in a cache. */
  readonly share: number;
  readonly bound: 'products' | 'memory';
}

/** Launches shorter than this, milliseconds, measure the launch and not the kernel. */
const least = 0.005;

/** A step of one layer and the head: every kernel at every shape that the whole model has. */
export function oneLayer(model: string, options: { readonly dtype: 'f32' | 'bf16'; readonly shape: string }): Setup {
  return { json: modelConfig(model, { num_hidden_layers: 1 }), dtype: options.dtype, ...shapeOf(options.shape), microBatches: 1, rule: lomo, keeps: false };
}

/** Launches of `steps` that differ in kernel or shapes, each once. */
export function distinct(launches: readonly Launch[]): Launch[] {
  return [...new Map(launches.map((launch) => [keyOf(launch), launch])).values()];
}

/** Names a kernel at its shapes; a transposed product is another one. */
export function keyOf({ op, shapes, attributes }: Launch): string {
  return op.startsWith('matmul') ? `${op} ${shapes} ${attributes.join()}` : `${op} ${shapes}`;
}

/** Judges a launch that took `milliseconds` by the limits. */
export function judge(launch: Launch, milliseconds: number, limits: Limits): Timed {
  const [compute, memory] = [launch.flops / limits.flops, launch.bytes / limits.bytes];
  return { launch, milliseconds, share: Math.max(compute, memory) / milliseconds, bound: compute > memory ? 'products' : 'memory' };
}

/** Runs the bench; returns the exit code. */
export async function ops(options: KernelOptions): Promise<number> {
  await using backend = cpu({ threads: options.threads });
  const [lines, data, shares]: [string[], unknown[], number[]] = [[], [], []];
  for (const dtype of options.dtypes.map(dtypeOf)) {
    const measured = await measureLimits(backend, dtype);
    for (const model of options.models) {
      for (const shape of options.shapes) {
        const setup = oneLayer(model, { dtype, shape });
        const timed: { readonly launch: Launch; readonly milliseconds: number }[] = [];
        for (const rule of [lomo, adalomo(), adamw()]) {
          const step = await RecordedStep.make(backend, { ...setup, rule }, 1);
          const known = new Set(timed.map((t) => keyOf(t.launch)));
          const fresh = distinct(step.launches).filter((launch) => !known.has(keyOf(launch)));
          const times = await step.alone(fresh);
          timed.push(...fresh.map((launch, i) => ({ launch, milliseconds: times[i]! })));
          step.free();
        }
        const limits = raised(measured, timed.map(({ launch, milliseconds }) => ({ ...launch, milliseconds })));
        const told = timed.filter((t) => t.milliseconds >= least).map((t) => judge(t.launch, t.milliseconds, limits)).toSorted((a, b) => a.share - b.share);
        // More than its limit is the cache's doing and makes up for nothing.
        shares.push(...told.map((t) => Math.min(1, t.share)));
        lines.push(`${model} ${dtype} ${shape}, ${options.threads} threads: limits ${(limits.flops / 1e6).toFixed(0)} GFLOP/s, ${(limits.bytes / 1e6).toFixed(1)} GB/s`, table([['share', 'of', 'us', 'GFLOP/s', 'GB/s', 'op', 'operands'], ...told.map(rowOf)], [5, 6]), '');
        data.push({ model, dtype, shape, limits, kernels: told.map(dataOf) });
      }
    }
  }
  return deliver({ name: 'ops', lines, figure: `${percent(geometricMean(shares))} of its limit, geometric mean of ${shares.length} kernels`, missed: [], data: { threads: options.threads, sets: data } }, options);
}

function rowOf({ launch, milliseconds, share, bound }: Timed): string[] {
  return [percent(share), bound, (1000 * milliseconds).toFixed(0), (launch.flops / milliseconds / 1e6).toFixed(1), (launch.bytes / milliseconds / 1e6).toFixed(1), launch.op, launch.shapes];
}

/** A timed kernel as results keep it. */
export function dataOf({ launch, milliseconds, share, bound }: Timed): Readonly<Record<string, unknown>> {
  const { op, shapes, flops, bytes } = launch;
  return { op, shapes, flops, bytes, milliseconds, share, bound };
}
