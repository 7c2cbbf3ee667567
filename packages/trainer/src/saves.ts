// When a run saves, what that costs, and what comes of a save that fails.
import type { LomoError } from '@lomo/tensor';
import { isLomoError } from '@lomo/tensor';
import type { SavedCheckpoint } from './checkpoint.ts';
import type { RunConfig } from './config.ts';

export type SaveEvent =
  | {
      /** The checkpoint is durable: it survives a power loss from now on. */
      readonly kind: 'saved';
      readonly step: number;
      readonly path: string;
      readonly bytes: number;
      /** From the first byte read to durable. */
      readonly milliseconds: number;
      /** Of these, training waited. */
      readonly waited: number;
      /** What all saves so far have made training wait, of the time since the run went on. */
      readonly share: number;
      /** Written from a copy while training went on. */
      readonly copied: boolean;
      readonly notRemoved: LomoError | null;
    }
  /** The disk is full; the last checkpoint stands, and the run tries again when the next save is due. */
  | { readonly kind: 'save failed'; readonly step: number; readonly error: LomoError };

/** What `Saves` asks of a session. */
export interface Saving {
  readonly config: Pick<RunConfig, 'save_steps' | 'save_minutes'>;
  readonly done: number;
  save(): Promise<SavedCheckpoint>;
  saveCopy(): Promise<{ readonly saved: Promise<SavedCheckpoint> } | null>;
}

/** A checkpoint is never taken more often than this many times its own cost, unless `save_steps` says so. */
const saveShare = 20;
/** Saves in a row that a full disk may fail before the run ends. */
const savePatience = 3;

interface Flight {
  readonly step: number;
  readonly start: number;
  readonly waited: number;
  /** Never rejects; `end` is when it was over. */
  readonly outcome: Promise<{ readonly saved: SavedCheckpoint; readonly end: number } | { readonly saved: null; readonly error: unknown; readonly end: number }>;
  over: boolean;
}

/** The saves of one run, in their order; at most one is under way. */
export class Saves {
  private readonly session: Saving;
  private readonly begun = performance.now();
  private savedStep: number;
  private triedAt = performance.now();
  private cost = 0;
  private waited = 0;
  private failures = 0;
  private flight: Flight | null = null;

  constructor(session: Saving) {
    this.session = session;
    this.savedStep = session.done;
  }

  /** Least milliseconds between the end of one save and the next. */
  get pause(): number {
    return Math.max(this.session.config.save_minutes * 60_000, saveShare * this.cost);
  }

  /** Whether the state after `step` is to be saved. */
  due(step: number): boolean {
    const { save_steps: every } = this.session.config;
    if (every !== undefined) return step % every === 0;
    return this.flight === null && performance.now() - this.triedAt >= this.pause;
  }

  /**
   * Begins a save of the state after the last step, from a copy where there is memory for one; otherwise it is over when this returns. Yields
   * how an earlier one ended that was still under way. Throws as `ended`.
   */
  async *begin(): AsyncGenerator<SaveEvent, void> {
    const asked = performance.now();
    yield* this.ended();
    const start = performance.now();
    this.waited += start - asked;
    const step = this.session.done;
    const copy = await this.session.saveCopy();
    if (copy === null) {
      yield await this.inPlace();
      return;
    }
    const waited = performance.now() - start;
    this.waited += waited;
    const flight: Flight = {
      step,
      start,
      waited,
      over: false,
      outcome: copy.saved.then(
        (saved) => ({ saved, end: performance.now() }),
        (error: unknown) => ({ saved: null, error, end: performance.now() }),
      ),
    };
    void flight.outcome.then(() => (flight.over = true));
    this.flight = flight;
  }

  /** Yields how the save that was under way has ended, if it has. Throws as `ended`. */
  async *landed(): AsyncGenerator<SaveEvent, void> {
    if (this.flight?.over === true) yield* this.ended();
  }

  /**
   * Waits for the save that is under way and yields how it ended. Throws what it threw, but for a full disk, which may fail two saves in a
   * row and be told as an event.
   */
  async *ended(): AsyncGenerator<SaveEvent, void> {
    const { flight } = this;
    if (flight === null) return;
    this.flight = null;
    const outcome = await flight.outcome;
    this.triedAt = outcome.end;
    if (outcome.saved === null) yield this.failed(outcome.error, flight.step);
    else yield this.succeeded(outcome.saved, { ...flight, end: outcome.end, copied: true });
  }

  /** The last save of a run, unless its state is saved already. Throws whatever fails it. */
  async *last(): AsyncGenerator<SaveEvent, void> {
    yield* this.ended();
    if (this.session.done <= this.savedStep) return;
    this.failures = savePatience;
    yield await this.inPlace();
  }

  /** Waits until nothing is under way. Throws what failed it, if `throws`. */
  async idle({ throws }: { readonly throws: boolean }): Promise<void> {
    const outcome = await this.flight?.outcome;
    this.flight = null;
    if (throws && outcome?.saved === null) throw outcome.error;
  }

  private async inPlace(): Promise<SaveEvent> {
    const step = this.session.done;
    const start = performance.now();
    try {
      const saved = await this.session.save();
      const end = performance.now();
      this.waited += end - start;
      return this.succeeded(saved, { step, start, end, waited: end - start, copied: false });
    } catch (error) {
      this.waited += performance.now() - start;
      return this.failed(error, step);
    } finally {
      this.triedAt = performance.now();
    }
  }

  private succeeded(saved: SavedCheckpoint, at: { readonly step: number; readonly start: number; readonly end: number; readonly waited: number; readonly copied: boolean }): SaveEvent {
    const { step, start, end, waited, copied } = at;
    this.failures = 0;
    this.savedStep = step;
    this.cost = end - start;
    return { kind: 'saved', step, ...saved, milliseconds: end - start, waited, share: this.waited / Math.max(1, performance.now() - this.begun), copied };
  }

  private failed(error: unknown, step: number): SaveEvent {
    if (!isLomoError(error) || !isFull(error) || ++this.failures >= savePatience) throw error;
    return { kind: 'save failed', step, error };
  }
}

/** True of an error that more room on the disk would have spared. */
export function isFull(error: LomoError): boolean {
  return error.code === 'DiskFull' || (error.code === 'FileError' && ['ENOSPC', 'EDQUOT'].includes(String(error.details['errno'])));
}
