// The program: runs a schedule over a model's stages, layer-major, and lets parameters settle into the optimizer as the walk passes them.
import type { Accumulation, Category, Device, HeadForm, Model, Parameter, Stage, Tensor } from '@lomo/tensor';
import { CountingTape, Ledger, LomoError, lossIndex, StepTensor, Tape } from '@lomo/tensor';
import type { Grad } from '@lomo/tensor';
import type { BatchShape, HostBatch } from './batch.ts';
import { BatchStore } from './batch.ts';
import type { Action, Schedule } from './schedule.ts';
import { checkSchedule } from './schedule.ts';
import { breadthFirst } from './schedules/breadth_first.ts';

/** One backward pass over the step. The optimizer brings them: [update], or [norm, update] for clipping by the global norm. */
export interface ProgramPass {
  readonly name: string;
  settle(p: Parameter, g: Grad, at: { readonly step: StepTensor; readonly order: number }): void;
  finish(step: StepTensor): void;
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
}

export interface StepInput {
  readonly batches: readonly HostBatch[];
  /** From 1. */
  readonly step: number;
  readonly seed: number;
  readonly lr: number;
  readonly passes: readonly ProgramPass[];
  readonly lossScale?: number;
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

/** Longest time the program holds the event loop, milliseconds. */
const breath = 15;

export class Program {
  readonly device: Device;
  readonly model: Model;
  readonly step: StepTensor;
  readonly accumulate: Accumulation;
  readonly headForm: HeadForm;
  readonly actions: readonly Action[];
  private readonly options: ProgramOptions;
  private readonly store: BatchStore;
  private readonly stageParameters: readonly (readonly Parameter[])[];

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
    this.actions = (options.schedule ?? breadthFirst)(input);
    checkSchedule(this.actions, input);
  }

  /**
   * One step. Throws NonFiniteLoss or NonFiniteGradient (no byte of any weight has changed), or TornStep (parameters that settled before
   * the named one have been updated, it and later ones not).
   */
  async run(input: StepInput): Promise<StepResult> {
    const { batches, passes } = input;
    if (batches.length !== this.options.microBatches) {
      throw new LomoError('BatchShapeError', `${batches.length} micro-batches, the plan has ${this.options.microBatches}`);
    }
    batches.forEach((batch, m) => this.store.write(m, batch));
    const trained = batches.reduce((sum, batch) => sum + countTrained(batch), 0);
    this.step.begin({ ...input, trained });
    const execution = new Execution(this, passes.length);
    try {
      for (const [index, pass] of passes.entries()) await execution.pass(pass, index);
    } finally {
      execution.dispose();
    }
    const outcome = await this.step.outcome();
    if (outcome.gate !== 'open') throw await this.rejection(outcome.gate.at, { input, paths: execution.settled, lossSum: outcome.lossSum });
    return { ...outcome, trained, loss: trained > 0 ? outcome.lossSum / trained : 0 };
  }

  /** Sum of losses and count of trained tokens over `batches`, without touching a weight. */
  async evaluate(batches: Iterable<HostBatch>): Promise<{ lossSum: number; trained: number; loss: number }> {
    let [lossSum, trained] = [0, 0];
    for (const host of batches) {
      this.store.write(0, host);
      const count = countTrained(host);
      this.step.begin({ step: 1, seed: 0, lr: 0, trained: count });
      this.step.clearLoss();
      this.forwardOnly();
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

  private forwardOnly(): void {
    let arriving: Tensor | null = null;
    for (const stage of this.model.stages) {
      const before: Tensor | null = arriving;
      arriving = this.device.under({ category: 'workspace', recorder: null }, () =>
        this.device.own(() => {
          const result = stage.forward(this.batch(0), before);
          return { result, keep: result === null ? [] : [result] };
        }),
      );
      before?.dispose();
    }
    arriving?.dispose();
  }

  private async rejection(at: number, context: { input: StepInput; paths: readonly string[]; lossSum: number }): Promise<LomoError> {
    const { input, paths, lossSum } = context;
    const { step } = input;
    if (at === lossIndex) {
      const microBatches: number[] = [];
      for (let m = 0; m < this.microBatches; m++) if (!(await this.tokenLosses(m)).every(Number.isFinite)) microBatches.push(m);
      return new LomoError('NonFiniteLoss', `step ${step}: the loss is ${lossSum} (micro-batches ${microBatches.join(', ')}); no weight has changed`, { step, microBatches });
    }
    const judgedFirst = input.passes.length > 1;
    const path = at >= 0 ? (paths[at] ?? `parameter ${at}`) : 'the global norm';
    if (judgedFirst || at === 0) {
      return new LomoError('NonFiniteGradient', `step ${step}: the gradient of ${path} is not finite; no weight has changed`, { step, at: path });
    }
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

type Slots<T> = (T | null)[][];

/** What one step holds between its actions. */
class Execution {
  readonly settled: string[] = [];
  private readonly program: Program;
  private readonly passes: number;
  private readonly boundaries: Slots<Tensor>;
  private readonly results: Slots<Tensor>;
  private readonly gradients: Slots<Tensor>;
  private readonly tapes: Slots<Tape>;
  private lastBreath = performance.now();

  constructor(program: Program, passes: number) {
    this.program = program;
    this.passes = passes;
    const slots = <T>(): Slots<T> => program.model.stages.map(() => Array.from({ length: program.microBatches }, () => null));
    this.boundaries = slots();
    this.results = slots();
    this.gradients = slots();
    this.tapes = slots();
  }

  async pass(pass: ProgramPass, index: number): Promise<void> {
    const { program } = this;
    const { device, step } = program;
    this.settled.length = 0;
    const ledger = new Ledger(device, {
      microBatches: program.microBatches,
      accumulate: program.accumulate,
      settle: (p, g, order) => {
        this.settled.push(p.path);
        pass.settle(p, g, { step, order });
      },
    });
    step.clearLoss();
    // One hold a stage and micro-batch: no parameter settles before its last walk has begun.
    program.model.stages.forEach((_, s) => {
      for (const p of program.parametersOf(s)) for (let m = 0; m < program.microBatches; m++) ledger.hold(p);
    });
    for (const action of program.actions) {
      if (action.kind === 'backward') this.backward(action, { ledger, last: index === this.passes - 1 });
      else if (index === 0) this.forward(action, ledger);
      await this.breathe();
    }
    ledger.finish();
    pass.finish(step);
  }

  /** Gives back whatever an interrupted step still holds. */
  dispose(): void {
    for (const slots of [this.boundaries, this.results, this.gradients]) for (const row of slots) for (const tensor of row) tensor?.dispose();
    for (const row of this.tapes) for (const tape of row) tape?.discard();
  }

  private forward({ stage: s, microBatch: m }: Action, ledger: Ledger): void {
    const { program } = this;
    const stage = program.model.stages[s]!;
    const kept = program.keeps(s) ? this.record(s, m, { ledger, category: 'saved' }) : this.count(stage, m, s);
    if (kept === null) throw new LomoError('StageError', `stage '${stage.name}' returned nothing, but is not the last`, { stage: stage.name });
    program.device.arena.assign(kept.block, 'boundary');
    this.boundaries[s + 1]![m] = kept;
  }

  private count(stage: Stage, m: number, s: number): Tensor | null {
    const { program } = this;
    const tape = new CountingTape();
    const result = program.device.under({ category: 'workspace', recorder: tape }, () =>
      program.device.own(() => {
        const out = stage.forward(program.batch(m), this.boundaries[s]![m] ?? null);
        return { result: out, keep: out === null ? [] : [out] };
      }),
    );
    const own = new Set(program.parametersOf(s));
    for (const p of tape.reads.keys()) {
      if (!own.has(p)) throw new LomoError('UndeclaredRead', `stage '${stage.name}' reads ${p.path}, which is not among its own properties`, { path: p.path });
    }
    return result;
  }

  /** Runs the stage under a tape that is kept in its slot; returns what leaves the stage, a handle of its own. */
  private record(s: number, m: number, mode: { readonly ledger: Ledger; readonly category: Category }): Tensor | null {
    const { program } = this;
    const arriving = this.boundaries[s]![m] ?? null;
    const tape = new Tape(program.device, arriving, (p) => mode.ledger.hold(p));
    const out = program.device.under({ category: mode.category, recorder: tape }, () =>
      program.device.own(() => {
        const result = program.model.stages[s]!.forward(program.batch(m), arriving);
        return { result, keep: result === null ? [] : [result] };
      }),
    );
    this.tapes[s]![m] = tape;
    this.results[s]![m] = out === null ? null : out.share();
    return out;
  }

  private backward({ stage: s, microBatch: m }: Action, { ledger, last }: { readonly ledger: Ledger; readonly last: boolean }): void {
    const { program } = this;
    const { device } = program;
    if (this.tapes[s]![m] === null) this.record(s, m, { ledger, category: 'recomputed' })?.dispose();
    const tape = this.tapes[s]![m]!;
    const result = this.results[s]![m] ?? null;
    const dy = this.gradients[s]![m] ?? null;
    const name = program.model.stages[s]!.name;
    const stores = ledger.factorStores(name);
    // The walk takes over the gradient, and of the result it needs no byte.
    this.tapes[s]![m] = null;
    this.results[s]![m] = null;
    this.gradients[s]![m] = null;
    result?.dispose();
    const dx = device.under({ category: 'workspace', recorder: null }, () => {
      for (const p of program.parametersOf(s)) ledger.release(p);
      return tape.walk(result, dy, { ledger, microBatch: m, stage: name, stores });
    });
    if (last) {
      this.boundaries[s]![m]?.dispose();
      this.boundaries[s]![m] = null;
    }
    if (m === program.microBatches - 1) ledger.closeStores(name);
    if (s > 0 && dx !== null) {
      device.arena.assign(dx.block, 'boundary');
      this.gradients[s - 1]![m] = dx;
    } else dx?.dispose();
  }

  /** Lets timers, signals and sockets have their turn. */
  private async breathe(): Promise<void> {
    if (performance.now() - this.lastBreath < breath) return;
    await new Promise((resolve) => setImmediate(resolve));
    this.lastBreath = performance.now();
  }
}
