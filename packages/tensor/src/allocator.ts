// The one allocator: deterministic best fit over one arena, the same with data and without, so that a plan is the program run dry.
import { LomoError } from './errors.ts';

/** What bytes are for. Every byte of a run belongs to exactly one. */
export const categories = [
  'weights',
  'gradient',
  'spill',
  'factors',
  'boundary',
  'saved',
  'recomputed',
  'logits',
  'workspace',
  'state',
  'io',
] as const;
export type Category = (typeof categories)[number];

export const alignment = 256;

/** A piece of the arena, counted by its owners; freed when the last one lets go. */
export interface Block {
  readonly offset: number;
  readonly bytes: number;
  /** Changes only through `assign`. */
  category: Category;
  /** What it holds, where whoever asked said so: a parameter's path. */
  readonly name?: string;
  owners: number;
  /** Set by a rollback: handles that are left give nothing back any more. */
  lost?: boolean;
}

/** One allocation as a plan records it. */
export interface Allocation {
  readonly category: Category;
  readonly bytes: number;
  readonly offset: number;
}

interface Hole {
  offset: number;
  bytes: number;
}

/** Live and peak bytes of one category. */
export interface Usage {
  live: number;
  peak: number;
}

/** What the arena tells while it works: the plan's recorder, the run-time check and traces listen here. */
export interface ArenaObserver {
  allocated?(block: Block): void;
  freed?(block: Block): void;
  /** Counted under another category from now on than `from`. */
  assigned?(block: Block, from: Category): void;
}

/** A stretch of work that either stands or is undone. */
export interface Undertaking {
  /** What is live stays live. */
  commit(): void;
  /** Gives back every block allocated since, whoever holds it, and the shares taken of older ones. */
  rollback(): void;
}

/**
 * Lays blocks out in [0, capacity), 256-byte aligned. Best fit, lowest offset first among equals: the same sequence of calls gives the
 * same offsets on every machine. Freed bytes may be handed out at once, so one in-order queue must use them.
 */
export class Arena {
  /** Bytes that may be laid out; Infinity while planning. */
  readonly capacity: number;
  readonly usage: Readonly<Record<Category, Usage>>;
  observer: ArenaObserver | null = null;
  private readonly holes: Hole[] = [];
  /** Owners that blocks had when the undertaking first touched them; 0: it made them. */
  private touched: Map<Block, number> | null = null;
  private top = 0;
  private high = 0;
  private liveBytes = 0;
  private peakBytes = 0;

  constructor(capacity = Infinity) {
    this.capacity = capacity;
    this.usage = Object.fromEntries(categories.map((c) => [c, { live: 0, peak: 0 }])) as Record<Category, Usage>;
  }

  /** High-water mark: the bytes a memory must have to repeat this sequence. */
  get extent(): number {
    return this.high;
  }

  /** Bytes handed out now. */
  get live(): number {
    return this.liveBytes;
  }

  /** Most bytes ever handed out at once; `extent - peak` is what fragmentation costs. */
  get peak(): number {
    return this.peakBytes;
  }

  /** Throws OutOfMemory when the capacity does not hold `bytes` more. `name` is for people: plans and errors print it. */
  allocate(bytes: number, category: Category, name?: string): Block {
    const size = Math.max(alignment, Math.ceil(bytes / alignment) * alignment);
    const offset = this.place(size, category);
    const block: Block = name === undefined ? { offset, bytes: size, category, owners: 1 } : { offset, bytes: size, category, name, owners: 1 };
    this.liveBytes += size;
    if (this.liveBytes > this.peakBytes) this.peakBytes = this.liveBytes;
    const usage = this.usage[category];
    usage.live += size;
    if (usage.live > usage.peak) usage.peak = usage.live;
    this.touched?.set(block, 0);
    this.observer?.allocated?.(block);
    return block;
  }

  /** One more owner. */
  retain(block: Block): void {
    if (block.owners <= 0) throw new LomoError('UseAfterFree', `block at ${block.offset} (${block.category}) was already freed`);
    this.touch(block);
    block.owners++;
  }

  /** One owner less; the last one frees the bytes. */
  release(block: Block): void {
    if (block.lost === true) return;
    if (block.owners <= 0) throw new LomoError('DoubleFree', `block at ${block.offset} (${block.category}) was already freed`);
    this.touch(block);
    if (--block.owners > 0) return;
    this.touched?.delete(block);
    this.free(block);
  }

  private free(block: Block): void {
    this.liveBytes -= block.bytes;
    this.usage[block.category].live -= block.bytes;
    this.observer?.freed?.(block);
    this.close(block.offset, block.bytes);
  }

  /** Begins work that may be interrupted; one at a time. */
  undertake(): Undertaking {
    if (this.touched !== null) throw new LomoError('ArenaError', 'an undertaking is under way: commit it or roll it back first');
    const touched = (this.touched = new Map<Block, number>());
    return {
      commit: () => {
        this.touched = null;
      },
      rollback: () => {
        this.touched = null;
        for (const [block, owners] of touched) {
          if (owners > 0) block.owners = owners;
          else {
            block.owners = 0;
            block.lost = true;
            this.free(block);
          }
        }
      },
    };
  }

  /** Counts a live block under another category from now on: a stage's result becomes a boundary. */
  assign(block: Block, category: Category): void {
    const from = block.category;
    this.usage[from].live -= block.bytes;
    block.category = category;
    const usage = this.usage[category];
    usage.live += block.bytes;
    if (usage.live > usage.peak) usage.peak = usage.live;
    this.observer?.assigned?.(block, from);
  }

  /** Forgets peaks, so that the next measure starts from what is live now. */
  resetPeaks(): void {
    this.peakBytes = this.liveBytes;
    for (const c of categories) this.usage[c].peak = this.usage[c].live;
  }

  private touch(block: Block): void {
    if (this.touched !== null && !this.touched.has(block)) this.touched.set(block, block.owners);
  }

  private place(size: number, category: Category): number {
    let best = -1;
    for (let i = 0; i < this.holes.length; i++) {
      const bytes = this.holes[i]!.bytes;
      if (bytes >= size && (best < 0 || bytes < this.holes[best]!.bytes)) {
        best = i;
        if (bytes === size) break;
      }
    }
    if (best >= 0) {
      const hole = this.holes[best]!;
      const offset = hole.offset;
      if (hole.bytes === size) this.holes.splice(best, 1);
      else {
        hole.offset += size;
        hole.bytes -= size;
      }
      return offset;
    }
    const offset = this.top;
    if (offset + size > this.capacity) {
      throw new LomoError(
        'OutOfMemory',
        `arena of ${this.capacity} bytes cannot place ${size} bytes (${category}): ${this.liveBytes} bytes are live. Plan the run again: its shapes differ from the planned ones.`,
        { size, category, capacity: this.capacity, live: this.liveBytes },
      );
    }
    this.top = offset + size;
    if (this.top > this.high) this.high = this.top;
    return offset;
  }

  /** What touches the top goes back to it, so that the layout is a function of the live blocks alone, whatever was there before. */
  private close(offset: number, bytes: number): void {
    if (offset + bytes === this.top) {
      const last = this.holes.at(-1);
      const joins = last !== undefined && last.offset + last.bytes === offset;
      if (joins) this.holes.pop();
      this.top = joins ? last.offset : offset;
      return;
    }
    let low = 0;
    let high = this.holes.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.holes[middle]!.offset < offset) low = middle + 1;
      else high = middle;
    }
    const before = this.holes[low - 1];
    const after = this.holes[low];
    const joinsBefore = before !== undefined && before.offset + before.bytes === offset;
    const joinsAfter = after !== undefined && offset + bytes === after.offset;
    if (joinsBefore && joinsAfter) {
      before.bytes += bytes + after.bytes;
      this.holes.splice(low, 1);
    } else if (joinsBefore) before.bytes += bytes;
    else if (joinsAfter) {
      after.offset = offset;
      after.bytes += bytes;
    } else this.holes.splice(low, 0, { offset, bytes });
  }
}
