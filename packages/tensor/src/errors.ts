// The one error type of lomo: a code for programs, a message for people that names the thing, the place and the next step.

/** Codes are CamelCase nouns; packages add their own. */
export class LomoError extends Error {
  override readonly name = 'LomoError';
  /** Stable identifier for programs, e.g. 'ShapeError', 'MissingKernel', 'TornStep'. */
  readonly code: string;
  /** Facts behind the message: shapes, paths, step numbers. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: string, message: string, details: Readonly<Record<string, unknown>> = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = details;
  }
}

/** True when `error` is a LomoError, of the given code if one is named. */
export function isLomoError(error: unknown, code?: string): error is LomoError {
  return error instanceof LomoError && (code === undefined || error.code === code);
}

/** A ShapeError that names the op and the shapes it met. */
export function shapeError(op: string, expected: string, shapes: readonly (readonly number[])[]): LomoError {
  const met = shapes.map((s) => `[${s.join(', ')}]`).join(', ');
  return new LomoError('ShapeError', `${op}: expected ${expected}, got ${met}`, { op, shapes });
}
