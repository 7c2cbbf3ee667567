// Which errors reject a step, what a rejected step says of the samples it held, and when a disk is to blame.
import { isLomoError, LomoError } from '@lomo/tensor';

/** True of what a step of a sound run may end in: numbers that are none, or a step that ended halfway. */
export function isRejection(error: unknown): error is LomoError {
  return isLomoError(error, 'NonFiniteLoss') || isLomoError(error, 'NonFiniteGradient') || isLomoError(error, 'TornStep');
}

/** The file's error behind a step that ended halfway, as what a run ends in; null where numbers were to blame. */
export function lostToDisk(error: LomoError): LomoError | null {
  const { cause } = error;
  if (error.code !== 'TornStep' || !isLomoError(cause, 'FileError')) return null;
  return new LomoError('FileError', `${cause.message}. The step was tried twice and is not saved; the last checkpoint is whole, and the same command goes on from there`, cause.details, error);
}

/** The error with the samples of the micro-batches it names, or of all; `samples` by micro-batch. */
export function withSamples(error: LomoError, samples: readonly (readonly string[])[]): LomoError {
  const known = error.details['microBatches'];
  const micro = Array.isArray(known) ? (known as number[]) : samples.map((_, m) => m);
  const names = micro.flatMap((m) => samples[m] ?? []);
  const shown = names.length > 8 ? `${names.slice(0, 8).join(', ')} and ${names.length - 8} more` : names.join(', ');
  return new LomoError(error.code, `${error.message.replace(/\.$/, '')}. Samples: ${shown}`, { ...error.details, samples: names }, error);
}

/** The rejection that a run ends in: the last one of `count` in a row. */
export function exhausted(error: LomoError, count: number): LomoError {
  const again = `It was the last of ${count} rejected steps in a row, which ends the run; nothing of them is in the weights or a checkpoint.`;
  return new LomoError(error.code, `${error.message}. ${again} Lower learning_rate, or look at these samples`, error.details, error);
}

/** What refuses weights that are of two steps, or of two checkpoints. */
export function tornWeights(done: number): LomoError {
  return new LomoError('TornWeights', `after step ${done}: a step or a load ended halfway, so the weights are a mixture, and are neither trained nor saved; restore(), resume() or begin() makes them whole`, { step: done });
}
