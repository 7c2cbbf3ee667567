// Events of the Chrome trace event format: spans on lanes, counters, names. Times come in milliseconds and go out in microseconds.

/** One event as the format has it. */
export type TraceEvent =
  | { readonly ph: 'X'; readonly name: string; readonly cat: string; readonly pid: number; readonly tid: number; readonly ts: number; readonly dur: number; readonly args: Readonly<Record<string, string | number>> }
  | { readonly ph: 'C'; readonly name: string; readonly pid: number; readonly ts: number; readonly args: Readonly<Record<string, number>> }
  | { readonly ph: 'M'; readonly name: string; readonly pid: number; readonly tid: number; readonly args: Readonly<Record<string, string | number>> };

/** Lanes of a trace: their thread numbers. */
export const lanes = { script: 1, device: 2 } as const;
const pid = 1;

/** Where and when a span is. */
export interface SpanPlace {
  readonly category: string;
  readonly start: number;
  readonly end: number;
  readonly args?: Readonly<Record<string, string | number>>;
}

/** Spans and counters, counted from the first moment that is told. */
export class Spans {
  readonly events: TraceEvent[] = [];
  private origin = NaN;

  span(lane: number, name: string, { category, start, end, args = {} }: SpanPlace): void {
    const [from, to] = [this.microseconds(start), this.microseconds(end)];
    this.events.push({ ph: 'X', name, cat: category, pid, tid: lane, ts: from, dur: Math.max(0, to - from), args });
  }

  counter(name: string, at: number, args: Readonly<Record<string, number>>): void {
    this.events.push({ ph: 'C', name, pid, ts: this.microseconds(at), args });
  }

  /**
   * In eighths: exact as a binary fraction and in whole nanoseconds, so that ts + dur of what encloses is never less than that of what it
   * holds, however a viewer adds.
   */
  private microseconds(at: number): number {
    if (Number.isNaN(this.origin)) this.origin = at;
    return Math.round((at - this.origin) * 8000) / 8;
  }
}

/** Names and order of the process and its lanes. */
export function named(backend: string): TraceEvent[] {
  const lane = (tid: number, name: string): TraceEvent[] => [
    { ph: 'M', name: 'thread_name', pid, tid, args: { name } },
    { ph: 'M', name: 'thread_sort_index', pid, tid, args: { sort_index: tid } },
  ];
  return [{ ph: 'M', name: 'process_name', pid, tid: 0, args: { name: 'lomo' } }, ...lane(lanes.script, 'script: enqueues'), ...lane(lanes.device, `${backend}: runs`)];
}
