// Every kernel of a training step alone, and a whole step's launches in order, on the GPU.
import type { CudaBackend } from '@lomo/cuda';
import { adalomo, adamw, lomo } from '@lomo/optim';
import type { DType, Region } from '@lomo/tensor';
import type { Setup } from '../assembly.ts';
import { ruleNamed } from '../assembly.ts';
import type { Launch } from '../launches.ts';
import { RecordedStep } from '../launches.ts';
import { raised } from '../limits.ts';
import { modelConfig } from '../models.ts';
import { distinct, judge, keyOf } from '../ops.ts';
import type { Line } from '../profile.ts';
import { group } from '../profile.ts';
import type { GpuLimits, LimitSizes } from './limits.ts';
import { measureGpuLimits } from './limits.ts';
import type { Where } from './where.ts';
import { openCuda } from './where.ts';

export interface KernelsJob {
  readonly where: Where;
  readonly model: string;
  readonly dtype: 'f32' | 'bf16';
  readonly seq: number;
  readonly batch: number;
  readonly sizes: LimitSizes;
}

export interface Operand {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** One kernel at one shape, as it ran alone. */
export interface KernelTime {
  readonly id: string;
  readonly op: string;
  readonly shapes: string;
  readonly ins: readonly Operand[];
  readonly inouts: readonly Operand[];
  readonly outs: readonly Operand[];
  readonly attributes: Readonly<Record<string, number>>;
  readonly milliseconds: number;
  readonly flops: number;
  readonly bytes: number;
  /** Least time the limits allow over the time it took. */
  readonly share: number;
  readonly bound: 'products' | 'memory';
}

export interface KernelsResult {
  readonly limits: GpuLimits;
  readonly kernels: readonly KernelTime[];
}

/** Times every kernel of a step of one layer and the head, under three rules. */
export async function timeKernels(job: KernelsJob): Promise<KernelsResult> {
  await using backend = openCuda(job.where);
  const limits = await measureGpuLimits(backend, job.sizes);
  const timed: { readonly launch: Launch; readonly milliseconds: number }[] = [];
  for (const rule of [lomo, adalomo(), adamw()]) {
    const { dtype, seq, batch } = job;
    const setup: Setup = { json: modelConfig(job.model, { num_hidden_layers: 1 }), dtype, seq, batch, microBatches: 1, rule, keeps: false, rounding: 'stochastic' };
    const step = await RecordedStep.make(backend, setup, 1);
    try {
      const known = new Set(timed.map((t) => keyOf(t.launch)));
      const fresh = distinct(step.launches).filter((launch) => !known.has(keyOf(launch)));
      const times = await step.alone(fresh);
      timed.push(...fresh.map((launch, i) => ({ launch, milliseconds: times[i]! })));
    } finally {
      step.free();
    }
  }
  const best = raised({ flops: limits.products / 1000, bytes: limits.bytes / 1000 }, timed.map(({ launch, milliseconds }) => ({ ...launch, milliseconds })));
  return { limits: { ...limits, products: best.flops * 1000 }, kernels: timed.map(({ launch, milliseconds }) => timeOf(launch, { milliseconds, best })) };
}

function timeOf(launch: Launch, { milliseconds, best }: { readonly milliseconds: number; readonly best: Parameters<typeof judge>[2] }): KernelTime {
  const { share, bound } = judge(launch, milliseconds, best);
  const { op, shapes, flops, bytes, kernel, operands } = launch;
  const plain = (regions: readonly Region[]): Operand[] => regions.map(({ shape, dtype }) => ({ shape, dtype }));
  const attributes = Object.fromEntries(kernel.attributes.map((name, i) => [name, launch.attributes[i]!]));
  return { id: keyOf(launch), op, shapes, ins: plain(operands.ins), inouts: plain(operands.inouts), outs: plain(operands.outs), attributes, milliseconds, flops, bytes, share, bound };
}

export interface ProfileJob extends Omit<KernelsJob, 'sizes'> {
  readonly sizes: LimitSizes;
  readonly kept: boolean;
}

/** Milliseconds. */
export interface ProfileResult {
  readonly step: number;
  readonly sum: number;
  readonly between: number;
  readonly byOp: readonly Line[];
}

/** Where the time of a whole step goes, op by op. Throws where the backend has no stopwatch. */
export async function profileStep(job: ProfileJob): Promise<ProfileResult> {
  await using backend: CudaBackend = openCuda(job.where);
  const { model, dtype, seq, batch, kept } = job;
  const step = await RecordedStep.make(backend, { json: modelConfig(model), dtype, seq, batch, microBatches: 1, rule: ruleNamed('lomo'), keeps: kept, rounding: 'stochastic' });
  try {
    const limits = await measureGpuLimits(backend, job.sizes);
    const { times, between } = await step.inOrder(3);
    const best = raised({ flops: limits.products / 1000, bytes: limits.bytes / 1000 }, step.launches.map(({ op, flops }, i) => ({ op, flops, milliseconds: times[i]! })));
    const byOp = group(step.launches.map((launch, i) => judge(launch, times[i]!, best)), (t) => t.launch.op);
    return { step: step.stepTime, sum: times.reduce((a, b) => a + b, 0), between, byOp };
  } finally {
    step.free();
  }
}
