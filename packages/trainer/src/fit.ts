// A whole run as one stream of events: the loop's steps, with evaluations and checkpoints where the configuration wants them.
import type { Session } from './session.ts';
import type { TrainEvent } from './loop.ts';
import { train } from './loop.ts';

export type FitEvent =
  | TrainEvent
  | { readonly kind: 'evaluated'; readonly step: number; readonly loss: number; readonly best: boolean }
  | { readonly kind: 'saved'; readonly step: number; readonly path: string; readonly milliseconds: number };

/** A checkpoint is never taken more often than this many times its own cost, unless `save_steps` says so. */
const saveShare = 20;

/** Trains to the end or to an abort, and saves the state it ends in. Throws what the loop throws. */
export async function* fit(session: Session, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<FitEvent, void> {
  const { config } = session;
  let savedStep = session.done;
  let savedAt = performance.now();
  let pause = config.save_minutes * 60_000;
  const save = async (): Promise<FitEvent> => {
    const start = performance.now();
    const path = await session.save();
    savedStep = session.done;
    savedAt = performance.now();
    pause = Math.max(pause, saveShare * (savedAt - start));
    return { kind: 'saved', step: session.done, path, milliseconds: savedAt - start };
  };
  for await (const event of train(session, options)) {
    if (event.kind === 'step') session.trainedTokens += event.trained;
    yield event;
    if (event.kind !== 'step') continue;
    if (config.eval_steps !== undefined && (event.step % config.eval_steps === 0 || event.step === session.steps)) {
      const loss = await session.evaluate(options.signal);
      if (loss !== null) yield { kind: 'evaluated', step: event.step, loss, best: session.noteEvaluation(loss) };
    }
    const due = config.save_steps === undefined ? performance.now() - savedAt >= pause : event.step % config.save_steps === 0;
    if (due) yield await save();
  }
  if (session.done > savedStep) yield await save();
}
