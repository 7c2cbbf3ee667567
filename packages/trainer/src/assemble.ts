// Puts a run together on a device: model, optimizer, program, in one fixed order. The plan and the run both call this.
import type { LanguageModel, ModelFamily } from '@lomo/models';
import { createModel, generate } from '@lomo/models';
import type { JsonObject } from '@lomo/models';
import type { Clip, Rule, SpillStore } from '@lomo/optim';
import { Optimizer } from '@lomo/optim';
import type { BatchShape, HostBatch, MemoryPlan } from '@lomo/parallel';
import { makePlan, Program } from '@lomo/parallel';
import type { Backend, Device } from '@lomo/tensor';
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
  /** Room for text: prompt and new tokens; 0 for a run that never generates. */
  readonly generates: { readonly prompt: number; readonly fresh: number };
  readonly evaluates: boolean;
}

/** A second backward, or gradients put aside: in the arena, or in a file. */
export type JudgedBy = Exclude<RunConfig['clip_by'], 'auto'>;

export interface Assembly {
  readonly device: Device;
  readonly model: LanguageModel;
  readonly optimizer: Optimizer;
  readonly program: Program;
}

/** Builds everything that lives as long as the run; `store` is where gradients are put aside with `by: 'file'`. */
export function assemble(device: Device, blueprint: Blueprint, store: SpillStore | null = null): Assembly {
  const { config, json, families, rule, shape, keeps, by } = blueprint;
  if (by === 'file' && store === null) throw new LomoError('ConfigError', 'clip_by: file needs a file');
  const model = createModel(json, device, { families, dtype: config.dtype, maxLength: shape.maxLength });
  const clip = clipOf(config);
  const optimizer = new Optimizer(device, model.parameters, {
    rule,
    ...(clip === null ? {} : { clip }),
    weightDecay: config.weight_decay,
    rounding: config.rounding,
    telemetry: config.telemetry,
    atomic: config.atomic,
    ...(by === 'two-pass' ? {} : { spill: by === 'memory' ? by : store! }),
  });
  const last = model.stages.length - 1;
  const program = new Program(device, model, {
    ...shape,
    keeps: (stage) => keeps && stage !== last,
    ...(config.accumulation === 'auto' ? {} : { accumulate: config.accumulation }),
    ...(config.head_form === 'auto' ? {} : { headForm: config.head_form }),
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
  /** Bytes of gradients that one step spills; 0 where nothing is. */
  readonly spilled: number;
}

/** Takes bytes and gives zeros: a plan's. */
const dryStore: SpillStore = { write: () => Promise.resolve(), read: () => Promise.resolve() };

/** Runs the blueprint without data for `backend`: set-up, one step, one evaluation, one text. */
export async function planRun(backend: Backend, blueprint: Blueprint): Promise<RunPlan> {
  let spilled = 0;
  const plan = await makePlan(backend, function* (device) {
    let made: Assembly | null = null;
    const parts = (): Assembly => (made ??= assemble(device, blueprint, dryStore));
    yield { name: 'setup', run: () => void parts() };
    const { tokens, maxSegments, microBatches } = blueprint.shape;
    const empty = emptyBatch(tokens, maxSegments);
    const step = { step: 1, seed: 0, lr: 0, batches: Array.from({ length: microBatches }, () => empty) };
    yield {
      name: 'step',
      run: async () => {
        const { program, optimizer } = parts();
        await program.run({ ...step, passes: optimizer.passes });
        spilled = optimizer.spilledBytes;
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
  return { ...plan, spilled };
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
