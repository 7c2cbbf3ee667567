// Adds to any schedule what brings weights and boundary activations in and out: fetched while the stage before computes, gone when unneeded.
import { LomoError } from '@lomo/tensor';
import type { Action, Transfer, Work } from '../schedule.ts';
import { isTransfer } from '../schedule.ts';

/** What is away unless it is gathered. */
export interface Absences {
  /** By stage: its weights. */
  readonly weights: readonly boolean[];
  /** By stage: the boundary activations that arrive at it. */
  readonly boundaries: readonly boolean[];
}

/** What a pass over a step does. */
export interface PassKind {
  /** It makes the boundaries; later passes only walk back. */
  readonly first: boolean;
  /** Its walks give up the boundaries. */
  readonly last: boolean;
  /** Its walks update weights. */
  readonly writes: boolean;
}

/** Work on one stage in one direction, back to back: while a group runs, what the next one needs is on its way. */
interface Group {
  readonly kind: Work['kind'];
  readonly stage: number;
  readonly work: Work[];
}

/** Uses of one thing in one pass, by group. */
interface Thing {
  readonly what: Transfer['what'];
  readonly stage: number;
  readonly uses: readonly number[];
  /** Made on the device by its first use. */
  readonly born: boolean;
  /** A use changes or makes it: what the store has is old. */
  readonly dirties: (use: number) => boolean;
  /** Somebody else gives up its room after the last use. */
  readonly leaves: boolean;
}

/**
 * The actions of one pass. Something is gathered one group before it is needed, stored after the last use that changed it, and released when
 * that is done, a group later. Where it would be fetched again at once it stays.
 */
export function withTransfers(work: readonly Work[], absences: Absences, pass: PassKind): Action[] {
  const all = grouped(work);
  const groups = pass.first ? all : all.filter(({ kind }) => kind !== 'forward');
  const events = Array.from({ length: groups.length + 2 }, () => ({ store: [] as Transfer[], release: [] as Transfer[], gather: [] as Transfer[] }));
  for (const thing of thingsOf(groups, absences, pass)) {
    const { what, stage } = thing;
    const at = (group: number) => events[Math.max(0, Math.min(group, groups.length))]!;
    const spans = spansOf(thing);
    spans.forEach((span, i) => {
      const [from, to] = [span[0]!, span.at(-1)!];
      const isLast = i === spans.length - 1;
      if (!(i === 0 && thing.born)) at(from - 1).gather.push({ kind: 'gather', what, stage });
      if (isLast && thing.leaves) return;
      const dirty = span.some(thing.dirties);
      if (dirty) at(to + 1).store.push({ kind: 'store', what, stage });
      at(to + (dirty ? 2 : 1)).release.push({ kind: 'release', what, stage });
    });
  }
  const firstUse = (t: Transfer, from: number): number => groups.findIndex((g, i) => i >= from && isUse(g, t));
  return [...groups, null].flatMap((group, i) => {
    const { store, release, gather } = events[i]!;
    const byNeed = gather.toSorted((a, b) => firstUse(a, i) - firstUse(b, i));
    return [...store, ...release, ...byNeed, ...(group?.work ?? [])];
  });
}

/**
 * Throws ScheduleError unless everything that is away is on the device for all work that needs it, on its way while another stage computes
 * (at the start of a pass there is none), stored when changed, never released before its last reader, and released at the end.
 */
export function checkTransfers(actions: readonly Action[], absences: Absences, pass: PassKind): void {
  const here = new Map<string, { since: number; used: boolean; dirty: boolean }>();
  let group = -1;
  let head = '';
  const refuse = (what: string, why: string): never => {
    throw new LomoError('ScheduleError', `${what} ${why}`);
  };
  const need = (what: Transfer['what'], stage: number, by: string): void => {
    const state = here.get(`${what} ${stage}`);
    if (state === undefined) return refuse(by, `runs while its ${what} ${what === 'weights' ? 'are' : 'is'} away`);
    if (!state.used && state.since > 0 && state.since >= group) refuse(by, `waits for its ${what}: gathered too late to come while another stage computes`);
    state.used = true;
  };
  for (const action of actions) {
    const { kind, stage } = action;
    if (!isTransfer(action)) {
      if (head !== `${kind} ${stage}`) group++;
      head = `${kind} ${stage}`;
      const name = `${kind} of stage ${stage}, micro-batch ${action.microBatch},`;
      if (absences.weights[stage]) {
        need('weights', stage, name);
        if (kind === 'update' || (kind === 'backward' && pass.writes)) here.get(`weights ${stage}`)!.dirty = true;
      }
      if (kind === 'update') continue;
      if (absences.boundaries[stage]) need('boundary', stage, name);
      if (kind === 'forward' && absences.boundaries[stage + 1]) {
        const key = `boundary ${stage + 1}`;
        if (!here.has(key)) here.set(key, { since: group, used: true, dirty: true });
      }
      if (kind === 'backward' && pass.last && absences.boundaries[stage] && !actions.slice(actions.indexOf(action) + 1).some((a) => a.kind === 'backward' && a.stage === stage)) here.delete(`boundary ${stage}`);
      continue;
    }
    const key = `${action.what} ${stage}`;
    const name = `${kind} of the ${action.what} of stage ${stage}`;
    const state = here.get(key);
    if (kind === 'gather') {
      if (state !== undefined) refuse(name, 'finds it on the device');
      here.set(key, { since: group + 1, used: false, dirty: false });
    } else if (state === undefined) refuse(name, 'finds it away');
    else if (kind === 'store') state.dirty = false;
    else {
      if (state.dirty) refuse(name, 'loses what has changed: it is not stored');
      if (!state.used) refuse(name, 'comes before anybody has used it');
      here.delete(key);
    }
  }
  for (const key of here.keys()) refuse(`the ${key.replace(' ', ' of stage ')}`, key.startsWith('weights') ? 'are never released' : 'is never released');
}

/**
 * By stage: whether the boundary that arrives at it may go between its forward and its walk back: all its micro-batches together, and time
 * to come back.
 */
export function absentBoundaries(work: readonly Work[], stages: number): boolean[] {
  const groups = grouped(work);
  return Array.from({ length: stages }, (_, stage) => {
    const uses = usesOf(groups, { what: 'boundary', stage });
    return stage > 0 && uses.length === 3 && uses[2]! - uses[1]! >= longest;
  });
}

function grouped(work: readonly Work[]): Group[] {
  const groups: Group[] = [];
  for (const each of work) {
    const last = groups.at(-1);
    if (last !== undefined && last.kind === each.kind && last.stage === each.stage) last.work.push(each);
    else groups.push({ kind: each.kind, stage: each.stage, work: [each] });
  }
  return groups;
}

function* thingsOf(groups: readonly Group[], absences: Absences, pass: PassKind): Generator<Thing> {
  for (const [stage, away] of absences.weights.entries()) {
    const uses = usesOf(groups, { what: 'weights', stage });
    const dirties = (use: number): boolean => groups[use]!.kind === 'update' || (pass.writes && groups[use]!.kind === 'backward');
    if (away && uses.length > 0) yield { what: 'weights', stage, uses, born: false, dirties, leaves: false };
  }
  for (const [stage, away] of absences.boundaries.entries()) {
    const uses = usesOf(groups, { what: 'boundary', stage });
    if (away && uses.length > 0) yield { what: 'boundary', stage, uses, born: pass.first, dirties: (use) => groups[use]!.stage === stage - 1, leaves: pass.last };
  }
}

/** Groups between two uses from which on something goes and comes back: one to be written, one apart, one to be fetched. */
const longest = 4;

function usesOf(groups: readonly Pick<Group, 'kind' | 'stage'>[], thing: Pick<Transfer, 'what' | 'stage'>): number[] {
  return groups.flatMap((group, i) => (isUse(group, thing) ? [i] : []));
}

function isUse({ kind, stage }: Pick<Group, 'kind' | 'stage'>, thing: Pick<Transfer, 'what' | 'stage'>): boolean {
  if (thing.what === 'weights') return stage === thing.stage;
  return kind !== 'update' && (stage === thing.stage || (kind === 'forward' && stage === thing.stage - 1));
}

/** Uses parted where something goes between two of them. */
function spansOf({ uses }: Thing): number[][] {
  const spans: number[][] = [];
  for (const use of uses) {
    const last = spans.at(-1);
    if (last !== undefined && use - last.at(-1)! < longest) last.push(use);
    else spans.push([use]);
  }
  return spans;
}
