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
  let moved = 0;
  for (const t of ins) moved += t.bytes;
  for (const t of inouts) moved += 2 * t.bytes;
  for (const t of outs) moved += t.bytes;
  return moved;
}

/** Numbers in a typed array that grows. */
class Column<T extends Float64Array | Uint32Array | Uint8Array> {
  length = 0;
  private array: T;
  private readonly make: new (length: number) => T;

  constructor(make: new (length: number) => T) {
    this.make = make;
    this.array = new make(1024);
  }

  push(value: number): void {
    if (this.length === this.array.length) {
      const larger = new this.make(2 * this.length);
      larger.set(this.array);
      this.array = larger;
    }
    this.array[this.length++] = value;
  }

  set(at: number, value: number): void {
    this.array[at] = value;
  }

  /** What has been pushed, without the room behind it. */
  get values(): T {
    return this.array.slice(0, this.length) as T;
  }
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
  private readonly blocks = { bytes: new Column(Float64Array), offset: new Column(Float64Array), category: new Column(Uint8Array), asker: new Column(Uint32Array), place: new Column(Uint32Array), from: new Column(Uint32Array), until: new Column(Uint32Array) };
  private readonly events = { kind: new Column(Uint8Array), block: new Column(Uint32Array), place: new Column(Uint32Array), launches: new Column(Uint32Array), flops: new Column(Float64Array), moved: new Column(Float64Array) };

  constructor() {
    super('');
  }

  /** Allocations so far. */
  get allocations(): number {
    return this.blocks.bytes.length;
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
    const at = this.event(eventKinds.allocated, id);
    blocks.bytes.push(block.bytes);
    blocks.offset.push(block.offset);
    blocks.category.push(categoryIndex[block.category]);
    blocks.asker.push(this.askerOf(block));
    blocks.place.push(this.places.length - 1);
    blocks.from.push(at);
    blocks.until.push(never);
    return at;
  }

  freed(block: Block): void {
    const id = this.ids.get(block)!;
    this.ids.delete(block);
    this.blocks.until.set(id, this.event(eventKinds.freed, id));
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
      blocks: { bytes: blocks.bytes.values, offset: blocks.offset.values, category: blocks.category.values, asker: blocks.asker.values, place: blocks.place.values, from: blocks.from.values, until: blocks.until.values },
      events: { kind: events.kind.values, block: events.block.values, place: events.place.values, launches: events.launches.values, flops: events.flops.values, moved: events.moved.values },
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
