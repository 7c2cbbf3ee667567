// The program: runs a schedule over a model's stages, layer-major, and lets parameters settle into the optimizer as the walk passes them.
import type { Accumulation, Device, HeadForm, Model, Parameter, Tensor } from '@lomo/tensor';
import { LomoError, lossIndex, StepTensor, visitStages } from '@lomo/tensor';
import type { Grad } from '@lomo/tensor';
import type { BatchShape, HostBatch } from './batch.ts';
import { BatchStore } from './batch.ts';
import type { ByteStore } from './carrier.ts';
import { Carrier } from './carrier.ts';
import { Execution } from './execution.ts';
import type { Residency } from './residency.ts';
import type { Action, Schedule, Work } from './schedule.ts';
import { checkSchedule } from './schedule.ts';
import { breadthFirst } from './schedules/breadth_first.ts';
import type { Absences, PassKind } from './schedules/transfers.ts';
import { absentBoundaries, checkTransfers, withTransfers } from './schedules/transfers.ts';

/**
 * One backward pass over the step. The optimizer brings them: [update]; or, for clipping by the global norm, [norm, update], or one that
 * puts gradients aside.
 */
export interface ProgramPass {
  readonly name: string;
  /** True when nothing is written before the whole backward has been judged. Default: true of the last of several. */
  readonly atomic?: boolean;
  /** True when `settle` only puts gradients aside, and `finish` applies them. */
  readonly late?: boolean;
  settle(p: Parameter, g: Grad, at: { readonly step: StepTensor; readonly order: number }): void;
  /** After every walk of a stage. */
  drain?(): Promise<void>;
  /** After the last settle. What it reads or writes of a parameter may be away: `present` brings it in, in the order of the settles. */
  finish(step: StepTensor, present: (p: Parameter) => Promise<void>): void | Promise<void>;
  /** The step was given up by an error: lets go of everything. */
  abandon?(): void;
}

export interface ProgramOptions extends BatchShape {
  readonly microBatches: number;
  /** Stages whose tapes are kept from forward to backward; the others are recomputed. Default: none. */
  readonly keeps?: (stage: number) => boolean;
  /** How micro-batches add up. Default: an f32 buffer where micro-batches are whole chunks, else kept factors. */
  readonly accumulate?: Accumulation;
  /** Default: token chunks where that keeps sums canonical, else vocabulary tiles. */
  readonly headForm?: HeadForm;
  readonly schedule?: Schedule;
  /** Brings weights in and out of a model that was made `away`; without it all of them stay on the device. */
  readonly residency?: Residency;
  /** Where boundary activations wait between forward and backward; without it, on the device. */
  readonly offload?: ByteStore;
}

export interface StepInput {
  readonly batches: readonly HostBatch[];
  /** From 1. */
  readonly step: number;
  readonly seed: number;
  readonly lr: number;
  readonly passes: readonly ProgramPass[];
  readonly lossScale?: number;
  /** Gives the step up, honoured before its first update only: `run` then throws Interrupted, and no byte of any weight has changed. */
  readonly signal?: AbortSignal;
  /** What a step is thought to take, until one has been timed: in a long one the host follows the device, so that a signal can still stop it. */
  readonly expectedMilliseconds?: number;
}

export interface StepResult {
  /** Mean loss of the trained tokens; 0 when there were none. */
  readonly loss: number;
  readonly lossSum: number;
  readonly trained: number;
  /** 0 unless a pass measured it. */
  readonly gradNorm: number;
  readonly clipCoefficient: number;
}

/** Milliseconds from which on a step is worth interrupting: the host then goes no further ahead than the device has come. */
const longStep = 1000;

export class Program {
  readonly device: Device;
  readonly model: Model;
  readonly step: StepTensor;
  readonly accumulate: Accumulation;
  readonly headForm: HeadForm;
  /** Of a step of one pass, transfers included. */
  readonly actions: readonly Action[];
  readonly residency: Residency | null;
  readonly offload: Carrier | null;
  private readonly work: readonly Work[];
  private readonly absences: Absences;
  private readonly passActions = new Map<string, readonly Action[]>();
  private readonly options: ProgramOptions;
  private readonly store: BatchStore;
  private readonly stageParameters: readonly (readonly Parameter[])[];
  /** Of the last whole step; null before there was one. */
  private lastMilliseconds: number | null = null;

  constructor(device: Device, model: Model, options: ProgramOptions) {
    this.device = device;
    this.model = model;
    this.options = options;
    const whole = options.microBatches === 1 || options.tokens % device.backend.traits.chunk === 0;
    this.accumulate = options.accumulate ?? (whole ? 'buffer' : 'factors');
    this.headForm = options.headForm ?? (whole ? 'chunks' : 'tiles');
    this.step = new StepTensor(device);
    this.store = new BatchStore(device, options, { microBatches: options.microBatches, step: this.step, headForm: this.headForm });
    this.stageParameters = model.stages.map((stage) => stage.parameters());
    const input = { rank: 0, placement: model.stages.map(() => 0), microBatches: options.microBatches };
    this.work = (options.schedule ?? breadthFirst)(input);
    checkSchedule(this.work, input);
    this.residency = options.residency ?? null;
    this.offload = options.offload === undefined ? null : new Carrier(device, options.offload, 'offload');
    const boundaries = this.offload === null ? [] : absentBoundaries(this.work, model.stages.length).map((away, s) => away && !this.keeps(s));
    this.absences = { weights: this.residency?.streamed ?? [], boundaries };
    this.actions = this.actionsOf({ first: true, last: true, writes: true });
  }

  /** Bytes of pinned memory reserved so far beside the arena, for what comes and goes. */
  get pinned(): number {
    return (this.residency?.pinned ?? 0) + (this.offload?.pinned ?? 0);
  }

  /** What one pass does, in order. */
  actionsOf(pass: PassKind): readonly Action[] {
    const key = `${pass.first} ${pass.last} ${pass.writes}`;
    const known = this.passActions.get(key);
    if (known !== undefined) return known;
    const actions = withTransfers(this.work, this.absences, pass);
    checkTransfers(actions, this.absences, pass);
    this.passActions.set(key, actions);
    return actions;
  }

  /**
   * One step. Throws NonFiniteLoss, NonFiniteGradient or Interrupted (no byte of any weight has changed), or TornStep (parameters that
   * settled before the named one have been updated, it and later ones not). Whatever a step throws, it leaves no tensor behind.
   */
  async run(input: StepInput): Promise<StepResult> {
    const { batches, passes } = input;
    const start = performance.now();
    if (batches.length !== this.options.microBatches) {
      throw new LomoError('BatchShapeError', `${batches.length} micro-batches, the plan has ${this.options.microBatches}`);
    }
    batches.forEach((batch, m) => this.store.write(m, batch));
    const trained = batches.reduce((sum, batch) => sum + countTrained(batch), 0);
    this.step.begin({ ...input, trained });
    const execution = new Execution(this, passes, input.signal === undefined ? null : { step: input.step, signal: input.signal, follow: (this.lastMilliseconds ?? input.expectedMilliseconds ?? 0) > longStep });
    await execution.run();
    const outcome = await this.step.outcome();
    this.lastMilliseconds = performance.now() - start;
    if (outcome.gate !== 'open') throw await this.rejection(outcome.gate.at, { input, settled: execution.settled, lossSum: outcome.lossSum });
    return { ...outcome, trained, loss: trained > 0 ? outcome.lossSum / trained : 0 };
  }

  /** Sum of losses and count of trained tokens over `batches`, without touching a weight. Throws the signal's reason, between two batches. */
  async evaluate(batches: Iterable<HostBatch>, options: { readonly signal?: AbortSignal } = {}): Promise<{ lossSum: number; trained: number; loss: number }> {
    let [lossSum, trained] = [0, 0];
    for (const host of batches) {
      options.signal?.throwIfAborted();
      this.store.write(0, host);
      const count = countTrained(host);
      this.step.begin({ step: 1, seed: 0, lr: 0, trained: count });
      this.step.clearLoss();
      await this.forwardOnly();
      lossSum += (await this.step.outcome()).lossSum;
      trained += count;
    }
    return { lossSum, trained, loss: trained > 0 ? lossSum / trained : 0 };
  }

  /** Losses of the tokens of micro-batch `m` as the last step or evaluation left them, f32 [T]. */
  tokenLosses(m: number): Promise<Float64Array> {
    return this.device.readNumbers(this.store.batches[m]!.tokenLoss);
  }

  /** What an execution needs to know of micro-batch `m`. */
  batch(m: number) {
    return this.store.batches[m]!;
  }

  parametersOf(stage: number): readonly Parameter[] {
    return this.stageParameters[stage]!;
  }

  get microBatches(): number {
    return this.options.microBatches;
  }

  keeps(stage: number): boolean {
    return this.options.keeps?.(stage) ?? false;
  }

  private async forwardOnly(): Promise<void> {
    const undertaking = this.device.arena.undertake();
    let arriving: Tensor | null = null;
    try {
      await visitStages(this.model, (s) => {
        const before: Tensor | null = arriving;
        arriving = this.device.under({ category: 'workspace', recorder: null }, () =>
          this.device.own(() => {
            const result = this.model.stages[s]!.forward(this.batch(0), before);
            return { result, keep: result === null ? [] : [result] };
          }),
        );
        before?.dispose();
      });
    } catch (error) {
      undertaking.rollback();
      throw error;
    }
    (arriving as Tensor | null)?.dispose();
    undertaking.commit();
  }

  private async rejection(at: number, context: { input: StepInput; settled: readonly Parameter[]; lossSum: number }): Promise<LomoError> {
    const { input, settled, lossSum } = context;
    const { step } = input;
    if (at === lossIndex) {
      const microBatches: number[] = [];
      for (let m = 0; m < this.microBatches; m++) if (!(await this.tokenLosses(m)).every(Number.isFinite)) microBatches.push(m);
      return new LomoError('NonFiniteLoss', `step ${step}: the loss is ${lossSum} (micro-batches ${microBatches.join(', ')}); no weight has changed`, { step, microBatches });
    }
    const atomic = input.passes.at(-1)?.atomic ?? input.passes.length > 1;
    const p = settled[at];
    const path = at >= 0 ? (p?.path ?? `parameter ${at}`) : 'the global norm';
    if (atomic || at === 0) {
      const narrow = p?.dtype === 'f16' ? ', or its update leaves the range of f16 (65504)' : '';
      return new LomoError('NonFiniteGradient', `step ${step}: the gradient of ${path} is not finite${narrow}; no weight has changed`, { step, at: path });
    }
    this.residency?.tear();
    return new LomoError('TornStep', `step ${step}: the gradient of ${path} is not finite; ${at} parameters had been updated before it. Go back to the last checkpoint.`, {
      step,
      settled: at,
      at: path,
    });
  }
}

/** Trained tokens of a host batch. */
export function countTrained(batch: HostBatch): number {
  let count = 0;
  for (const target of batch.targets) if (target >= 0) count++;
  return count;
}
