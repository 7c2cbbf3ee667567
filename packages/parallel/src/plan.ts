// The plan: the program run on the dry backend, its allocations recorded. No second set of formulas.
import type { Allocation, Backend, Category, DeviceOptions } from '@lomo/tensor';
import { categories, Device, DryBackend } from '@lomo/tensor';
import { TimelineRecorder } from './plan_recorder.ts';
import type { PlannedBlock, PlannedEvent, Timeline } from './plan_timeline.ts';

export interface MemoryPlan {
  /** Bytes of the memory to reserve: the arena's high-water mark. */
  readonly extent: number;
  /** Most bytes live at once; `extent - peak` is fragmentation. */
  readonly peak: number;
  /** Peak of each category by itself. */
  readonly byCategory: Readonly<Record<Category, number>>;
  /** Live bytes of each category at the moment of the peak. */
  readonly atPeak: Readonly<Record<Category, number>>;
  /** The allocation that first reaches the peak: an event of the timeline; -1 where nothing is allocated. */
  readonly peakAt: number;
  /** Every allocation, in order, phase by phase. */
  readonly phases: ReadonlyMap<string, readonly Allocation[]>;
  /** Every allocation and every free: who asked, where in the program, when. */
  readonly timeline: Timeline;
  /** Floating-point operations by phase. */
  readonly flops: ReadonlyMap<string, number>;
  /** Bytes that launches and copies read and write, by phase; operands whole, though an op may look at a part. */
  readonly moved: ReadonlyMap<string, number>;
  /** Launches by phase. */
  readonly launches: ReadonlyMap<string, number>;
}

export type PlanPhases = (device: Device) => Iterable<{ readonly name: string; run(): void | Promise<void> }>;

/** Runs `phases` without data for `target` and says what they allocate. */
export async function makePlan(target: Backend, phases: PlanPhases, options: Omit<DeviceOptions, 'bytes'> = {}): Promise<MemoryPlan> {
  const device = new Device(new DryBackend(target), { ...options, bytes: Infinity });
  const { arena } = device;
  const recorder = new TimelineRecorder();
  const starts = new Map<string, number>();
  let [peak, peakAt] = [0, -1];
  arena.observer = {
    allocated: (block) => {
      const at = recorder.allocated(block);
      if (arena.live > peak) {
        peak = arena.live;
        peakAt = at;
      }
    },
    freed: (block) => recorder.freed(block),
    assigned: (block, from) => recorder.assigned(block, from),
  };
  device.observer = recorder;
  for (const { name, run } of phases(device)) {
    recorder.enter(name);
    starts.set(name, recorder.allocations);
    await run();
  }
  const byCategory = Object.fromEntries(categories.map((c) => [c, arena.usage[c].peak])) as Record<Category, number>;
  const timeline = recorder.timeline();
  const counted = (what: 'flops' | 'moved' | 'launches'): ReadonlyMap<string, number> => new Map([...recorder.work].map(([name, work]) => [name, work[what]]));
  return {
    extent: arena.extent,
    peak: arena.peak,
    byCategory,
    atPeak: timeline.usageAt(peakAt),
    peakAt,
    phases: new RecordedPhases(timeline, starts),
    timeline,
    flops: counted('flops'),
    moved: counted('moved'),
    launches: counted('launches'),
  };
}

/** The moment at which a plan needs most: what asked, where in the program, and what lives then, largest first. */
export function peakOf({ timeline, peakAt }: Pick<MemoryPlan, 'timeline' | 'peakAt'>): { readonly event: PlannedEvent; readonly blocks: readonly PlannedBlock[] } {
  return { event: timeline.event(peakAt), blocks: timeline.liveAt(peakAt) };
}

/** The allocations of a timeline, phase by phase, made when somebody asks. */
class RecordedPhases implements ReadonlyMap<string, readonly Allocation[]> {
  private readonly timeline: Timeline;
  private readonly starts: ReadonlyMap<string, number>;
  private readonly made = new Map<string, readonly Allocation[]>();

  /** `starts`: the first allocation of each phase, in order. */
  constructor(timeline: Timeline, starts: ReadonlyMap<string, number>) {
    this.timeline = timeline;
    this.starts = starts;
  }

  get size(): number {
    return this.starts.size;
  }

  has(name: string): boolean {
    return this.starts.has(name);
  }

  get(name: string): readonly Allocation[] | undefined {
    const from = this.starts.get(name);
    if (from === undefined) return undefined;
    let list = this.made.get(name);
    if (list === undefined) {
      const names = [...this.starts.keys()];
      const to = this.starts.get(names[names.indexOf(name) + 1] ?? '') ?? this.timeline.allocations;
      list = Array.from({ length: to - from }, (_, i) => this.timeline.allocation(from + i));
      this.made.set(name, list);
    }
    return list;
  }

  keys(): MapIterator<string> {
    return this.starts.keys();
  }

  values(): MapIterator<readonly Allocation[]> {
    return this.all().values();
  }

  entries(): MapIterator<[string, readonly Allocation[]]> {
    return this.all().entries();
  }

  forEach(visit: (list: readonly Allocation[], name: string, map: ReadonlyMap<string, readonly Allocation[]>) => void): void {
    for (const [name, list] of this.all()) visit(list, name, this);
  }

  [Symbol.iterator](): MapIterator<[string, readonly Allocation[]]> {
    return this.entries();
  }

  private all(): Map<string, readonly Allocation[]> {
    return new Map([...this.starts.keys()].map((name) => [name, this.get(name)!]));
  }
}
