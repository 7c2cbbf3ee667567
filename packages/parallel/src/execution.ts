// What one step holds between its actions: boundaries, tapes, gradients on their way down; and how an action is done.
import type { Category, Parameter, Stage, Tensor } from '@lomo/tensor';
import { CountingTape, isLomoError, Ledger, LomoError, Tape } from '@lomo/tensor';
import { Boundaries } from './boundaries.ts';
import type { Program, ProgramPass } from './program.ts';
import { Sweep } from './residency.ts';
import type { Action, Work } from './schedule.ts';
import { isTransfer } from './schedule.ts';

/** Longest time a step holds the event loop, milliseconds. */
const breath = 15;

type Slots<T> = (T | null)[][];

/** How a step can be given up. */
export interface Interruption {
  readonly step: number;
  readonly signal: AbortSignal;
  /** Waits for the device after every action until the first update: a signal finds it nowhere else than the host. */
  readonly follow: boolean;
}

/** One step under way. */
export class Execution {
  /** In the order of the last pass. */
  readonly settled: Parameter[] = [];
  private readonly program: Program;
  private readonly passes: readonly ProgramPass[];
  private readonly interruption: Interruption | null;
  private readonly boundaries: Boundaries;
  private readonly results: Slots<Tensor>;
  private readonly gradients: Slots<Tensor>;
  private readonly tapes: Slots<Tape>;
  private lastBreath = performance.now();

  constructor(program: Program, passes: readonly ProgramPass[], interruption: Interruption | null = null) {
    this.program = program;
    this.passes = passes;
    this.interruption = interruption;
    const slots = <T>(): Slots<T> => program.model.stages.map(() => Array.from({ length: program.microBatches }, () => null));
    this.boundaries = new Boundaries(program.device, { stages: program.model.stages.length, microBatches: program.microBatches }, program.offload);
    this.results = slots();
    this.gradients = slots();
    this.tapes = slots();
  }

  /** All passes. What is thrown in the middle of one leaves the arena as it was before the step. */
  async run(): Promise<void> {
    const { device, residency, offload } = this.program;
    const undertaking = device.arena.undertake();
    residency?.settle();
    try {
      for (const [index, pass] of this.passes.entries()) await this.pass(pass, index);
      this.dispose();
    } catch (error) {
      for (const pass of this.passes) pass.abandon?.();
      const torn = (await residency?.abandon()) === true;
      await offload?.idle();
      undertaking.rollback();
      if (!torn || !isLomoError(error, 'FileError')) throw error;
      throw new LomoError('TornStep', `${error.message}; some weights had been updated and written back before. Go back to the last checkpoint.`, {}, error);
    }
    residency?.settle();
    undertaking.commit();
  }

  private async pass(pass: ProgramPass, index: number): Promise<void> {
    const { program } = this;
    const { device, step } = program;
    this.settled.length = 0;
    const ledger = new Ledger(device, {
      microBatches: program.microBatches,
      accumulate: program.accumulate,
      settle: (p, g, order) => {
        this.settled.push(p);
        pass.settle(p, g, { step, order });
      },
    });
    device.observer?.entered?.({ phase: 'pass', name: pass.name });
    step.clearLoss();
    // One hold a stage and micro-batch: no parameter settles before its last walk has begun.
    program.model.stages.forEach((_, s) => {
      for (const p of program.parametersOf(s)) for (let m = 0; m < program.microBatches; m++) ledger.hold(p);
    });
    const last = index === this.passes.length - 1;
    for (const action of program.actionsOf({ first: index === 0, last, writes: last && pass.late !== true })) {
      await this.act(action, { ledger, last });
      if (action.kind === 'backward') await pass.drain?.();
      await this.breathe();
      await this.honour(pass, index);
    }
    ledger.finish();
    const sweep = program.residency === null ? null : new Sweep(program.residency, this.settled);
    await pass.finish(step, async (p) => sweep?.present(p));
    await sweep?.end();
    device.observer?.left?.();
  }

  private async act(action: Action, pass: { readonly ledger: Ledger; readonly last: boolean }): Promise<void> {
    const { residency } = this.program;
    if (isTransfer(action)) {
      await (action.what === 'boundary' ? this.boundaries.transfer(action) : residency?.transfer(action));
      return;
    }
    await residency?.present(action.stage);
    await this.boundaries.present(action.stage);
    if (action.kind === 'backward') this.backward(action, pass);
    else this.forward(action, pass.ledger);
  }

  /** Gives back what the last walks left. */
  private dispose(): void {
    this.boundaries.dispose();
    for (const slots of [this.results, this.gradients]) for (const row of slots) for (const tensor of row) tensor?.dispose();
    for (const row of this.tapes) for (const tape of row) tape?.discard();
  }

  private forward({ stage: s, microBatch: m }: Work, ledger: Ledger): void {
    const { program } = this;
    const stage = program.model.stages[s]!;
    const { observer } = program.device;
    observer?.entered?.({ phase: 'forward', name: stage.name, microBatch: m });
    const kept = program.keeps(s) ? this.record(s, m, { ledger, category: 'saved', again: false }) : this.count(stage, m, s);
    observer?.left?.();
    if (kept === null) throw new LomoError('StageError', `stage '${stage.name}' returned nothing, but is not the last`, { stage: stage.name });
    program.device.arena.assign(kept.block, 'boundary');
    this.boundaries.put(s + 1, m, kept);
  }

  private count(stage: Stage, m: number, s: number): Tensor | null {
    const { program } = this;
    const tape = new CountingTape();
    return program.device.under({ category: 'workspace', recorder: tape }, () =>
      program.device.own(() => {
        const out = stage.forward(program.batch(m), this.boundaries.at(s, m));
        for (const p of tape.reads.keys()) this.assertDeclared(p, s);
        return { result: out, keep: out === null ? [] : [out] };
      }),
    );
  }

  /** What a stage does not name as its own would settle while another micro-batch still needs it. */
  private assertDeclared(p: Parameter, s: number): void {
    const { model } = this.program;
    if (this.program.parametersOf(s).includes(p)) return;
    throw new LomoError('UndeclaredRead', `stage '${model.stages[s]!.name}' reads ${p.path}, which is not among its own properties`, { path: p.path });
  }

  /** Runs the stage under a tape that is kept in its slot; returns what leaves the stage, a handle of its own. */
  private record(s: number, m: number, mode: { readonly ledger: Ledger; readonly category: Category; readonly again: boolean }): Tensor | null {
    const { program } = this;
    const arriving = this.boundaries.at(s, m);
    const tape = new Tape(program.device, arriving, (p) => {
      this.assertDeclared(p, s);
      mode.ledger.hold(p);
    });
    this.tapes[s]![m] = tape;
    const { device } = program;
    const forward = (): Tensor | null =>
      device.under({ category: mode.category, recorder: tape }, () =>
        device.own(() => {
          const result = program.model.stages[s]!.forward(program.batch(m), arriving);
          return { result, keep: result === null ? [] : [result] };
        }),
      );
    // What a stage returns a second time was read the first time.
    const out = mode.again ? device.pruned(forward, () => tape.saved()) : forward();
    this.results[s]![m] = out === null ? null : out.share();
    return out;
  }

  private backward({ stage: s, microBatch: m }: Work, { ledger, last }: { readonly ledger: Ledger; readonly last: boolean }): void {
    const { program } = this;
    const { device } = program;
    const { name } = program.model.stages[s]!;
    if (this.tapes[s]![m] === null) {
      const again = s < program.model.stages.length - 1;
      device.observer?.entered?.({ phase: again ? 'recompute' : 'forward', name, microBatch: m });
      this.record(s, m, { ledger, category: 'recomputed', again })?.dispose();
      device.observer?.left?.();
    }
    const tape = this.tapes[s]![m]!;
    const result = this.results[s]![m] ?? null;
    const dy = this.gradients[s]![m] ?? null;
    const stores = ledger.factorStores(name);
    // The walk takes over the gradient, and of the result it needs no byte.
    this.tapes[s]![m] = null;
    this.results[s]![m] = null;
    this.gradients[s]![m] = null;
    result?.dispose();
    device.observer?.entered?.({ phase: 'backward', name, microBatch: m });
    const dx = device.under({ category: 'workspace', recorder: null }, () => {
      for (const p of program.parametersOf(s)) ledger.release(p);
      return tape.walk(result, dy, { ledger, microBatch: m, stage: name, stores });
    });
    device.observer?.left?.();
    if (last) this.boundaries.drop(s, m);
    if (m === program.microBatches - 1) ledger.closeStores(name);
    if (s > 0 && dx !== null) {
      device.arena.assign(dx.block, 'boundary');
      this.gradients[s - 1]![m] = dx;
    } else dx?.dispose();
  }

  /**
   * Throws Interrupted where the signal asks for it and nothing has been updated yet. Passes before the last write nothing; a single one that
   * judges the whole step first writes nothing before it has finished.
   */
  private async honour(pass: ProgramPass, index: number): Promise<void> {
    const { interruption, passes, program } = this;
    if (interruption === null) return;
    const writing = index === passes.length - 1 && this.settled.length > 0 && !(passes.length === 1 && pass.atomic === true);
    if (writing) return;
    if (interruption.follow) await program.device.read(program.step.counters);
    if (!interruption.signal.aborted) return;
    throw new LomoError('Interrupted', `step ${interruption.step} was stopped before its first update; no weight has changed`, { step: interruption.step });
  }

  /** Lets timers, signals and sockets have their turn. */
  private async breathe(): Promise<void> {
    if (performance.now() - this.lastBreath < breath) return;
    await new Promise((resolve) => setImmediate(resolve));
    this.lastBreath = performance.now();
  }
}
