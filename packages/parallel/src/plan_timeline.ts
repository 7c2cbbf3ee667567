// The timeline of a plan: every allocation and every free of every phase, in columns, so that a model of 65 B parameters takes megabytes.
import type { Allocation, Category, Part } from '@lomo/tensor';
import { categories } from '@lomo/tensor';

/** Where in the program something happens. */
export interface ProgramPlace {
  /** Phase of the plan: 'setup', 'step', 'evaluate'. */
  readonly phase: string;
  /** The pass of a step: 'update', 'norm'. */
  readonly pass?: string;
  /** What a stage is doing. */
  readonly part?: Exclude<Part['phase'], 'pass' | 'settle'>;
  /** The stage's name: 'block 3'. */
  readonly stage?: string;
  readonly microBatch?: number;
  /** Path of the parameter that settles. */
  readonly settles?: string;
}

/** Who asked for bytes, and for what. */
export interface Asker {
  /** The op whose result or scratch they are; null where no op asked. */
  readonly op: string | null;
  /** The name given with the allocation: a parameter's path, its state's name, 'scratch'. */
  readonly name: string | null;
  /** Path of the parameter that the op reads or updates, or that settles meanwhile. */
  readonly of: string | null;
}

/** One block of a plan, from its allocation to its free. */
export interface PlannedBlock extends Asker {
  /** Counts allocations from 0. */
  readonly id: number;
  /** As allocated; `liveAt` gives what it is counted as at a moment. */
  readonly category: Category;
  readonly bytes: number;
  readonly offset: number;
  readonly place: ProgramPlace;
  /** Events at which it came and went; `until` is null for what is still live at the end. */
  readonly from: number;
  readonly until: number | null;
}

/** What happens at one event: events are counted from 0 and are the plan's only clock. */
export interface PlannedEvent {
  readonly at: number;
  readonly kind: 'allocated' | 'freed' | 'assigned';
  readonly block: PlannedBlock;
  /** What the block is counted as from now on (before, where it is freed). */
  readonly category: Category;
  readonly place: ProgramPlace;
  /** Launches, floating-point operations and bytes moved before it, over all phases. */
  readonly launches: number;
  readonly flops: number;
  readonly moved: number;
}

/** Kinds of events as `TimelineColumns.kinds` spells them; from 2 on: assigned to category `kind - 2`. */
export const eventKinds = { allocated: 0, freed: 1, assigned: 2 } as const;

/** `until` of a block that is live at the end. */
export const never = 0xffff_ffff;

/** A timeline as it is kept. Block columns have one element an allocation, event columns one an event. */
export interface TimelineColumns {
  readonly askers: readonly Asker[];
  readonly places: readonly ProgramPlace[];
  readonly blocks: {
    readonly bytes: Float64Array;
    readonly offset: Float64Array;
    /** Index into `categories`. */
    readonly category: Uint8Array;
    /** Index into `askers`. */
    readonly asker: Uint32Array;
    /** Index into `places`. */
    readonly place: Uint32Array;
    readonly from: Uint32Array;
    readonly until: Uint32Array;
  };
  readonly events: {
    readonly kind: Uint8Array;
    readonly block: Uint32Array;
    readonly place: Uint32Array;
    readonly launches: Uint32Array;
    readonly flops: Float64Array;
    readonly moved: Float64Array;
  };
}

/** Every allocation and free of a plan, in order. */
export class Timeline {
  readonly columns: TimelineColumns;

  constructor(columns: TimelineColumns) {
    this.columns = columns;
  }

  /** Number of events. */
  get length(): number {
    return this.columns.events.kind.length;
  }

  /** Number of allocations. */
  get allocations(): number {
    return this.columns.blocks.bytes.length;
  }

  /** What allocation `id` asks for. */
  allocation(id: number): Allocation {
    const { bytes, offset, category } = this.columns.blocks;
    return { category: categories[category[id]!]!, bytes: bytes[id]!, offset: offset[id]! };
  }

  block(id: number): PlannedBlock {
    const { askers, places, blocks } = this.columns;
    const until = blocks.until[id]!;
    return {
      ...askers[blocks.asker[id]!]!,
      id,
      category: categories[blocks.category[id]!]!,
      bytes: blocks.bytes[id]!,
      offset: blocks.offset[id]!,
      place: places[blocks.place[id]!]!,
      from: blocks.from[id]!,
      until: until === never ? null : until,
    };
  }

  event(at: number): PlannedEvent {
    const { places, events } = this.columns;
    const kind = events.kind[at]!;
    const block = this.block(events.block[at]!);
    return {
      at,
      kind: kind === eventKinds.allocated ? 'allocated' : kind === eventKinds.freed ? 'freed' : 'assigned',
      block,
      category: kind >= eventKinds.assigned ? categories[kind - eventKinds.assigned]! : kind === eventKinds.allocated ? block.category : this.categoryAt(block.id, at),
      place: places[events.place[at]!]!,
      launches: events.launches[at]!,
      flops: events.flops[at]!,
      moved: events.moved[at]!,
    };
  }

  /** Blocks that live right after event `at`, largest first, each under the category it is counted as then. */
  liveAt(at: number): readonly PlannedBlock[] {
    const { blocks, events } = this.columns;
    const counted = new Map<number, Category>();
    for (let e = 0; e <= at; e++) {
      const id = events.block[e]!;
      const kind = events.kind[e]!;
      if (kind === eventKinds.freed) counted.delete(id);
      else counted.set(id, categories[kind === eventKinds.allocated ? blocks.category[id]! : kind - eventKinds.assigned]!);
    }
    return [...counted].map(([id, category]) => ({ ...this.block(id), category })).toSorted((a, b) => b.bytes - a.bytes || a.id - b.id);
  }

  /** Live bytes of each category right after event `at`. */
  usageAt(at: number): Readonly<Record<Category, number>> {
    const usage = Object.fromEntries(categories.map((c) => [c, 0])) as Record<Category, number>;
    const { blocks, events } = this.columns;
    const counted = Uint8Array.from(blocks.category);
    for (let e = 0; e <= at; e++) {
      const [id, kind] = [events.block[e]!, events.kind[e]!];
      const size = blocks.bytes[id]!;
      if (kind !== eventKinds.allocated) usage[categories[counted[id]!]!] -= size;
      if (kind >= eventKinds.assigned) counted[id] = kind - eventKinds.assigned;
      if (kind !== eventKinds.freed) usage[categories[counted[id]!]!] += size;
    }
    return usage;
  }

  /** Calls `visit` after every event with the live bytes of each category, in the order of `categories`; the array is the same every time. */
  curve(visit: (at: number, live: Float64Array, total: number) => void): void {
    const { blocks, events } = this.columns;
    const live = new Float64Array(categories.length);
    const counted = Uint8Array.from(blocks.category);
    let total = 0;
    for (let e = 0; e < events.kind.length; e++) {
      const id = events.block[e]!;
      const [kind, size] = [events.kind[e]!, blocks.bytes[id]!];
      const before = counted[id]!;
      if (kind !== eventKinds.allocated) live[before]! -= size;
      if (kind >= eventKinds.assigned) counted[id] = kind - eventKinds.assigned;
      if (kind !== eventKinds.freed) live[counted[id]!]! += size;
      total += kind === eventKinds.allocated ? size : kind === eventKinds.freed ? -size : 0;
      visit(e, live, total);
    }
  }

  private categoryAt(id: number, at: number): Category {
    const { blocks, events } = this.columns;
    for (let e = at - 1; e >= blocks.from[id]!; e--) if (events.block[e] === id && events.kind[e]! >= eventKinds.assigned) return categories[events.kind[e]! - eventKinds.assigned]!;
    return categories[blocks.category[id]!]!;
  }
}

/** A place in words: 'step, pass update, backward of block 3, micro-batch 0, settling model.norm.weight'. */
export function placeWords({ phase, pass, part, stage, microBatch, settles }: ProgramPlace): string {
  return [
    phase,
    ...(pass === undefined ? [] : [`pass ${pass}`]),
    ...(part === undefined ? [] : [`${part} of ${stage}`]),
    ...(microBatch === undefined ? [] : [`micro-batch ${microBatch}`]),
    ...(settles === undefined ? [] : [`settling ${settles}`]),
  ].join(', ');
}

/** A block in words: 'model.norm.weight', 'matmul with model.layers.3.mlp.up_proj.weight', 'gradient of lm_head.weight', 'attention, scratch'. */
export function blockWords({ op, name, of, category }: Asker & { readonly category: Category }): string {
  if (op !== null) return `${op}${of === null ? '' : ` with ${of}`}${name === null ? '' : `, ${name}`}`;
  if (name !== null) return category === 'gradient' ? `gradient of ${name}` : name;
  return of === null ? category : `${category} of ${of}`;
}
