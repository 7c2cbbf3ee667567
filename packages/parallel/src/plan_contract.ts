// The contract at run time: a real run makes the very allocations of its plan, or stops at the first that differs and names it.
import type { Allocation, Block, Category, Device } from '@lomo/tensor';
import { isLomoError, LomoError, observedBy } from '@lomo/tensor';
import type { MemoryPlan } from './plan.ts';
import { Whereabouts } from './plan_recorder.ts';
import type { Asker, PlannedBlock, ProgramPlace } from './plan_timeline.ts';
import { blockWords, placeWords } from './plan_timeline.ts';

/** One side of a difference, as PlanMismatch's details hold it. */
export interface MetAllocation extends Asker {
  readonly category: Category;
  readonly bytes: number;
  /** null: the planned memory has no room for it. */
  readonly offset: number | null;
  readonly place: ProgramPlace;
}

/**
 * Holds a real run to its plan: while `body` runs, every allocation must be the planned one of `phase`. Throws PlanMismatch at the first
 * that differs, and when some are missing at the end; it says what was met and what was planned, and where in the program.
 */
export async function underPlan<T>(device: Device, plan: MemoryPlan, phase: { readonly name: string; body(): T | Promise<T> }): Promise<T> {
  const { name } = phase;
  const expected = plan.phases.get(name);
  if (expected === undefined) throw new LomoError('PlanMismatch', `the plan has no phase '${name}' (has: ${[...plan.phases.keys()].join(', ')})`);
  const { observer: arenaBefore } = device.arena;
  const { observer: deviceBefore } = device;
  const here = new Whereabouts(name);
  let index = 0;
  device.observer = observedBy(deviceBefore, here);
  device.arena.observer = {
    freed: (block) => arenaBefore?.freed?.(block),
    assigned: (block, from) => arenaBefore?.assigned?.(block, from),
    allocated: (block) => {
      arenaBefore?.allocated?.(block);
      const planned = expected[index++];
      if (planned !== undefined && planned.category === block.category && planned.bytes === block.bytes && planned.offset === block.offset) return;
      throw difference(plan, { phase: name, index, planned, met: metAllocation(block, here) });
    },
  };
  try {
    const result = await phase.body();
    if (index !== expected.length) {
      const next = plannedBlock(plan, name, index);
      throw new LomoError('PlanMismatch', `${name}: ${index} allocations, planned were ${expected.length}; the first that never came: ${spell({ ...next, ...expected[index]! })}`, { phase: name, index: index + 1, planned: next });
    }
    return result;
  } catch (error) {
    if (!isLomoError(error, 'OutOfMemory')) throw error;
    // What does not fit into the planned memory was not planned: no block was made of it, so it is named here.
    const { size, category } = error.details as { readonly size?: number; readonly category?: Category };
    if (size === undefined || category === undefined) throw error;
    const met = { bytes: size, category, offset: null, ...here.asker({}), place: here.place };
    throw difference(plan, { phase: name, index: index + 1, planned: expected[index], met });
  } finally {
    device.arena.observer = arenaBefore;
    device.observer = deviceBefore;
  }
}

function metAllocation(block: Block, here: Whereabouts): MetAllocation {
  const { category, bytes, offset } = block;
  return { category, bytes, offset, ...here.asker(block), place: here.place };
}

function difference(plan: MemoryPlan, at: { readonly phase: string; readonly index: number; readonly planned: Allocation | undefined; readonly met: MetAllocation }): LomoError {
  const { phase, index, planned, met } = at;
  const wanted = planned === undefined ? null : { ...plannedBlock(plan, phase, index - 1), ...planned };
  const elsewhere = wanted === null || placeWords(wanted.place) === placeWords(met.place) ? '' : `, in ${placeWords(wanted.place)}`;
  return new LomoError(
    'PlanMismatch',
    `${phase}, allocation ${index}: met ${spell(met)}, in ${placeWords(met.place)}; planned was ${wanted === null ? 'nothing more' : `${spell(wanted)}${elsewhere}`}. Nothing may run that was not planned: this is a fault of lomo or of a plugin, please report it.`,
    { phase, index, met, planned: wanted },
  );
}

/** Allocation `index` of a phase, as the timeline has it. */
function plannedBlock({ phases, timeline }: MemoryPlan, phase: string, index: number): PlannedBlock {
  let first = 0;
  for (const [name, list] of phases) {
    if (name === phase) break;
    first += list.length;
  }
  return timeline.block(first + index);
}

function spell(a: Omit<MetAllocation, 'place'>): string {
  return `${a.bytes} bytes of ${a.category} ${a.offset === null ? 'that do not fit,' : `at ${a.offset}`} for ${blockWords(a)}`;
}
