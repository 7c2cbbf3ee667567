// The ways of running that a configuration leaves open. All of them give the same bits, the form of the head excepted; each is run dry when
// somebody asks, once.
import type { BatchShape } from '@lomo/parallel';
import type { Accumulation, Backend, HeadForm } from '@lomo/tensor';
import type { Blueprint, JudgedBy, RunPlan, StagePlace } from './assemble.ts';
import { clipOf, planRun } from './assemble.ts';
import type { RunConfig } from './config.ts';

/** What a machine does in a second, where nobody has measured it. */
export interface Rates {
  /** Floating-point operations. */
  readonly flops: number;
  /** Bytes read or written in memory. */
  readonly memory: number;
  /** Bytes written to, or read from, a disk. */
  readonly disk: number;
}

/** Two cores with AVX-512, and a plain SSD. */
export const assumedRates: Rates = { flops: 200e9, memory: 8e9, disk: 0.5e9 };

/** One way of running. */
export interface Way {
  /** Where weights are that nobody needs right now. */
  readonly stages: StagePlace;
  /** Whether tapes are kept from forward to backward. */
  readonly keeps: boolean;
  /** How a step is judged before its first update, where it is. */
  readonly by: JudgedBy;
  readonly headForm: HeadForm;
  readonly accumulate: Accumulation;
  /** Rows of the step's layout that make a micro-batch; 1 unless `per_device_train_batch_size` is auto. */
  readonly rows: number;
}

/** A way that has been run dry. */
export interface Candidate extends Way {
  readonly plan: RunPlan;
  /** Of one step, estimated from the plan's operations and bytes. */
  readonly seconds: number;
}

/** What a run is made of, before anything is chosen. `shape` is the layout's: a row where micro-batches are to be chosen, else a micro-batch. */
export interface RunBase extends Omit<Blueprint, 'keeps' | 'by' | 'stages' | 'headForm' | 'accumulate'> {
  /** The form of the head that a resumed run was begun with. */
  readonly formerHead?: HeadForm | null;
}

/** Tokens of a micro-batch from which on a product is bound by arithmetic, and adding up gradients in f32 costs it under a twentieth. */
const fullTokens = 2048;

/** True when every step is judged whole before its first update. */
export function isJudgedFirst(config: RunConfig): boolean {
  const clip = clipOf(config);
  return config.atomic || config.dtype === 'f16' || (clip?.norm !== undefined && clip.scope !== 'parameter');
}

/** The layout's shape with `rows` rows in a micro-batch. */
export function joinedShape(shape: RunBase['shape'], rows: number): BatchShape & { readonly microBatches: number } {
  const { tokens, maxSegments, maxLength, microBatches } = shape;
  return { tokens: tokens * rows, maxSegments: maxSegments * rows, maxLength, microBatches: microBatches / rows };
}

/** The open dimensions of a run, preferred values first, and the plans of the ways that somebody asked for. */
export class Ways {
  readonly base: RunBase;
  readonly rates: Rates;
  readonly stages: readonly StagePlace[];
  readonly keeps: readonly boolean[];
  readonly by: readonly JudgedBy[];
  readonly rows: readonly number[];
  readonly headForms: readonly HeadForm[];
  private readonly backend: Backend;
  private readonly known = new Map<string, Promise<Candidate>>();

  constructor(backend: Backend, base: RunBase, rates: Rates = assumedRates) {
    this.backend = backend;
    this.base = base;
    this.rates = rates;
    const { gradient_checkpointing: checkpointing, clip_by: by, head_form: head, stages, offload } = base.config;
    this.stages = stages === 'auto' ? ['resident', 'streamed'] : [stages];
    this.keeps = checkpointing !== 'auto' ? [!checkpointing] : offload === 'file' ? [false] : [true, false];
    this.by = !isJudgedFirst(base.config) ? ['two-pass'] : by === 'auto' ? ['two-pass', 'memory', 'file'] : [by];
    const forms: readonly HeadForm[] = head !== 'auto' ? [head] : this.whole(1) ? ['chunks', 'tiles'] : ['tiles'];
    this.headForms = base.formerHead === 'tiles' && forms.length > 1 ? forms.toReversed() : forms;
    this.rows = this.rowsByPreference();
  }

  /** Ways that have been run dry so far. */
  get runs(): number {
    return this.known.size;
  }

  /** Whether micro-batches of so many rows are whole chunks, so that sums over tokens do not show where one ends. */
  whole(rows: number): boolean {
    const { tokens, microBatches } = this.base.shape;
    return microBatches === rows || (tokens * rows) % this.backend.traits.chunk === 0;
  }

  /** How micro-batches of so many rows may add up, preferred first. */
  accumulations(rows: number): readonly Accumulation[] {
    const wish = this.base.config.accumulation;
    if (wish !== 'auto') return [wish];
    if (this.base.shape.microBatches === rows) return ['buffer'];
    return this.whole(rows) ? ['buffer', 'factors'] : ['factors'];
  }

  /** The preferred way, changed where `wish` says. */
  way(wish: Partial<Way> = {}): Way {
    const rows = wish.rows ?? this.rows[0]!;
    return { stages: this.stages[0]!, keeps: this.keeps[0]!, by: this.by[0]!, headForm: this.headForms[0]!, accumulate: this.accumulations(rows)[0]!, rows, ...wish };
  }

  /** The plan of a way, made at the first call. */
  candidate(way: Way): Promise<Candidate> {
    const key = JSON.stringify([way.stages, way.keeps, way.by, way.headForm, way.accumulate, way.rows]);
    const known = this.known.get(key);
    if (known !== undefined) return known;
    const made = this.plan(way);
    this.known.set(key, made);
    return made;
  }

  private async plan(way: Way): Promise<Candidate> {
    const { rows, ...parts } = way;
    const plan = await planRun(this.backend, { ...this.base, ...parts, shape: joinedShape(this.base.shape, rows) });
    return { ...way, plan, seconds: stepSeconds(plan, { by: way.by, config: this.base.config, rates: this.rates }) };
  }

  /** All splits of a step's rows that leave its bits alone, the one that is large enough first, then smaller ones. */
  private rowsByPreference(): readonly number[] {
    const { config, shape } = this.base;
    if (config.per_device_train_batch_size !== 'auto') return [1];
    const divisors = Array.from({ length: shape.microBatches }, (_, i) => i + 1).filter((k) => shape.microBatches % k === 0);
    const sums = this.headForms[0] === 'chunks' || config.accumulation === 'buffer';
    const alike = divisors.filter((k) => !sums || this.whole(k));
    const enough = alike.find((k) => k * shape.tokens >= fullTokens) ?? alike.at(-1) ?? 1;
    return alike.filter((k) => k <= enough).toReversed();
  }
}

/** Floating-point operations of a step. */
export function stepFlops(plan: RunPlan): number {
  return plan.flops.get('step') ?? 0;
}

/** Bytes that a step reads and writes in memory. */
export function stepMoved(plan: RunPlan): number {
  return plan.moved.get('step') ?? 0;
}

/** Weights and boundaries that come from files and go there while stages compute, seconds of disk. */
export function streamSeconds({ streamed, offloaded }: RunPlan, rates: Rates): number {
  return ((streamed?.read ?? 0) + (streamed?.written ?? 0) + 2 * offloaded) / rates.disk;
}

/** Gradients put aside in a file: written once and read once; with f16 weights read once more, for the rehearsal. */
export function spillSeconds(plan: RunPlan, { by, config, rates }: { readonly by: JudgedBy; readonly config: RunConfig; readonly rates: Rates }): number {
  return by === 'file' ? ((config.dtype === 'f16' ? 3 : 2) * plan.spilled) / rates.disk : 0;
}

/** One step: arithmetic, then memory; files beside both where they are fetched ahead, after both where they are not. */
function stepSeconds(plan: RunPlan, context: { readonly by: JudgedBy; readonly config: RunConfig; readonly rates: Rates }): number {
  const { rates } = context;
  return Math.max(stepFlops(plan) / rates.flops + stepMoved(plan) / rates.memory, streamSeconds(plan, rates)) + spillSeconds(plan, context);
}
