// The plan: the program run on the dry backend, its allocations recorded. No second set of formulas.
import type { Allocation, Backend, Category, DeviceOptions } from '@lomo/tensor';
import { Arena, categories, Device, DryBackend, LomoError } from '@lomo/tensor';

export interface MemoryPlan {
  /** Bytes of the memory to reserve: the arena's high-water mark. */
  readonly extent: number;
  /** Most bytes live at once; `extent - peak` is fragmentation. */
  readonly peak: number;
  /** Peak of each category by itself. */
  readonly byCategory: Readonly<Record<Category, number>>;
  /** Live bytes of each category at the moment of the peak. */
  readonly atPeak: Readonly<Record<Category, number>>;
  /** Every allocation, in order, phase by phase. */
  readonly phases: ReadonlyMap<string, readonly Allocation[]>;
  /** Floating-point operations by phase. */
  readonly flops: ReadonlyMap<string, number>;
  /** Launches by phase. */
  readonly launches: ReadonlyMap<string, number>;
}

export type PlanPhases = (device: Device) => Iterable<{ readonly name: string; run(): void | Promise<void> }>;

/** Runs `phases` without data for `target` and says what they allocate. */
export async function makePlan(target: Backend, phases: PlanPhases, options: Omit<DeviceOptions, 'bytes'> = {}): Promise<MemoryPlan> {
  const device = new Device(new DryBackend(target), { ...options, bytes: Infinity });
  const { arena } = device;
  const recorded = new Map<string, Allocation[]>();
  const flops = new Map<string, number>();
  const launches = new Map<string, number>();
  let [phase, peak] = ['', 0];
  let atPeak = snapshot(arena);
  arena.observer = {
    allocated: ({ category, bytes, offset }) => {
      recorded.get(phase)!.push({ category, bytes, offset });
      if (arena.live > peak) {
        peak = arena.live;
        atPeak = snapshot(arena);
      }
    },
  };
  device.observer = {
    launched: (op, { ins, inouts, outs }, attributes) => {
      flops.set(phase, (flops.get(phase) ?? 0) + op.flops(ins, attributes, inouts, outs));
      launches.set(phase, (launches.get(phase) ?? 0) + 1);
    },
  };
  for (const { name, run } of phases(device)) {
    phase = name;
    recorded.set(name, []);
    await run();
  }
  const byCategory = Object.fromEntries(categories.map((c) => [c, arena.usage[c].peak])) as Record<Category, number>;
  return { extent: arena.extent, peak: arena.peak, byCategory, atPeak, phases: recorded, flops, launches };
}

function snapshot(arena: Arena): Record<Category, number> {
  return Object.fromEntries(categories.map((c) => [c, arena.usage[c].live])) as Record<Category, number>;
}

/**
 * Holds a real run to its plan: while `body` runs, every allocation must be the planned one of `phase`. Throws PlanMismatch at the first
 * that differs, and when some are missing at the end.
 */
export async function underPlan<T>(device: Device, plan: MemoryPlan, phase: { readonly name: string; body(): T | Promise<T> }): Promise<T> {
  const expected = plan.phases.get(phase.name);
  if (expected === undefined) throw new LomoError('PlanMismatch', `the plan has no phase '${phase.name}' (has: ${[...plan.phases.keys()].join(', ')})`);
  const before = device.arena.observer;
  let index = 0;
  device.arena.observer = {
    allocated: ({ category, bytes, offset }) => {
      const planned = expected[index++];
      if (planned === undefined || planned.category !== category || planned.bytes !== bytes || planned.offset !== offset) {
        const met = `${bytes} bytes of ${category} at ${offset}`;
        const wanted = planned === undefined ? 'nothing' : `${planned.bytes} bytes of ${planned.category} at ${planned.offset}`;
        throw new LomoError('PlanMismatch', `${phase.name}, allocation ${index}: ${met}, planned was ${wanted}`, { phase: phase.name, index });
      }
    },
  };
  try {
    const result = await phase.body();
    if (index !== expected.length) throw new LomoError('PlanMismatch', `${phase.name}: ${index} allocations, planned were ${expected.length}`);
    return result;
  } finally {
    device.arena.observer = before;
  }
}
