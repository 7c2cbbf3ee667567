// What a rejected step says of the samples it held.
import { LomoError } from '@lomo/tensor';

/** The error with the samples of the micro-batches it names, or of all; `samples` by micro-batch. */
export function withSamples(error: LomoError, samples: readonly (readonly string[])[]): LomoError {
  const known = error.details['microBatches'];
  const micro = Array.isArray(known) ? (known as number[]) : samples.map((_, m) => m);
  const names = micro.flatMap((m) => samples[m] ?? []);
  const shown = names.length > 8 ? `${names.slice(0, 8).join(', ')} and ${names.length - 8} more` : names.join(', ');
  return new LomoError(error.code, `${error.message} Samples: ${shown}`, { ...error.details, samples: names }, error);
}
