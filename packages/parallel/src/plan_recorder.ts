// Writes a plan's timeline while the program runs without data: listens to the arena for bytes and to the device for what they are for.
import type { Attributes, Block, Category, Launched, LaunchObserver, Op, Part, Tensor } from '@lomo/tensor';
import { categories, Parameter } from '@lomo/tensor';
import type { Asker, ProgramPlace } from './plan_timeline.ts';
import { eventKinds, never, Timeline } from './plan_timeline.ts';

const categoryIndex = Object.fromEntries(categories.map((c, i) => [c, i])) as Readonly<Record<Category, number>>;

/** What the program is doing right now: listens to a device. */
export class Whereabouts implements LaunchObserver {
  /** Changes identity with every move. */
  place: ProgramPlace;
  private readonly outer: ProgramPlace[] = [];
  private op: string | null = null;
  private operands: Pick<Launched, 'ins' | 'inouts'> | null = null;

  constructor(phase: string) {
    this.place = { phase };
  }

  /** From now on it is another phase. */
  enter(phase: string): void {
    this.outer.length = 0;
    this.place = { phase };
  }

  launching(op: Op, operands: Pick<Launched, 'ins' | 'inouts'>): void {
    this.op = op.name;
    this.operands = operands;
  }

  prepared(): void {
    this.op = null;
    this.operands = null;
  }

  launched(_op: Op, _launched: Launched, _attributes: Attributes): void {}

  entered({ phase, name, microBatch }: Part): void {
    this.outer.push(this.place);
    const at = microBatch === undefined ? {} : { microBatch };
    this.place = phase === 'pass' ? { ...this.place, pass: name } : phase === 'settle' ? { ...this.place, settles: name } : { ...this.place, part: phase, stage: name, ...at };
  }

  left(): void {
    this.place = this.outer.pop() ?? this.place;
  }

  /** Who asks for `block`. */
  asker({ name }: Pick<Block, 'name'>): Asker {
    const read = this.operands === null ? undefined : (parameterOf(this.operands.inouts) ?? parameterOf(this.operands.ins));
    return { op: this.op, name: name ?? null, of: read ?? this.place.settles ?? null };
  }
}

/** The parameter that one of `tensors` is, or is a part of. */
function parameterOf(tensors: readonly Tensor[]): string | undefined {
  for (const t of tensors) {
    if (t instanceof Parameter) return t.path;
    if (t.block.category === 'weights' && t.block.name !== undefined) return t.block.name;
  }
  return undefined;
}

/** Bytes that a launch moves: what it reads, what it writes, and twice what it does both to; operands whole. */
function movedBy({ ins, inouts, outs }: Launched): number {
  const sum = (tensors: readonly Tensor[]): number => tensors.reduce((n, t) => n + t.bytes, 0);
  return sum(ins) + 2 * sum(inouts) + sum(outs);
}

/** What a phase did. */
export interface PhaseWork {
  flops: number;
  launches: number;
  moved: number;
}

/** Records a timeline, and the work of each phase. */
export class TimelineRecorder extends Whereabouts {
  readonly work = new Map<string, PhaseWork>();
  private readonly all: PhaseWork = { flops: 0, launches: 0, moved: 0 };
  private readonly places: ProgramPlace[] = [];
  private readonly askers: Asker[] = [];
  private readonly askerIndex = new Map<string | null, Map<string | null, Map<string | null, number>>>();
  private readonly ids = new Map<Block, number>();
  private readonly blocks = { bytes: [] as number[], offset: [] as number[], category: [] as number[], asker: [] as number[], place: [] as number[], from: [] as number[], until: [] as number[] };
  private readonly events = { kind: [] as number[], block: [] as number[], place: [] as number[], launches: [] as number[], flops: [] as number[], moved: [] as number[] };

  constructor() {
    super('');
  }

  override enter(phase: string): void {
    super.enter(phase);
    this.work.set(phase, { flops: 0, launches: 0, moved: 0 });
  }

  override launched(op: Op, launched: Launched, attributes: Attributes): void {
    const { ins, inouts, outs } = launched;
    this.add({ flops: op.flops(ins, attributes, inouts, outs), launches: 1, moved: movedBy(launched) });
  }

  copied(to: Tensor): void {
    this.add({ flops: 0, launches: 0, moved: 2 * to.bytes });
  }

  /** Index of the event. */
  allocated(block: Block): number {
    const { blocks } = this;
    const id = blocks.bytes.length;
    this.ids.set(block, id);
    blocks.bytes.push(block.bytes);
    blocks.offset.push(block.offset);
    blocks.category.push(categoryIndex[block.category]);
    blocks.asker.push(this.askerOf(block));
    blocks.from.push(this.events.kind.length);
    blocks.until.push(never);
    const at = this.event(eventKinds.allocated, id);
    blocks.place.push(this.events.place[at]!);
    return at;
  }

  freed(block: Block): void {
    const id = this.ids.get(block)!;
    this.ids.delete(block);
    this.blocks.until[id] = this.event(eventKinds.freed, id);
  }

  assigned(block: Block, from: Category): void {
    if (from !== block.category) this.event(eventKinds.assigned + categoryIndex[block.category], this.ids.get(block)!);
  }

  /** What has been recorded. */
  timeline(): Timeline {
    const { askers, places, blocks, events } = this;
    return new Timeline({
      askers,
      places,
      blocks: {
        bytes: Float64Array.from(blocks.bytes),
        offset: Float64Array.from(blocks.offset),
        category: Uint8Array.from(blocks.category),
        asker: Uint32Array.from(blocks.asker),
        place: Uint32Array.from(blocks.place),
        from: Uint32Array.from(blocks.from),
        until: Uint32Array.from(blocks.until),
      },
      events: {
        kind: Uint8Array.from(events.kind),
        block: Uint32Array.from(events.block),
        place: Uint32Array.from(events.place),
        launches: Uint32Array.from(events.launches),
        flops: Float64Array.from(events.flops),
        moved: Float64Array.from(events.moved),
      },
    });
  }

  private add({ flops, launches, moved }: PhaseWork): void {
    for (const sum of [this.all, this.work.get(this.place.phase)!]) {
      sum.flops += flops;
      sum.launches += launches;
      sum.moved += moved;
    }
  }

  private event(kind: number, block: number): number {
    const { events, places, place } = this;
    // Coming back to a place after a visit elsewhere finds another one last: it is written again, which costs an entry and no search.
    if (places.at(-1) !== place) places.push(place);
    events.kind.push(kind);
    events.block.push(block);
    events.place.push(places.length - 1);
    events.launches.push(this.all.launches);
    events.flops.push(this.all.flops);
    events.moved.push(this.all.moved);
    return events.kind.length - 1;
  }

  private askerOf(block: Block): number {
    const { op, name, of } = this.asker(block);
    const byOp = entry(this.askerIndex, op, () => new Map<string | null, Map<string | null, number>>());
    return entry(entry(byOp, of, () => new Map<string | null, number>()), name, () => this.askers.push({ op, name, of }) - 1);
  }
}

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key);
  if (known !== undefined) return known;
  const made = make();
  map.set(key, made);
  return made;
}
