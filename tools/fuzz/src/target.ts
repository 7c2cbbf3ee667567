// What a fuzz target is, and the checks that every one of them shares.
import type { Dice } from './dice.ts';

/** What one case came to. */
export type Outcome = 'accepted' | 'refused';

/** One reader under fire. */
export interface Target {
  readonly name: string;
  /** Makes the case that `dice` stands for. */
  make(dice: Dice): Case;
}

/** Hostile bytes, made and ready: only `run` is timed. It throws a `Violation` where a promise is broken. */
export interface Case {
  /** What the reader is given, for the report of a failure. */
  readonly bytes: Uint8Array;
  /** Bytes that it may have to read, where that is more: the budgets of time and memory are by this. */
  readonly readable?: number;
  run(): Outcome | Promise<Outcome>;
}

/** A promise that a reader broke. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** Most characters of an error's message: a hostile file does not fill a screen. */
const longestMessage = 2000;

/** Runs `read`; a typed error of one of `codes` is a refusal, any other error a violation. */
export function outcomeOf(read: () => void, codes: readonly string[]): Outcome {
  try {
    read();
    return 'accepted';
  } catch (error) {
    return refusal(error, codes);
  }
}

/** The same for readers that answer later. */
export async function laterOutcomeOf(read: () => Promise<void>, codes: readonly string[]): Promise<Outcome> {
  try {
    await read();
    return 'accepted';
  } catch (error) {
    return refusal(error, codes);
  }
}

function refusal(error: unknown, codes: readonly string[]): Outcome {
  if (error instanceof Violation) throw error;
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (!(error instanceof Error) || typeof code !== 'string' || !codes.includes(code)) {
    throw new Violation(`an untyped error, expected one of ${codes.join(', ')}: ${error instanceof Error ? error.stack : String(error)}`, { cause: error });
  }
  if (error.message.length > longestMessage) throw new Violation(`a message of ${error.message.length} characters: ${error.message.slice(0, 200)}`);
  return 'refused';
}

/** Throws a Violation unless `holds`. */
export function promise(holds: boolean, what: () => string): void {
  if (!holds) throw new Violation(what());
}
