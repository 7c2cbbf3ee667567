// A plan's timeline as the page of `lomo plan --html` carries it: sampled so that the peak of every stretch stays, each tensor live at a sample by name.
import type { MemoryPlan, ProgramPlace, Timeline, TimelineColumns } from '@lomo/parallel';
import { blockWords, eventKinds, placeWords } from '@lomo/parallel';
import { alignment, categories } from '@lomo/tensor';

/** Stretches of equal work that a timeline is cut into. */
export const stretches = 1000;

/** Floating-point operations that take as long as moving one byte: what a launch's length along the page is reckoned by. */
const flopsPerByte = 25;

/** Texts by number, so that each is written once. */
export class Texts {
  readonly list: string[] = [];
  private readonly known = new Map<string, number>();

  /** The number of `text`. */
  of(text: string): number {
    const found = this.known.get(text);
    if (found !== undefined) return found;
    this.known.set(text, this.list.length);
    return this.list.push(text) - 1;
  }
}

/** One plan on the page. Samples are moments in order, each drawn from its `x` to the next one's; segments are tensors under one category over consecutive samples. */
export interface PageRun {
  readonly name: string;
  /** What the run would do as it stands. */
  readonly chosen: boolean;
  readonly extent: number;
  readonly peak: number;
  /** The sample that is the peak. */
  readonly peakSample: number;
  readonly flops: number;
  readonly launches: number;
  readonly samples: {
    /** Of `stretches`, from the left. */
    readonly x: readonly number[];
    /** Numbers of texts: where the program is; what it has just asked for or given back. */
    readonly place: readonly number[];
    readonly event: readonly number[];
    /** 0 forward, 1 recompute, 2 backward, 3 what settles, 4 anything else. */
    readonly part: readonly number[];
    /** Number of the text that names the phase and pass. */
    readonly pass: readonly number[];
  };
  /** Each by the same index: text, category, units of `alignment` bytes, first sample less that of the segment before, number of samples. */
  readonly segments: {
    readonly name: readonly number[];
    readonly category: readonly number[];
    readonly units: readonly number[];
    readonly first: readonly number[];
    readonly count: readonly number[];
  };
}

/** The run of `plan`; `texts` takes its words. */
export function pageRun(plan: MemoryPlan, { name, chosen, texts }: { readonly name: string; readonly chosen: boolean; readonly texts: Texts }): PageRun {
  const moments = sampleTimeline(plan);
  const { timeline } = plan;
  const samples = { x: [] as number[], place: [] as number[], event: [] as number[], part: [] as number[], pass: [] as number[] };
  const { places, events } = timeline.columns;
  for (const { x, at } of moments) {
    const [kind, block, place] = [events.kind[at]!, timeline.block(events.block[at]!), places[events.place[at]!]!];
    const did = kind === eventKinds.allocated ? 'allocated' : kind === eventKinds.freed ? 'freed' : `counted as ${categories[kind - eventKinds.assigned]!}`;
    samples.x.push(x);
    samples.place.push(texts.of(placeWords(place)));
    samples.event.push(texts.of(`${did}: ${blockWords(block)}`));
    samples.part.push(partOf(place));
    samples.pass.push(texts.of(place.pass === undefined ? place.phase : `${place.phase}: ${place.pass}`));
  }
  const sum = (work: ReadonlyMap<string, number>): number => work.get('step') ?? 0;
  return {
    name,
    chosen,
    extent: plan.extent,
    peak: plan.peak,
    peakSample: moments.findIndex(({ at }) => at === plan.peakAt),
    flops: sum(plan.flops),
    launches: sum(plan.launches),
    samples,
    segments: segmentsOf(timeline, moments.map(({ at }) => at), texts),
  };
}

interface Moment {
  /** Stretch from which on it is drawn. */
  readonly x: number;
  /** Event after which it is. */
  readonly at: number;
}

/** The fullest moment of every stretch of equal work, and, where nothing happens in the next one, what stays. */
function sampleTimeline({ timeline, peakAt }: MemoryPlan): readonly Moment[] {
  const { places, events } = timeline.columns;
  const { length } = timeline;
  // What is made before the first step lives all through it; it has a page of its own only where it is the peak.
  let from = 0;
  while (from < length - 1 && from < peakAt && places[events.place[from]!]!.phase === 'setup') from++;
  const work = new Float64Array(length);
  for (let e = from + 1; e < length; e++) {
    const [flops, moved] = [events.flops[e]! - events.flops[e - 1]!, events.moved[e]! - events.moved[e - 1]!];
    work[e] = work[e - 1]! + Math.max(flops / flopsPerByte, moved);
  }
  const all = work[length - 1]!;
  const stretchOf = (e: number): number => Math.min(stretches - 1, Math.floor(stretches * (all > 0 ? work[e]! / all : (e - from) / (length - from))));
  const moments: Moment[] = [];
  let [stretch, fullest, most, last] = [-1, -1, -1, -1];
  const close = (next: number): void => {
    if (fullest < 0) return;
    moments.push({ x: stretch, at: fullest });
    if (next > stretch + 1 && last !== fullest) moments.push({ x: stretch + 1, at: last });
  };
  timeline.curve((e, _live, total) => {
    if (e < from) return;
    const here = stretchOf(e);
    if (here !== stretch) {
      close(here);
      [stretch, fullest, most] = [here, -1, -1];
    }
    // The peak itself is the first to reach its bytes.
    if (total > most || e === peakAt) [fullest, most] = [e, total];
    last = e;
  });
  close(stretches);
  return moments;
}

function partOf({ part, settles }: ProgramPlace): number {
  if (settles !== undefined) return 3;
  return part === undefined ? 4 : ['forward', 'recompute', 'backward'].indexOf(part);
}

/** A block in words; one that is called after its op alone says which stage made it. */
function tensorWords({ askers, places, blocks }: TimelineColumns, id: number, category: number): string {
  const asker = askers[blocks.asker[id]!]!;
  const words = blockWords({ ...asker, category: categories[category]! });
  const { stage, microBatch } = places[blocks.place[id]!]!;
  if (asker.name !== null || asker.of !== null || stage === undefined) return words;
  return `${words} in ${stage}${microBatch === undefined || microBatch === 0 ? '' : `, micro-batch ${microBatch}`}`;
}

/** Who is live at the events `at`, in order: a segment for every stretch of samples that a block spends under one category. */
function segmentsOf(timeline: Timeline, at: readonly number[], texts: Texts): PageRun['segments'] {
  const { blocks, events } = timeline.columns;
  const open = new Map<number, { category: number; first: number | null }>();
  const found: { readonly id: number; readonly category: number; readonly first: number; readonly count: number }[] = [];
  // Blocks whose segment begins with the next sample.
  let fresh = new Set<number>();
  let sample = 0;
  const end = (id: number): void => {
    const { category, first } = open.get(id)!;
    if (first !== null) found.push({ id, category, first, count: sample - first });
    fresh.delete(id);
  };
  for (let e = 0; e <= (at.at(-1) ?? -1); e++) {
    const id = events.block[e]!;
    const kind = events.kind[e]!;
    if (kind === eventKinds.allocated) open.set(id, { category: blocks.category[id]!, first: null });
    else end(id);
    if (kind === eventKinds.freed) open.delete(id);
    else {
      if (kind >= eventKinds.assigned) open.set(id, { category: kind - eventKinds.assigned, first: null });
      fresh.add(id);
    }
    while (at[sample] === e) {
      for (const begun of fresh) open.get(begun)!.first = sample;
      fresh = new Set();
      sample++;
    }
  }
  for (const id of open.keys()) end(id);
  found.sort((a, b) => a.first - b.first || a.id - b.id);
  return {
    name: found.map(({ id, category }) => texts.of(tensorWords(timeline.columns, id, category))),
    category: found.map(({ category }) => category),
    units: found.map(({ id }) => blocks.bytes[id]! / alignment),
    first: found.map(({ first }, i) => first - (i === 0 ? 0 : found[i - 1]!.first)),
    count: found.map(({ count }) => count),
  };
}
