// Trains a model on the GPU for some steps in this process, held to its plan, and says how fast, in how much memory, to which bits.
import { createHash } from 'node:crypto';
import { initialise, parameterSource } from '@lomo/models';
import { underPlan } from '@lomo/parallel';
import type { MemoryPlan } from '@lomo/parallel';
import { driverMemory, startupBytes } from '@lomo/cuda';
import type { CudaBackend } from '@lomo/cuda';
import type { HeadForm } from '@lomo/tensor';
import { Device, Random } from '@lomo/tensor';
import type { Setup } from '../assembly.ts';
import { assemble, batchesOf, modelWork, planStep, ruleNamed, run } from '../assembly.ts';
import { spread } from '../manners.ts';
import { modelConfig } from '../models.ts';
import { seenByNvml, usedBytes } from './machine.ts';
import type { Where } from './where.ts';
import { machineOptions, openCuda } from './where.ts';

/** What to train. Plain data. */
export interface StepsJob {
  readonly where: Where;
  /** The first of these whose plan fits. */
  readonly models: readonly string[];
  readonly dtype: 'f32' | 'bf16';
  readonly seq: number;
  readonly batch: number;
  readonly microBatches: number;
  /** 'where they fit': tapes are kept, or recomputed where there is no memory for them. */
  readonly tapes: 'kept' | 'recomputed' | 'where they fit';
  readonly headForm?: HeadForm;
  readonly tileBytes?: number;
  readonly lr: number;
  readonly warmup: number;
  readonly steps: number;
  /** Every step trains on the tokens of the first. */
  readonly sameTokens: boolean;
  /** SHA-256 over all weights at the end. */
  readonly digest: boolean;
}

/** Bytes, seconds. */
export interface StepsResult {
  readonly model: string;
  /** Models that do not fit, and why. */
  readonly passedOver: readonly string[];
  readonly parameters: number;
  readonly tokens: number;
  readonly kept: boolean;
  readonly arena: number;
  readonly reserved: number;
  readonly weights: number;
  /** Live bytes by category at the plan's peak. */
  readonly atPeak: Readonly<Record<string, number>>;
  /** Whether NVML names this process among the holders of memory; null where it does not answer. */
  readonly seenByNvml: boolean | null;
  /** What the driver called free, in the context, less what start-up takes. */
  readonly room: number;
  /** Of the whole GPU as the driver sees it: before this process, with its backend open, after step 2, at the end; null where nobody can tell. */
  readonly driver: Readonly<Record<'before' | 'open' | 'second' | 'end', number>> | null;
  /** Seconds that drawing the weights on the device took. */
  readonly draw: number;
  readonly times: readonly number[];
  readonly losses: readonly number[];
  readonly tokensPerSecond: number;
  /** Operations of one step as the model needs them; recomputation does not count. */
  readonly work: number;
  readonly launches: number;
  /** Native allocations after step 2, and waits of the feeding thread in a step. */
  readonly laterAllocations: number;
  readonly waits: number;
  readonly digest: string | null;
}

/** Runs the job. Throws what the backend, the plan or a step throws, and where nothing fits. */
export async function trainSteps(job: StepsJob): Promise<StepsResult> {
  const { where, warmup, steps, lr } = job;
  const used = (): number => usedBytes(where);
  const before = used();
  await using backend = openCuda(where);
  const open = used();
  const room = driverMemory(machineOptions(where)).free - startupBytes;
  const { setup, model: name, plan, passedOver } = await fitting(backend, job, room);
  const device = new Device(backend, { bytes: plan.extent, ...(job.tileBytes === undefined ? {} : { tileBytes: job.tileBytes }) });
  try {
    const made = await underPlan(device, plan, { name: 'setup', body: () => assemble(device, setup) });
    let start = performance.now();
    initialise(made.model, 0);
    await device.read(made.model.parameters.at(-1)!.rows(0, 1));
    const draw = (performance.now() - start) / 1000;
    const stream = Uint8Array.from(new Random(1).ints(Math.max(2 ** 18, setup.seq * setup.batch * setup.microBatches), 256));
    const [times, losses]: [number[], number[]] = [[], []];
    let [second, counts] = [NaN, backend.counters()];
    for (let i = 0; i < warmup + steps; i++) {
      const batches = batchesOf(setup, stream, job.sameTokens ? 0 : i);
      start = performance.now();
      const step = (): Promise<number> => run(made, { step: i + 1, lr, batches });
      // The first step is the plan's, allocation by allocation; later ones repeat it.
      losses.push(i === 0 ? await underPlan(device, plan, { name: 'step', body: step }) : await step());
      times.push((performance.now() - start) / 1000);
      if (i === 1) [second, counts] = [used(), backend.counters()];
    }
    const after = backend.counters();
    const end = used();
    const timed = times.slice(warmup);
    const tokens = setup.seq * setup.batch * setup.microBatches;
    return {
      model: name,
      passedOver,
      parameters: made.model.size,
      tokens,
      kept: setup.keeps,
      arena: plan.extent,
      reserved: backend.reserved(),
      weights: plan.byCategory.weights,
      atPeak: plan.atPeak,
      seenByNvml: seenByNvml(where),
      room,
      driver: [before, open, second, end].every(Number.isFinite) ? { before, open, second, end } : null,
      draw,
      times,
      losses,
      tokensPerSecond: tokens / spread(timed).median,
      work: modelWork(made.model, setup),
      launches: plan.launches.get('step') ?? 0,
      laterAllocations: after.allocations - counts.allocations,
      waits: (after.waits - counts.waits) / Math.max(1, warmup + steps - 2),
      digest: job.digest ? await digestOf(made.model.parameters) : null,
    };
  } finally {
    device.free();
  }
}

interface Fitting {
  readonly model: string;
  readonly setup: Setup;
  readonly plan: MemoryPlan;
  readonly passedOver: readonly string[];
}

/** The first of the job's models and ways that needs at most `room` bytes. */
async function fitting(backend: CudaBackend, job: StepsJob, room: number): Promise<Fitting> {
  const passedOver: string[] = [];
  for (const model of job.models) {
    for (const keeps of job.tapes === 'where they fit' ? [true, false] : [job.tapes === 'kept']) {
      const { dtype, seq, batch, microBatches, headForm, tileBytes } = job;
      const setup: Setup = {
        json: modelConfig(model), dtype, seq, batch, microBatches, rule: ruleNamed('lomo'), keeps, rounding: 'stochastic',
        ...(headForm === undefined ? {} : { headForm }), ...(tileBytes === undefined ? {} : { tileBytes }),
      };
      const plan = await planStep(backend, setup);
      if (plan.extent <= room) return { model, setup, plan, passedOver };
      passedOver.push(`${model}, tapes ${keeps ? 'kept' : 'recomputed'}: ${gib(plan.extent)} GiB, ${gib(room)} can be had`);
    }
  }
  throw new Error(`nothing fits: ${passedOver.join('; ')}`);
}

const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(1);

async function digestOf(parameters: readonly Parameters<typeof parameterSource>[0][]): Promise<string> {
  const hash = createHash('sha256');
  for (const parameter of parameters) for await (const slice of parameterSource(parameter).slices()) hash.update(slice);
  return hash.digest('hex');
}
