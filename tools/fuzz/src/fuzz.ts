// Runs cases in order of their numbers, holds each to a budget of time and memory, and says which seed and number broke a promise.
import { writeSync } from 'node:fs';
import { getHeapStatistics } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { Dice } from './dice.ts';
import type { Case, Outcome, Target } from './target.ts';
import { Violation } from './target.ts';

/** Milliseconds one case may take, beside what its bytes may. A case over it is run again: only one that is over every time is too slow. */
const caseMs = 10;
/** Nanoseconds that each of its bytes may take. */
const byteNs = 4000;
/** Times a case over its budget is run again; the machine is shared. */
const retries = 8;
/** Bytes of heap that one case may take, beside `heapPerByte` for each of its bytes. */
const heapBytes = 256 * 1024;
const heapPerByte = 256;
/** Every how manyth case has its heap measured. */
const measured = 64;
/** Cases of so many bytes are alike; the few larger ones, up to headers of 100 MB, have their budgets and would hide the others in a report. */
const smallBytes = 2 ** 16;
/** What no case may reach: the watchdog ends the process there. */
const limits = { seconds: 20, bytes: 1.5 * 2 ** 30 };

export interface FuzzOptions {
  readonly seed: number;
  readonly cases: number;
  /** Number of the first case. */
  readonly from?: number;
  /** Share of the cases of each target; in each stretch of so many cases, every target has its turn. */
  readonly targets: readonly { readonly target: Target; readonly share: number }[];
  /** Hears what has been done, about once a second. */
  readonly onProgress?: (progress: Progress) => void;
}

export interface Progress {
  readonly done: number;
  readonly seconds: number;
  readonly accepted: number;
  readonly refused: number;
  /** Milliseconds of the slowest case of up to `smallBytes` that was within its budget. */
  readonly slowestMs: number;
  /** Most heap that one measured case of up to `smallBytes` took, bytes. */
  readonly heap: number;
  /** Of the process, bytes. */
  readonly rss: number;
  readonly byTarget: Readonly<Record<string, { readonly accepted: number; readonly refused: number }>>;
}

/** Runs all cases. Throws a Violation that names seed and case; a case that never ends, or takes all memory, ends the process by name. */
export async function fuzz(options: FuzzOptions): Promise<Progress> {
  const { seed, cases, from = 0 } = options;
  // Most cases end in an error: without the text of its stack twice as many are done in a second. A failure is run again from its number.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  const turns = options.targets.flatMap(({ target, share }, t) => Array.from({ length: share }, (_, i) => ({ target, t, at: (i + 0.5) / share })));
  turns.sort((a, b) => a.at - b.at);
  const words = options.targets.map(({ target }) => target.name);
  const state = new SharedArrayBuffer(3 * 8);
  const now = new Float64Array(state);
  now.set([from, -1, seed]);
  const watchdog = new Worker(new URL('./watchdog.mjs', import.meta.url), { workerData: { state, words, limits }, execArgv: [] });
  watchdog.unref();
  const counts = words.map(() => ({ accepted: 0, refused: 0 }));
  const start = performance.now();
  let [slowestMs, heap, said] = [0, 0, start];
  const progress = (done: number): Progress => ({
    done, slowestMs, heap, seconds: (performance.now() - start) / 1000, rss: process.memoryUsage.rss(),
    accepted: counts.reduce((n, c) => n + c.accepted, 0), refused: counts.reduce((n, c) => n + c.refused, 0),
    byTarget: Object.fromEntries(words.map((name, t) => [name, counts[t]!])),
  });
  try {
    for (let index = from; index < from + cases; index++) {
      const { target, t } = turns[index % turns.length]!;
      now[0] = index;
      now[1] = t;
      try {
        const one = target.make(new Dice(seed, index));
        const before = index % measured === 0 ? getHeapStatistics().used_heap_size : 0;
        const timed = await time(one);
        const isSmall = sizeOf(one) <= smallBytes;
        if (before > 0) {
          const grown = await heapOf(one, getHeapStatistics().used_heap_size - before);
          if (isSmall) heap = Math.max(heap, grown);
        }
        counts[t]![timed.outcome]++;
        const ms = timed.ms > budgetMs(one) ? await again(one) : timed.ms;
        if (isSmall) slowestMs = Math.max(slowestMs, ms);
      } catch (error) {
        throw new Violation(`${target.name} case ${index} of seed ${seed}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
      }
      now[1] = -1;
      if (options.onProgress !== undefined && (index & 255) === 0 && performance.now() - said >= 1000) {
        said = performance.now();
        options.onProgress(progress(index + 1 - from));
      }
    }
    return progress(cases);
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
    await watchdog.terminate();
  }
}

/** 'fuzz: 1,234,567 of 10,000,000 ...' on the error stream, past what a test runner holds back. */
export function report(progress: Progress, all: number): void {
  const { done, seconds, accepted, slowestMs, heap, rss } = progress;
  const rate = done / seconds;
  const text = `fuzz: ${done.toLocaleString('en-US')} of ${all.toLocaleString('en-US')}  ${Math.round(rate).toLocaleString('en-US')}/s  accepted ${((100 * accepted) / done).toFixed(1)} %  slowest ${slowestMs.toFixed(1)} ms  heap of a case ${(heap / 1024).toFixed(0)} KiB  process ${(rss / 2 ** 20).toFixed(0)} MiB  ${Math.round((all - done) / rate)} s left\n`;
  writeSync(2, text);
}

function sizeOf({ bytes, readable = 0 }: Case): number {
  return Math.max(bytes.byteLength, readable);
}

function budgetMs(one: Case): number {
  return caseMs + (sizeOf(one) * byteNs) / 1e6;
}

async function time(one: Case): Promise<{ readonly outcome: Outcome; readonly ms: number }> {
  const start = performance.now();
  const outcome = one.run();
  return { outcome: typeof outcome === 'string' ? outcome : await outcome, ms: performance.now() - start };
}

async function again(one: Case): Promise<number> {
  const allowed = budgetMs(one);
  let best = Infinity;
  for (let i = 0; i < retries && best > allowed; i++) best = Math.min(best, (await time(one)).ms);
  if (best > allowed) throw new Violation(`${best.toFixed(1)} ms for ${sizeOf(one)} bytes, ${retries} times over; allowed are ${allowed.toFixed(1)}`);
  return best;
}

/** The first case also pays for what the engine compiles, so that one over its budget is measured again. */
async function heapOf(one: Case, grown: number): Promise<number> {
  const allowed = heapBytes + heapPerByte * sizeOf(one);
  let least = grown;
  for (let i = 0; i < retries && least > allowed; i++) {
    const before = getHeapStatistics().used_heap_size;
    await one.run();
    // A collection in between makes it less, never more.
    least = Math.min(least, getHeapStatistics().used_heap_size - before);
  }
  if (least > allowed) throw new Violation(`${least} bytes of heap for ${sizeOf(one)} bytes, ${retries} times over; allowed are ${allowed}`);
  return least;
}
