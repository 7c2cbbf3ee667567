// Held-out loss against the step of whole training runs, put together by the trainer's own packages; several runs as processes of their own.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cpu } from '@lomo/cpu';
import { openModel, openSession, parseRun, train } from '@lomo/trainer';
import type { RunInput, Session } from '@lomo/trainer';
import { benchFolder, lastJson } from './manners.ts';

/** A run to be followed. Paths absolute. */
export interface CurveOptions {
  readonly settings: RunInput;
  /** Steps after which the held-out loss is taken; 0 is before the first. */
  readonly evaluateAt: readonly number[];
  /** Greedy completions of held-out samples to judge at the end. */
  readonly completions: number;
  /** Also evaluate the final weights with f32 activations. */
  readonly inF32: boolean;
}

/** What came of it. */
export interface Curve {
  readonly points: readonly { readonly step: number; readonly loss: number }[];
  /** The last held-out loss; NaN (null in JSON) where the run ended before its last step. */
  readonly final: number | null;
  /** The first step that was not finite, where the run ended. */
  readonly stopped: { readonly step: number; readonly why: string } | null;
  /** Of the final weights with f32 activations. */
  readonly finalInF32: number | null;
  /** Completions equal to the reference. */
  readonly exact: number | null;
  /** Share of the intended movement that rounding took, mean over the measured steps; null for f32 weights. */
  readonly lost: number | null;
  /** Share of weights that a step changes, mean over the measured steps. */
  readonly changed: number | null;
  readonly trainedTokens: number;
  readonly heldSamples: number;
  readonly seconds: number;
  readonly secondsPerStep: number;
}

/** Trains in this process, one thread. A step that is not finite ends the run. */
export async function curveOf({ settings, evaluateAt, completions, inF32 }: CurveOptions): Promise<Curve> {
  const start = performance.now();
  const root = mkdtempSync(join(tmpdir(), 'lomo-curve-'));
  await using backend = cpu({ threads: 1 });
  const { config } = parseRun({ ...settings, output_dir: root });
  const session = await openSession({ config, backend, memory: process.availableMemory() });
  try {
    const points: { step: number; loss: number }[] = [];
    const note = async (step: number): Promise<void> => {
      if (!evaluateAt.includes(step)) return;
      const loss = await session.evaluate();
      if (loss !== null) points.push({ step, loss });
    };
    await note(0);
    const [lost, changed, times]: [number[], number[], number[]] = [[], [], []];
    let stopped: Curve['stopped'] = null;
    let trainedTokens = 0;
    try {
      for await (const event of train(session)) {
        if (event.kind !== 'step') {
          stopped = { step: event.step, why: event.error.code };
          break;
        }
        times.push(event.milliseconds);
        trainedTokens += event.trained;
        if (event.telemetry !== null) {
          changed.push(event.telemetry.all.changed);
          if (event.telemetry.all.lost !== null) lost.push(event.telemetry.all.lost);
        }
        await note(event.step);
        if (points.at(-1)?.step === event.step && !Number.isFinite(points.at(-1)!.loss)) {
          stopped = { step: event.step, why: 'NonFiniteLoss' };
          break;
        }
      }
    } catch (error) {
      stopped = { step: session.done, why: error instanceof Error ? error.message : String(error) };
    }
    let exact: number | null = null;
    if (completions > 0 && stopped === null) {
      exact = 0;
      for await (const completion of session.complete(completions)) if (completion.exact) exact++;
    }
    return {
      points,
      final: stopped === null ? (points.at(-1)?.loss ?? null) : null,
      stopped,
      finalInF32: inF32 && stopped === null ? await lossInF32(session) : null,
      exact,
      lost: config.dtype === 'f32' ? null : mean(lost),
      changed: mean(changed),
      trainedTokens,
      heldSamples: session.held?.length ?? 0,
      seconds: (performance.now() - start) / 1000,
      secondsPerStep: times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)]! / 1000,
    };
  } finally {
    await session.close();
    rmSync(root, { recursive: true, force: true });
  }
}

/** The held-out loss of the session's weights, saved and opened again with f32 weights and activations: a 16-bit weight is an f32 exactly. */
async function lossInF32(session: Session): Promise<number | null> {
  if (session.held === null) return null;
  const { path: folder } = await session.save();
  const { per_device_train_batch_size: size, max_seq_length: length } = session.config;
  const maxSegments = size === 'auto' ? 1 : size;
  const tokens = maxSegments * length;
  const capacity = Math.ceil(tokens / 64) * 64;
  const steps = session.held.evalSteps({ capacity, microBatches: 1, packing: session.config.packing });
  const shape = { tokens: capacity, maxSegments: Math.max(steps.maxSegments, maxSegments), maxLength: session.config.max_seq_length };
  await using backend = cpu({ threads: 1 });
  await using opened = await openModel(folder, { backend, dtype: 'f32', text: { prompt: 1, fresh: 1 }, batch: shape });
  const laidOut = session.held.evalSteps({ capacity, microBatches: 1, packing: session.config.packing, maxSegments: shape.maxSegments });
  const batches = function* () {
    for (const step of laidOut) yield* step.batches.filter((batch) => batch.trained > 0);
  };
  return (await opened.program!.evaluate(batches())).loss;
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

export interface CurvesOptions {
  /** Processes at once. */
  readonly jobs: number;
  /** Folder in which finished runs are kept and looked for, so that a sweep can be widened without training again. */
  readonly keep?: string | undefined;
  readonly onDone?: (name: string, curve: Curve) => void;
}

/** Every run by its name, each a process of its own, `jobs` at a time, in the given order. */
export async function curvesOf(runs: Readonly<Record<string, CurveOptions>>, { jobs, keep, onDone }: CurvesOptions): Promise<Record<string, Curve>> {
  const waiting = Object.entries(runs);
  const found = new Map<string, Curve>();
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [name, options] = next;
      const text = JSON.stringify(options);
      const kept = keep === undefined ? null : join(keep, `${createHash('sha256').update(text).digest('hex').slice(0, 24)}.json`);
      const curve = kept !== null && existsSync(kept) ? (JSON.parse(readFileSync(kept, 'utf8')) as Curve) : await lastJson<Curve>([process.execPath, join(benchFolder, 'dist', 'curve.js'), text]);
      if (kept !== null) {
        mkdirSync(keep!, { recursive: true });
        writeFileSync(kept, JSON.stringify(curve));
      }
      found.set(name, curve);
      onDone?.(name, curve);
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return Object.fromEntries(Object.keys(runs).map((name) => [name, found.get(name)!]));
}

/** Steps to evaluate at: 0, a few early ones, then every `every`th to the last. */
export function evaluationSteps(steps: number, every: number): number[] {
  const regular = Array.from({ length: Math.floor(steps / every) + 1 }, (_, i) => i * every);
  return [...new Set([...regular, Math.round(every / 4), Math.round(every / 2), steps])].filter((s) => s <= steps).toSorted((a, b) => a - b);
}

/** Every n-th line of the test file is held out: all of it would cost more than the training. */
export const heldStride = 10;

/** Writes the held-out lines of `testFile` to a file in `folder`; returns its path. */
export function heldOut(testFile: string, folder: string): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'held.jsonl');
  const lines = readFileSync(testFile, 'utf8').trimEnd().split('\n').filter((_, i) => i % heldStride === 0);
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
}

/** Writes `rows` as the table between the marks of `verb` in the document at `path`. Throws where a mark is missing. */
export function writeTable(path: string, verb: string, { rows, note }: { readonly rows: readonly (readonly string[])[]; readonly note: string }): void {
  const [begin, end] = ['begin', 'end'].map((edge) => `<!-- written by \`pnpm bench ${verb}\`: ${edge} -->`) as [string, string];
  const text = readFileSync(path, 'utf8');
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${path} has no section between '${begin}' and '${end}'`);
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const [head = [], ...body] = rows;
  const section = [line(head), line(head.map(() => '---')), ...body.map(line)].join('\n');
  writeFileSync(path, `${text.slice(0, from + begin.length)}\n\n${section}\n\n${note}\n\n${text.slice(to)}`);
}
