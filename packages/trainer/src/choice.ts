// What the plan decides: the fastest way of running that fits, found by running ways dry, with the number behind each choice.
import type { Category } from '@lomo/tensor';
import { categories } from '@lomo/tensor';
import type { RunPlan } from './assemble.ts';
import { bytes, shortTime, significant } from './quantity.ts';
import type { Candidate, Way, Ways } from './ways.ts';
import { isJudgedFirst, joinedShape, stepFlops, streamSeconds } from './ways.ts';

/** A choice that the plan or the data made, with the number behind it. */
export interface Choice {
  readonly name: string;
  readonly value: string;
  readonly reason: string;
}

/** What was chosen, and what stood beside it. */
export interface Chosen {
  readonly candidate: Candidate;
  readonly fits: boolean;
  /** Bytes the run may take. */
  readonly memory: number;
  /** Ways that were run dry beside it. */
  readonly beside: readonly Candidate[];
}

export interface ChooseOptions {
  /** A way that is known to be fast: beside the one that needs least, only it is tried, and no numbers are gathered for explanations. */
  readonly like?: Way;
}

/** Share of the memory that kept tapes and gradients put aside may fill. */
const extraShare = 0.8;

/**
 * The fastest way that fits into `memory` bytes, with room left where it keeps what it need not; the smallest one where none does. Stages stay
 * where they can, micro-batches are as large as is worth it; the form of the head, which bits depend on, changes only where nothing fits else.
 */
export async function choose(ways: Ways, memory: number, { like }: ChooseOptions = {}): Promise<Chosen> {
  const tried = new Set<Candidate>();
  const run = async (way: Partial<Way>): Promise<Candidate> => {
    const candidate = await ways.candidate(ways.way(way));
    tried.add(candidate);
    return candidate;
  };
  const done = async (candidate: Candidate): Promise<Chosen> => {
    for (const other of like === undefined ? await neighbours(ways, candidate) : []) tried.add(other);
    return { candidate, fits: candidate.plan.extent <= memory, memory, beside: [...tried] };
  };
  for (const stages of ways.stages) {
    const smaller: Way[] = [];
    for (const rows of ways.rows) {
      const least = await run({ ...leanest(ways), stages, rows });
      if (least.plan.extent <= memory) return done(await fastest(ways, least, { memory, run, like }));
      smaller.length = 0;
      // Nothing that a step does can need less than what lives as long as the run.
      if (settledBytes(least.plan) > memory) break;
      smaller.push(...smallerWays(ways, least));
    }
    for (const way of smaller) {
      const candidate = await run(way);
      if (candidate.plan.extent <= memory) return done(candidate);
    }
  }
  const smallest = [...tried].toSorted((a, b) => a.plan.extent - b.plan.extent)[0]!;
  if (like === undefined) {
    // How long the run would take if it fitted: what fits is compared with that.
    const { stages, rows } = smallest;
    const all: Candidate[] = [];
    for (const by of ways.by) all.push(await run({ ...wayOf(smallest), by }));
    await run({ stages, rows, by: all.toSorted((a, b) => a.seconds - b.seconds)[0]!.by });
  }
  return { candidate: smallest, fits: false, memory, beside: [...tried] };
}

/** Bytes that live as long as the run: weights, state, what comes in and goes out. */
export function settledBytes(plan: RunPlan): number {
  const { timeline, phases } = plan;
  // Set-up ends where the first tensor of the step begins; what it made only for a while is gone by then.
  const first = phases.get('setup')?.length ?? 0;
  const end = first < timeline.allocations ? timeline.columns.blocks.from[first]! : timeline.length;
  return sumOf(timeline.usageAt(end - 1));
}

function sumOf(usage: Readonly<Record<Category, number>>): number {
  return categories.reduce((sum, c) => sum + usage[c], 0);
}

/** What keeps nothing and puts nothing aside: where it does not fit, nothing does. */
function leanest(ways: Ways): Partial<Way> {
  return { keeps: ways.keeps.at(-1)!, by: ways.by[0]! };
}

/** Other forms of the head and of accumulation, where they have a part in the peak of `least`. */
function smallerWays(ways: Ways, least: Candidate): Way[] {
  const { plan } = least;
  const { stage, settles } = plan.timeline.event(plan.peakAt).place;
  const inHead = stage === plan.lastStage || settles !== undefined;
  const collects = plan.atPeak.gradient + plan.atPeak.factors > 0;
  const forms = inHead ? ways.headForms : [least.headForm];
  return forms.flatMap((headForm) => (collects ? ways.accumulations(least.rows) : [least.accumulate]).map((accumulate) => ({ ...wayOf(least), headForm, accumulate })));
}

interface Trial {
  readonly memory: number;
  readonly run: (way: Partial<Way>) => Promise<Candidate>;
  readonly like: Way | undefined;
}

async function fastest(ways: Ways, least: Candidate, { memory, run, like }: Trial): Promise<Candidate> {
  const every = ways.keeps.flatMap((keeps) => ways.by.map((by) => ({ keeps, by })));
  const wishes = like === undefined ? every : every.filter(({ keeps, by }) => keeps === least.keeps || (keeps === like.keeps && by === like.by));
  const all = [least];
  for (const { keeps, by } of wishes) all.push(await run({ ...wayOf(least), keeps, by }));
  const room = ({ keeps, by }: Candidate): number => (keeps || by === 'memory' ? extraShare : 1) * memory;
  return all.toSorted((a, b) => a.seconds - b.seconds).find((c) => c.plan.extent <= room(c)) ?? least;
}

/** For the numbers beside choices that nothing had to be tried for. */
async function neighbours(ways: Ways, chosen: Candidate): Promise<readonly Candidate[]> {
  const smallest = ways.rows.at(-1)!;
  const changes: readonly Partial<Way>[] = [
    ...ways.keeps.map((keeps) => ({ keeps })),
    ...ways.by.map((by) => ({ by })),
    ...ways.accumulations(chosen.rows).map((accumulate) => ({ accumulate })),
    ...ways.headForms.map((headForm) => ({ headForm })),
    { rows: smallest, accumulate: ways.accumulations(smallest)[0]! },
  ];
  const found: Candidate[] = [];
  for (const change of changes) found.push(await ways.candidate({ ...wayOf(chosen), ...change }));
  return found;
}

/** The way without its plan. */
export function wayOf({ stages, keeps, by, headForm, accumulate, rows }: Way): Way {
  return { stages, keeps, by, headForm, accumulate, rows };
}

/** What was chosen and why, for a screen. */
export function explain(ways: Ways, chosen: Chosen): Choice[] {
  const { candidate } = chosen;
  const { config, shape } = ways.base;
  const { microBatches } = joinedShape(shape, candidate.rows);
  return [
    ...(config.per_device_train_batch_size === 'auto' ? [rowsChoice(ways, chosen)] : []),
    ...placeChoices(ways, chosen),
    activationsChoice(ways, chosen),
    ...(isJudgedFirst(config) ? [clipChoice(ways, chosen)] : []),
    ...(microBatches > 1 ? [accumulationChoice(ways, chosen)] : []),
    headChoice(ways, chosen),
  ];
}

function differing<K extends keyof Way>({ candidate, beside }: Chosen, key: K): Candidate[] {
  const rest = JSON.stringify({ ...wayOf(candidate), [key]: null });
  return [candidate, ...beside].filter((c, i, all) => all.indexOf(c) === i && JSON.stringify({ ...wayOf(c), [key]: null }) === rest);
}

/** Seconds, minutes or hours, with two or three digits that matter. */
export function timeWords(seconds: number): string {
  if (seconds < 99.5) return shortTime(seconds);
  return seconds < 5970 ? `${significant(seconds / 60)} min` : `${significant(seconds / 3600)} h`;
}

/** '1.20 GiB, 3.1 s' */
function cost({ plan, seconds }: Candidate): string {
  return `${bytes(plan.extent)}, ${timeWords(seconds)}`;
}

function rowsChoice(ways: Ways, chosen: Chosen): Choice {
  const { candidate, beside } = chosen;
  const { tokens, microBatches } = joinedShape(ways.base.shape, candidate.rows);
  const other = beside.find((c) => c.rows === ways.rows.at(-1) && c.rows < candidate.rows && c.keeps === candidate.keeps && c.by === candidate.by && c.headForm === candidate.headForm && c.stages === candidate.stages);
  const larger = ways.rows.filter((k) => k > candidate.rows).length > 0 ? '; larger ones do not fit' : '';
  const numbers = other === undefined ? '' : ` (${cost(candidate)} a step; ${other.rows} ${other.rows === 1 ? 'row' : 'rows'} ${cost(other)})`;
  return { name: 'micro-batch', value: `${candidate.rows} of ${ways.base.shape.microBatches} rows`, reason: `${microBatches} x ${tokens.toLocaleString('en-US')} tokens; equal bits however a step is split${larger}${numbers}` };
}

/** Nothing where weights stay and nobody asked. */
function placeChoices(ways: Ways, { candidate: { plan }, beside, memory }: Chosen): Choice[] {
  const { config } = ways.base;
  const { streamed, offloaded } = plan;
  const boundaries = offloaded === 0 ? [] : [{ name: 'boundaries', value: 'in a file', reason: `as the run asks: ${bytes(offloaded)} written and read a step` }];
  if (streamed === null) return config.stages === 'auto' ? boundaries : [{ name: 'weights', value: 'resident', reason: 'as the run asks' }, ...boundaries];
  const least = Math.min(...beside.filter((c) => c.stages === 'resident').map((c) => c.plan.extent));
  const why = config.stages === 'auto' && Number.isFinite(least) ? `resident the run needs ${bytes(least)}, ${bytes(memory)} are free` : 'as the run asks';
  const work = `${bytes(streamed.bytes)} in a file, ${bytes(streamed.read)} read and ${bytes(streamed.written)} written a step, ${timeWords(streamSeconds(plan, ways.rates))} at ${ways.rates.disk / 1e9} GB/s beside ${timeWords(stepFlops(plan) / ways.rates.flops)} of computing`;
  return [{ name: 'weights', value: 'streamed', reason: `${why}: ${work}` }, ...boundaries];
}

function activationsChoice(ways: Ways, chosen: Chosen): Choice {
  const { candidate, memory } = chosen;
  const both = differing(chosen, 'keeps');
  const [kept, recomputed] = [both.find(({ keeps }) => keeps), both.find(({ keeps }) => !keeps)];
  const numbers = kept === undefined || recomputed === undefined ? '' : ` (kept ${bytes(kept.plan.extent)}, recomputed ${bytes(recomputed.plan.extent)}; ${timeWords(kept.seconds)} or ${timeWords(recomputed.seconds)} a step; free ${bytes(memory)})`;
  const asked = ways.base.config.gradient_checkpointing !== 'auto';
  const why = asked ? 'as the run asks' : candidate.keeps ? 'they fit' : 'kept they would not fit';
  return { name: 'activations', value: candidate.keeps ? 'kept' : 'recomputed', reason: `${why}${numbers}` };
}

function clipChoice(ways: Ways, chosen: Chosen): Choice {
  const { candidate } = chosen;
  const { rates } = ways;
  const all = differing(chosen, 'by');
  const least = Math.min(...all.map(({ plan }) => stepFlops(plan)));
  const asked = ways.base.config.clip_by !== 'auto';
  const words = all.toSorted((a, b) => a.seconds - b.seconds).map((c) => `${c.by} ${c.by === 'two-pass' ? `${significant((stepFlops(c.plan) - least) / 1e9)} GFLOP more` : `${bytes(c.plan.spilled)} put aside`}, ${timeWords(c.seconds)}`);
  if (asked) return { name: 'clip', value: candidate.by, reason: `as the run asks${candidate.by === 'two-pass' ? '' : `: ${words[0]} a step`}` };
  const cheapest = all.toSorted((a, b) => a.seconds - b.seconds)[0]!;
  const why = candidate.by === cheapest.by ? 'the cheapest' : `${cheapest.by} would be cheaper, and does not fit`;
  const assumed = `assuming ${rates.flops / 1e9} GFLOP/s, memory ${rates.memory / 1e9} GB/s, disk ${rates.disk / 1e9} GB/s`;
  return { name: 'clip', value: candidate.by, reason: `${why} (${words.join('; ')} a step, ${assumed})` };
}

function accumulationChoice(ways: Ways, chosen: Chosen): Choice {
  const { candidate } = chosen;
  const other = differing(chosen, 'accumulate').find((c) => c !== candidate);
  const why = { factors: 'equal bits for any split into micro-batches', buffer: 'micro-batches are whole chunks: equal bits' }[candidate.accumulate];
  const asked = ways.base.config.accumulation === 'auto' ? '' : 'as the run asks; ';
  return { name: 'accumulation', value: candidate.accumulate, reason: `${asked}${why}${other === undefined ? '' : ` (${cost(candidate)} a step; ${other.accumulate} ${cost(other)})`}` };
}

function headChoice(ways: Ways, chosen: Chosen): Choice {
  const { candidate } = chosen;
  const other = differing(chosen, 'headForm').find((c) => c !== candidate);
  const why = { chunks: 'three products; the gradient of the head is held in f32', tiles: 'four products; the gradient of the head never exists whole' }[candidate.headForm];
  const asked = ways.base.config.head_form === 'auto' ? '' : 'as the run asks; ';
  return { name: 'head', value: candidate.headForm, reason: `${asked}${why}${other === undefined ? '' : ` (${cost(candidate)} a step; ${other.headForm} ${cost(other)})`}` };
}
