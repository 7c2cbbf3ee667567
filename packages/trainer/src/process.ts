// What a whole training process will come to: the arena of its plan, what the process holds already, and what a run adds outside the arena.

/** Bytes of a process, each part told apart. */
export interface ExpectedProcess {
  /** Resident now, before the arena is reserved: Node, the program, the backend's libraries, tokenizer and data. Measured. */
  readonly start: number;
  /** The plan's extent, rounded up to the pages that the memory is made of. */
  readonly arena: number;
  /** What a run adds outside the arena: see `growthBytes`. */
  readonly growth: number;
  /** All of it: the most the process is expected ever to hold. */
  readonly total: number;
}

/** Arenas are made of these, bytes. */
const hugePage = 2 ** 21;

/**
 * Bytes that training adds to a process outside the arena, whatever the model: machine code that oneDNN writes and its description of
 * every product, pages of its library touched only now, the stacks and heaps of the executor's threads, and V8's young generation at work.
 * 14 to 41 MiB were measured over models, types and shapes by `pnpm bench plan`, which prints how they are made up; rather said too high.
 */
export const growthBytes = 28 * 2 ** 20;

/** The largest arena, bytes, that a process with `free` bytes left can train in: whole pages, beside what training adds. */
export function arenaRoom(free: number): number {
  return Math.max(0, Math.floor((free - growthBytes) / hugePage) * hugePage);
}

/**
 * What this process will come to when it trains in an arena of `extent` bytes. To be asked with everything open but the arena: what is resident
 * then is measured. A save comes on top while it lasts: slices on their way to a file (17 to 33 MiB were seen), or a copy of weights and state.
 */
export function expectedProcess(extent: number, resident: number = process.memoryUsage.rss()): ExpectedProcess {
  const arena = Math.ceil(extent / hugePage) * hugePage;
  return { start: resident, arena, growth: growthBytes, total: resident + arena + growthBytes };
}
