// A whole run as one stream of events: the loop's steps, with evaluations and checkpoints where the configuration wants them.
import type { Session } from './session.ts';
import type { TrainEvent } from './loop.ts';
import { train } from './loop.ts';
import type { SaveEvent } from './saves.ts';
import { Saves } from './saves.ts';

export type FitEvent = TrainEvent | { readonly kind: 'evaluated'; readonly step: number; readonly loss: number; readonly best: boolean } | SaveEvent;

/** What a run is in: a step, an evaluation between two, a save that training waits for. */
export type FitPhase = 'step' | 'evaluation' | 'save';

export interface FitOptions {
  readonly signal?: AbortSignal;
  /** Hears what begins, and of which step. */
  readonly onPhase?: (phase: FitPhase, step: number) => void;
}

/**
 * Trains to the end or to an abort, and saves the state it ends in. Throws what the loop throws, and what fails a save; a full disk may fail
 * two in a row, but not the last. However it ends, no save is under way then.
 */
export async function* fit(session: Session, options: FitOptions = {}): AsyncGenerator<FitEvent, void> {
  const enter = options.onPhase ?? (() => {});
  const saves = new Saves(session);
  const evaluation = async function* (): AsyncGenerator<FitEvent, void> {
    if (!session.evaluationDue) return;
    enter('evaluation', session.done);
    const loss = await session.evaluate(options.signal);
    if (loss !== null) yield { kind: 'evaluated', step: session.done, loss, best: session.noteEvaluation(loss) };
  };
  let failed = false;
  try {
    yield* evaluation();
    enter('step', session.done + 1);
    for await (const event of train(session, options.signal === undefined ? {} : { signal: options.signal })) {
      if (event.kind === 'step') session.trainedTokens += event.trained;
      yield event;
      yield* saves.landed();
      if (event.kind !== 'step') {
        enter('step', session.done + 1);
        continue;
      }
      yield* evaluation();
      // The last one is not written from a copy: nothing goes on meanwhile.
      const isLast = session.done >= session.steps || options.signal?.aborted === true;
      if (!isLast && saves.due(event.step)) {
        enter('save', event.step);
        yield* saves.begin();
      }
      enter('step', session.done + 1);
    }
    enter('save', session.done);
    yield* saves.last();
  } catch (error) {
    failed = true;
    throw error;
  } finally {
    await saves.idle({ throws: !failed });
  }
}
