// A trace file as a test reads it: parsed, its spans checked for nesting, its lanes taken apart.
import { isDeepStrictEqual } from 'node:util';

/** One complete span, microseconds. */
export interface TraceSpan {
  readonly name: string;
  readonly cat: string;
  readonly tid: number;
  readonly ts: number;
  readonly dur: number;
  readonly args: Readonly<Record<string, string | number>>;
}

/** One sample of a counter. */
export interface TraceSample {
  readonly name: string;
  readonly ts: number;
  readonly args: Readonly<Record<string, number>>;
}

export interface TraceFile {
  readonly other: Readonly<Record<string, unknown>>;
  /** Names of the lanes by thread number. */
  readonly lanes: ReadonlyMap<number, string>;
  readonly spans: readonly TraceSpan[];
  readonly counters: readonly TraceSample[];
}

type Json = Readonly<Record<string, unknown>>;

/** Parses a trace file and holds every event to what the format asks of its kind. Throws naming the event that is wrong. */
export function parseTrace(text: string): TraceFile {
  const { otherData, traceEvents, ...rest } = JSON.parse(text) as { otherData: Json; traceEvents: Json[] };
  if (!isDeepStrictEqual(rest, { displayTimeUnit: 'ms' })) throw new Error(`more in the file than a trace: ${JSON.stringify(rest)}`);
  const lanes = new Map<number, string>();
  const [spans, counters]: [TraceSpan[], TraceSample[]] = [[], []];
  for (const event of traceEvents) {
    const fail = (why: string): never => {
      throw new Error(`${why}: ${JSON.stringify(event)}`);
    };
    const time = (value: unknown): boolean => typeof value === 'number' && Number.isFinite(value) && value >= 0;
    if (event['pid'] !== 1 || typeof event['name'] !== 'string' || event['name'] === '') fail('an event of no process or name');
    if (event['ph'] === 'X') {
      if (!time(event['ts']) || !time(event['dur']) || typeof event['cat'] !== 'string') fail('a span without time or category');
      spans.push(event as unknown as TraceSpan);
    } else if (event['ph'] === 'C') {
      if (!time(event['ts']) || !Object.values(event['args'] as Json).every(time)) fail('a counter without numbers');
      counters.push(event as unknown as TraceSample);
    } else if (event['ph'] === 'M') {
      if (event['name'] === 'thread_name') lanes.set(event['tid'] as number, String((event['args'] as Json)['name']));
    } else fail('an event of another kind');
  }
  return { other: otherData, lanes, spans, counters };
}

/** Pairs of spans of one lane that overlap without one holding the other. */
export function crossings({ spans }: TraceFile): string[] {
  const found: string[] = [];
  for (const tid of new Set(spans.map((span) => span.tid))) {
    const open: TraceSpan[] = [];
    const end = (span: TraceSpan): number => span.ts + span.dur;
    // Ties in the order of the file: what encloses was written first.
    for (const span of spans.filter((s) => s.tid === tid).toSorted((a, b) => a.ts - b.ts || b.dur - a.dur)) {
      while (open.length > 0 && end(open.at(-1)!) <= span.ts) open.pop();
      const outer = open.at(-1);
      if (outer !== undefined && end(span) > end(outer)) found.push(`${span.name} at ${span.ts} leaves ${outer.name} at ${outer.ts}`);
      open.push(span);
    }
  }
  return found;
}

/** The spans of `category` that hold `span` in its lane. */
export function enclosing({ spans }: TraceFile, span: TraceSpan, category: string): TraceSpan[] {
  return spans.filter((s) => s.cat === category && s.tid === span.tid && s.ts <= span.ts && s.ts + s.dur >= span.ts + span.dur);
}
