// Puts a run together on a device: model, optimizer, program, in one fixed order. The plan and the run both call this.
import type { LanguageModel, ModelFamily } from '@lomo/models';
import { createModel, generate } from '@lomo/models';
import type { JsonObject } from '@lomo/models';
import type { Clip, Rule, SpillStore } from '@lomo/optim';
import { Optimizer } from '@lomo/optim';
import type { BatchShape, ByteStore, HostBatch, MemoryPlan, Traffic } from '@lomo/parallel';
import { makePlan, Program, Residency } from '@lomo/parallel';
import type { Accumulation, Backend, Device, HeadForm } from '@lomo/tensor';
import { LomoError } from '@lomo/tensor';
import type { RunConfig } from './config.ts';

/** What a run's memory depends on, beside its configuration. */
export interface Blueprint {
  readonly config: RunConfig;
  readonly json: JsonObject;
  readonly families: readonly ModelFamily[];
  readonly rule: Rule;
  readonly shape: BatchShape & { readonly microBatches: number };
  /** Whether tapes are kept from forward to backward. */
  readonly keeps: boolean;
  /** How a step is judged before its first update, where it is. */
  readonly by: JudgedBy;
  /** Whether weights stay on the device, or come and go stage by stage. */
  readonly stages: StagePlace;
  readonly headForm: HeadForm;
  /** How micro-batches add up to one gradient. */
  readonly accumulate: Accumulation;
  /** Room for text: prompt and new tokens; 0 for a run that never generates. */
  readonly generates: { readonly prompt: number; readonly fresh: number };
  readonly evaluates: boolean;
}

/** A second backward, or gradients put aside: in the arena, or in a file. */
export type JudgedBy = Exclude<RunConfig['clip_by'], 'auto'>;

/** Where the weights of stages are that nobody needs right now: on the device, or in a file. */
export type StagePlace = Exclude<RunConfig['stages'], 'auto'>;

/** Where a run keeps what is not on the device; each is needed only by runs that keep something there. */
export interface Stores {
  /** Gradients put aside, with `by: 'file'`. */
  readonly spill?: SpillStore | null;
  /** Weights, with `stages: 'streamed'`. */
  readonly stream?: ByteStore | null;
  /** Boundary activations, with `offload: file`. */
  readonly offload?: ByteStore | null;
}

export interface Assembly {
  readonly device: Device;
  readonly model: LanguageModel;
  readonly optimizer: Optimizer;
  readonly program: Program;
}

/** Builds everything that lives as long as the run. */
export function assemble(device: Device, blueprint: Blueprint, { spill = null, stream = null, offload = null }: Stores = {}): Assembly {
  const { config, json, families, rule, shape, keeps, by, stages, headForm, accumulate } = blueprint;
  if (by === 'file' && spill === null) throw new LomoError('ConfigError', 'clip_by: file needs a file');
  if (config.offload === 'file' && offload === null) throw new LomoError('ConfigError', 'offload: file needs a file');
  const model = createModel(json, device, { families, dtype: config.dtype, maxLength: shape.maxLength, away: stages === 'streamed' });
  if (stages === 'streamed') {
    if (stream === null) throw new LomoError('ConfigError', 'stages: streamed needs a file');
    model.residence = new Residency(device, model, stream);
  }
  const residency = model.residence instanceof Residency ? model.residence : null;
  const clip = clipOf(config);
  const optimizer = new Optimizer(device, model.parameters, {
    rule,
    ...(clip === null ? {} : { clip }),
    weightDecay: config.weight_decay,
    rounding: config.rounding,
    telemetry: config.telemetry,
    atomic: config.atomic,
    ...(by === 'two-pass' ? {} : { spill: by === 'memory' ? by : spill! }),
  });
  const last = model.stages.length - 1;
  const program = new Program(device, model, {
    ...shape,
    keeps: (stage) => keeps && stage !== last,
    accumulate,
    headForm,
    ...(residency === null ? {} : { residency }),
    ...(config.offload === 'file' ? { offload: offload! } : {}),
  });
  return { device, model, optimizer, program };
}

/** What the configuration clips, or null. */
export function clipOf(config: RunConfig): Clip | null {
  const mode = config.clip_mode ?? (config.max_grad_norm !== undefined || config.optim === 'lomo' ? 'global' : config.clip_value === undefined ? 'none' : 'value');
  const value = config.clip_value === undefined ? {} : { value: config.clip_value };
  switch (mode) {
    case 'none':
      return null;
    case 'value':
      if (config.clip_value === undefined) throw new LomoError('ConfigError', "clip_mode 'value' needs clip_value");
      return value;
    case 'parameter':
    case 'global':
      return { ...value, norm: config.max_grad_norm ?? 1, scope: mode };
    default:
      throw new LomoError('ConfigError', `no clip_mode '${String(mode satisfies never)}'`);
  }
}

/** A plan, and what its step puts aside. */
export interface RunPlan extends MemoryPlan {
  /** Numbers that the model has. */
  readonly parameters: number;
  /** Name of the stage with the head. */
  readonly lastStage: string;
  /** Bytes of gradients that one step spills; 0 where nothing is. */
  readonly spilled: number;
  /** Weights that come and go: bytes of them all, and bytes that one step reads and writes; null where they stay. */
  readonly streamed: (Traffic & { readonly bytes: number }) | null;
  /** Bytes of boundary activations that one step writes, and reads once a pass; 0 where they stay. */
  readonly offloaded: number;
}

/** Takes bytes and gives zeros: a plan's. */
export const dryStore: SpillStore & ByteStore = { write: () => Promise.resolve(), read: () => Promise.resolve() };

/** Runs the blueprint without data for `backend`: set-up, one step, one evaluation, one text. */
export async function planRun(backend: Backend, blueprint: Blueprint): Promise<RunPlan> {
  let [spilled, offloaded, parameters] = [0, 0, 0];
  let lastStage = '';
  let streamed: RunPlan['streamed'] = null;
  const plan = await makePlan(backend, function* (device) {
    let made: Assembly | null = null;
    const parts = (): Assembly => (made ??= assemble(device, blueprint, { spill: dryStore, stream: dryStore, offload: dryStore }));
    yield {
      name: 'setup',
      run: () => {
        const { model } = parts();
        parameters = model.size;
        lastStage = model.stages.at(-1)!.name;
      },
    };
    const { tokens, maxSegments, microBatches } = blueprint.shape;
    const empty = emptyBatch(tokens, maxSegments);
    const step = { step: 1, seed: 0, lr: 0, batches: Array.from({ length: microBatches }, () => empty) };
    yield {
      name: 'step',
      run: async () => {
        const { program, optimizer } = parts();
        await program.run({ ...step, passes: optimizer.passes });
        spilled = optimizer.spilledBytes;
        offloaded = program.offload?.put ?? 0;
        if (program.residency !== null) streamed = { ...program.residency.traffic, bytes: program.residency.bytes };
      },
    };
    if (blueprint.evaluates) {
      yield {
        name: 'evaluate',
        run: async () => {
          await parts().program.evaluate([empty]);
        },
      };
    }
    const { prompt, fresh } = blueprint.generates;
    if (fresh > 0) {
      yield {
        name: 'generate',
        run: async () => {
          const ids = Array.from({ length: prompt }, () => 0);
          let left = 2;
          for await (const _ of generate(parts().model, ids, { maxNewTokens: fresh, stop: [] })) if (--left === 0) break;
        },
      };
    }
  });
  return { ...plan, parameters, lastStage, spilled, streamed, offloaded };
}

/** A micro-batch of nothing: the shape of a plan. */
export function emptyBatch(tokens: number, maxSegments: number): HostBatch {
  return {
    tokens: new Int32Array(tokens),
    targets: new Int32Array(tokens).fill(-100),
    positions: new Int32Array(tokens),
    starts: new Int32Array(maxSegments + 1).fill(tokens, 1),
  };
}
