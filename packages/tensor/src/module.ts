// Modules: objects whose properties are parameters and other modules; and stages, the unit of recomputation, placement and accumulation.
import type { HeadForm } from './ops/linear_cross_entropy.ts';
import type { StepTensor } from './step.ts';
import { Parameter } from './tensor.ts';
import type { Tensor } from './tensor.ts';

/** A part of a model. Submodules and parameters are found among its own properties, in the order they were set. */
export abstract class Module {
  /** Every parameter of this module and below, each once, in order. */
  parameters(): Parameter[] {
    const found = new Set<Parameter>();
    collect(this, found);
    return [...found];
  }
}

function collect(value: unknown, found: Set<Parameter>): void {
  if (value instanceof Parameter) found.add(value);
  else if (value instanceof Module) for (const part of Object.values(value)) collect(part, found);
  else if (Array.isArray(value)) for (const part of value) collect(part, found);
}

/** One micro-batch on the device: T tokens of packed segments. */
export interface Batch {
  /** Token ids i32 [T]. */
  readonly tokens: Tensor;
  /** Label of each position, i32 [T]; below 0: masked. */
  readonly targets: Tensor;
  /** Position within its segment, i32 [T]. */
  readonly positions: Tensor;
  /** Segment starts i32 [S + 1], padded with T. */
  readonly starts: Tensor;
  /** Longest segment possible. */
  readonly maxLength: number;
  /** Losses of the tokens, f32 [T]. */
  readonly tokenLoss: Tensor;
  /** Index of the first token in the step's order of tokens. */
  readonly start: number;
  readonly step: StepTensor;
  readonly headForm: HeadForm;
}

/**
 * A stage turns what arrives into what leaves. The first gets null; the last returns null and adds its losses to the step
 * (`linearCrossEntropy`). A stage reads only parameters found among its own properties.
 */
export abstract class Stage extends Module {
  /** Names the stage in errors, plans and traces: 'block 3'. */
  abstract readonly name: string;
  abstract forward(batch: Batch, arriving: Tensor | null): Tensor | null;
}

/** Who brings stages' parameters onto the device and lets them go again, where they do not all stay there. */
export interface Residence {
  /** Calls `body` for stages 0 to `count` - 1 in turn, each while its parameters are there and the next ones are on their way. Nothing is written back. */
  visit(count: number, body: (stage: number) => void): Promise<void>;
}

/** What a program trains: stages in order. Tied parameters are one object in two stages. */
export interface Model {
  readonly stages: readonly Stage[];
  /** Absent or null where every parameter stays on the device. */
  readonly residence?: Residence | null;
}

/** Calls `body` for the first `count` stages of a model in order, each while its parameters are on the device. */
export async function visitStages({ stages, residence }: Model, body: (stage: number) => void, count = stages.length): Promise<void> {
  if (residence) await residence.visit(count, body);
  else for (let stage = 0; stage < count; stage++) body(stage);
}
