// The error of this package: a code for programs, a message for people. (@lomo/data does not depend on @lomo/tensor, so it has its own.)

/** What went wrong, for programs. */
export type DataErrorCode =
  | 'BadLine' | 'BadOption' | 'EmptyDataset' | 'MissingFile' | 'UnknownFormat' | 'BadTemplate'
  | 'MissingTokenizer' | 'BadTokenizer' | 'UnsupportedTokenizer' | 'TokenizerTimeout' | 'TokenizerOutput' | 'TokenizerWorker' | 'TokenizerClosed' | 'NoEndOfText' | 'DoubleBos'
  | 'TokenOutOfRange' | 'AllMasked' | 'Overlong' | 'CapacityTooSmall' | 'MicroBatchesTooFew' | 'SegmentsTooMany' | 'StepOutOfRange';

/** An error of the data pipeline; the message names the place (`path:line` where there is one) and the next step. */
export class DataError extends Error {
  override readonly name = 'DataError';
  /** Stable identifier, e.g. 'BadLine'. */
  readonly code: DataErrorCode;
  /** Facts behind the message: path, line, counts. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: DataErrorCode, message: string, details: Readonly<Record<string, unknown>> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = details;
  }
}
