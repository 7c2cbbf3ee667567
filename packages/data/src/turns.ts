// Long work over millions of samples in turns of some milliseconds, so that timers, signals and other work have theirs between them.

/** Work that may be interrupted wherever it yields; what it returns is its result. */
export type Work<T> = Generator<void, T, void>;

/** Milliseconds of one turn: what a signal waits at most, and long enough that the turns cost nothing. */
const turn = 15;

/** Does all of it at once. */
export function atOnce<T>(work: Work<T>): T {
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}

/** Does it in turns, with everything else that waits between two of them. Throws the signal's reason between two turns. */
export async function inTurns<T>(work: Work<T>, signal: AbortSignal | null = null): Promise<T> {
  for (;;) {
    signal?.throwIfAborted();
    const end = performance.now() + turn;
    do {
      const { done, value } = work.next();
      if (done === true) return value;
    } while (performance.now() < end);
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}
