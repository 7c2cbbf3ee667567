// A step as a picture of time: what the script enqueued, what the device ran and when, within which part, and what was live meanwhile.
import { categories } from './allocator.ts';
import type { TimedWork } from './backend.ts';
import type { Device } from './device.ts';
import { LomoError } from './errors.ts';
import type { Launched, LaunchObserver, Part } from './observer.ts';
import { observedBy } from './observer.ts';
import type { Op } from './op.ts';
import type { Spec } from './shape.ts';
import type { TraceEvent } from './trace_events.ts';
import { lanes, named, Spans } from './trace_events.ts';

export interface TraceOptions {
  /** Pieces of work a step keeps at most; the oldest of more are lost, and the trace says how many. */
  readonly capacity?: number;
}

/** What a trace holds so far. */
export interface TraceFacts {
  readonly steps: readonly number[];
  readonly launches: number;
  /** Pieces of work beyond the capacity: the trace does not show them. */
  readonly lost: number;
}

interface LaunchNote {
  readonly op: string;
  readonly operands: Pick<Launched, 'ins' | 'inouts' | 'outs'>;
  readonly ticket: number;
  readonly part: OpenPart | null;
  readonly start: number;
  readonly end: number;
  /** Live bytes by category while it runs. */
  readonly live: readonly number[];
}

interface OpenPart {
  readonly part: Part;
  readonly outer: OpenPart | null;
  readonly start: number;
  end: number;
  /** When the device ran the first and the last of its launches. */
  begun: number;
  done: number;
}

const defaultCapacity = 2 ** 16;
const mebibyte = 2 ** 20;

/** Listens to a device while one step runs. */
class StepListener implements LaunchObserver {
  readonly launches: LaunchNote[] = [];
  readonly parts: OpenPart[] = [];
  private open: OpenPart | null = null;
  private begun = 0;
  /** Of launches that were prepared, by their outs. */
  private readonly ready = new WeakMap<readonly unknown[], Pick<LaunchNote, 'start' | 'end' | 'live'>>();

  constructor(private readonly device: Device) {}

  launching(): void {
    this.begun = performance.now();
  }

  prepared(_op: Op, { outs }: Pick<Launched, 'outs'>): void {
    const { usage } = this.device.arena;
    this.ready.set(outs, { start: this.begun, end: performance.now(), live: categories.map((c) => usage[c].live) });
  }

  launched(op: Op, { ins, inouts, outs, event }: Launched): void {
    this.launches.push({ op: op.name, operands: { ins, inouts, outs }, ticket: event.ticket, part: this.open, ...this.ready.get(outs)! });
  }

  entered(part: Part): void {
    this.open = { part, outer: this.open, start: performance.now(), end: NaN, begun: NaN, done: NaN };
    this.parts.push(this.open);
  }

  left(): void {
    if (this.open === null) return;
    this.open.end = performance.now();
    this.open = this.open.outer;
  }

  /** Closes what an error left open. */
  close(at: number): void {
    for (const part of this.parts) if (Number.isNaN(part.end)) part.end = at;
  }
}

/**
 * Traces steps of one device in the Chrome trace event format, which Perfetto and chrome://tracing show. Lanes: the script, which enqueues,
 * and the device, which runs; spans of passes, stages and phases enclose the launches that belong to them. Counters: live bytes by category
 * as the device reaches each launch, and launches that wait or run.
 */
export class Trace {
  private readonly device: Device;
  private readonly capacity: number;
  private readonly spans = new Spans();
  private readonly steps: number[] = [];
  private readonly counted = { launches: 0, lost: 0 };

  /** Throws NoStopwatch where the backend cannot tell when it ran what. */
  constructor(device: Device, options: TraceOptions = {}) {
    if (device.backend.stopwatch === undefined) {
      throw new LomoError('NoStopwatch', `${device.backend.name} has no stopwatch, so nothing can be traced on it; trace on cpu or reference`, { backend: device.backend.name });
    }
    this.device = device;
    this.capacity = options.capacity ?? defaultCapacity;
  }

  /** Runs `body`, which is step `step`, and adds what happened to the trace. What `body` throws is thrown, and traced all the same. */
  async step<T>(step: number, body: () => Promise<T>): Promise<T> {
    const { device } = this;
    const stopwatch = device.backend.stopwatch!;
    const { observer: before } = device;
    const listener = new StepListener(device);
    stopwatch.start(this.capacity);
    device.observer = observedBy(before, listener);
    const start = performance.now();
    let end = start;
    try {
      return await body();
    } finally {
      end = performance.now();
      device.observer = before;
      listener.close(end);
      const { work, lost } = await stopwatch.stop();
      this.steps.push(step);
      this.counted.launches += listener.launches.length;
      this.counted.lost += lost;
      this.add({ step, start, end, listener, work });
    }
  }

  /** What has been traced. */
  get facts(): TraceFacts {
    return { steps: [...this.steps], ...this.counted };
  }

  /** The trace so far; write it to a file and open that in ui.perfetto.dev or chrome://tracing. */
  json(): string {
    const { name } = this.device.backend;
    const traceEvents: readonly TraceEvent[] = [...named(name), ...this.spans.events];
    return `{"displayTimeUnit":"ms","otherData":${JSON.stringify({ backend: name, ...this.facts })},"traceEvents":[\n${traceEvents.map((event) => JSON.stringify(event)).join(',\n')}\n]}\n`;
  }

  private add({ step, start, end, listener, work }: { readonly step: number; readonly start: number; readonly end: number; readonly listener: StepListener; readonly work: readonly TimedWork[] }): void {
    const { spans } = this;
    const ran = new Map(work.flatMap((piece) => (piece.kind === 'launch' ? [[piece.ticket, piece]] : [])));
    for (const { ticket, part } of listener.launches) {
      const piece = ran.get(ticket);
      for (let p = piece === undefined ? null : part; p !== null && piece !== undefined; p = p.outer) {
        if (Number.isNaN(p.begun)) p.begun = piece.start;
        p.done = piece.end;
      }
    }
    const title = `step ${step}`;
    spans.span(lanes.script, title, { category: 'step', start, end });
    const [first, last] = [work[0], work.at(-1)];
    if (first !== undefined && last !== undefined) spans.span(lanes.device, title, { category: 'step', start: first.start, end: last.end });
    for (const { part, start: from, end: to, begun, done } of listener.parts) {
      const { phase, name, microBatch } = part;
      const args = microBatch === undefined ? {} : { microBatch };
      spans.span(lanes.script, `${phase} ${name}`, { category: phase, start: from, end: to, args });
      if (!Number.isNaN(begun)) spans.span(lanes.device, `${phase} ${name}`, { category: phase, start: begun, end: done, args });
    }
    for (const { op, operands, ticket, part, start: from, end: to, live } of listener.launches) {
      const args = { ticket, ...placeOf(part), ...spelled(operands) };
      spans.span(lanes.script, op, { category: 'enqueue', start: from, end: to, args: { ticket } });
      const piece = ran.get(ticket);
      if (piece === undefined) continue;
      spans.span(lanes.device, op, { category: 'kernel', start: piece.start, end: piece.end, args });
      spans.counter('memory, MiB', piece.start, Object.fromEntries(categories.map((c, i) => [c, live[i]! / mebibyte])));
    }
    for (const piece of work) if (piece.kind !== 'launch') spans.span(lanes.device, piece.kind, { category: 'transfer', start: piece.start, end: piece.end, args: { ticket: piece.ticket } });
    this.addDepth(listener.launches, ran);
  }

  /** How far the script is ahead of the device. */
  private addDepth(launches: readonly LaunchNote[], ran: ReadonlyMap<number, TimedWork>): void {
    const changes = launches.flatMap(({ ticket, end }) => {
      const piece = ran.get(ticket);
      // The device may be done before the script has noted that it enqueued.
      return piece === undefined ? [] : [{ at: Math.min(end, piece.start), by: 1 }, { at: piece.end, by: -1 }];
    });
    let depth = 0;
    for (const { at, by } of changes.toSorted((a, b) => a.at - b.at || b.by - a.by)) this.spans.counter('launches in the queue', at, { launches: (depth += by) });
  }
}

/** Stage, phases from the inmost to the pass, and micro-batch. */
function placeOf(part: OpenPart | null): Readonly<Record<string, string | number>> {
  const found: Record<string, string | number> = {};
  for (let p = part; p !== null; p = p.outer) {
    const { phase, name, microBatch } = p.part;
    if (phase === 'settle') found['settles'] = name;
    else if (phase === 'pass') found['pass'] = name;
    else Object.assign(found, { phase, stage: name, ...(microBatch === undefined ? {} : { microBatch }) });
  }
  return found;
}

function spelled({ ins, inouts, outs }: LaunchNote['operands']): Readonly<Record<string, string>> {
  const spell = (specs: readonly Spec[]): string => specs.map(({ dtype, shape }) => `${dtype}[${shape.join(', ')}]`).join(' ');
  return Object.fromEntries([['ins', ins], ['inouts', inouts], ['outs', outs]].flatMap(([key, specs]) => (specs!.length === 0 ? [] : [[key as string, spell(specs as readonly Spec[])]])));
}
