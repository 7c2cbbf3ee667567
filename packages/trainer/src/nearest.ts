// Where a run does not fit: the nearest configurations that do, each found by running it dry, with its memory and its cost in time.
import type { MemoryPlan } from '@lomo/parallel';
import { blockWords, peakOf, placeWords } from '@lomo/parallel';
import type { Backend } from '@lomo/tensor';
import { LomoError } from '@lomo/tensor';
import { choose, settledBytes } from './choice.ts';
import type { Chosen } from './choice.ts';
import type { RunConfig } from './config.ts';
import { bytes } from './quantity.ts';
import type { Candidate, Rates, RunBase } from './ways.ts';
import { isJudgedFirst, joinedShape, Ways } from './ways.ts';

/** A configuration that fits. */
export interface Nearest {
  /** What to set, as a run's file has it. */
  readonly settings: Readonly<Partial<RunConfig>>;
  /** Bytes it reserves. */
  readonly extent: number;
  /** Estimated time of a token, relative to the run that was asked for, as fast as it would be if it fitted. */
  readonly time: number;
  /** What changes beside memory and time; null for nothing. */
  readonly note: string | null;
}

interface Change {
  readonly settings: Partial<RunConfig>;
  readonly shape?: RunBase['shape'];
  readonly note?: string;
}

/** How a run was asked for, and how it would be run if it fitted. */
export interface Asked {
  readonly backend: Backend;
  readonly base: RunBase;
  readonly chosen: Chosen;
  readonly rates?: Rates;
}

/** Shortest sequence that is still proposed, tokens. */
const shortest = 64;

/**
 * The nearest configurations that fit into `chosen.memory`: one setting changed where that is enough, several where it is not; shorter sequences
 * last. None where weights and state alone are too large for every one of them.
 */
export async function nearest(asked: Asked): Promise<readonly Nearest[]> {
  const { base } = asked;
  const found: Nearest[] = [];
  const add = async (change: Change): Promise<boolean> => {
    const fitting = await fitted(asked, change);
    if (fitting !== null && !found.some(({ settings }) => JSON.stringify(settings) === JSON.stringify(fitting.settings))) found.push(fitting);
    return fitting !== null;
  };
  const first = async (changes: readonly Change[]): Promise<boolean> => {
    for (const change of changes) if (await add(change)) return true;
    return false;
  };
  const single = switches(base);
  for (const change of single) await add(change);
  await first(smallerBatches(base, {}));
  const all = Object.assign({}, ...single.map(({ settings }) => settings)) as Partial<RunConfig>;
  if (found.length === 0 && single.length > 1) await first([{ settings: all }, ...smallerBatches(base, all)]);
  for (const change of elsewhere(base, asked)) await add(change);
  const smallest = smallerBatches(base, all).at(-1);
  if (!(await first(shorter(base, {})))) await first(shorter({ ...base, shape: smallest?.shape ?? base.shape }, smallest?.settings ?? all));
  if (found.length === 0) await first(otherWeights(base));
  return found;
}

/** Settings that a run asks for and that something smaller stands beside. */
function switches({ config, shape }: RunBase): Change[] {
  const several = shape.microBatches > 1;
  return [
    ...(config.gradient_checkpointing === false ? [{ settings: { gradient_checkpointing: true } }] : []),
    ...(isJudgedFirst(config) && config.clip_by === 'memory' ? [{ settings: { clip_by: 'two-pass' as const } }, { settings: { clip_by: 'file' as const } }] : []),
    ...(config.head_form === 'chunks' ? [{ settings: { head_form: 'tiles' as const }, note: 'sums of the head run in another order: other last bits' }] : []),
    ...(several && config.accumulation !== 'auto' ? [{ settings: { accumulation: config.accumulation === 'factors' ? ('buffer' as const) : ('factors' as const) } }] : []),
  ];
}

/** The same rows of a step in smaller micro-batches. */
function smallerBatches({ config, shape }: RunBase, settings: Partial<RunConfig>): Change[] {
  const size = config.per_device_train_batch_size;
  if (size === 'auto') return [];
  const divisors = Array.from({ length: size - 1 }, (_, i) => size - 1 - i).filter((k) => size % k === 0);
  return divisors.map((k) => ({
    settings: { ...settings, per_device_train_batch_size: k, gradient_accumulation_steps: (shape.microBatches * size) / k },
    shape: { ...shape, tokens: capacityOf(k * config.max_seq_length), microBatches: (shape.microBatches * size) / k },
  }));
}

/** Weights or boundaries that wait in a file. */
function elsewhere({ config }: RunBase, { chosen: { candidate } }: Asked): Change[] {
  return [
    ...(config.offload === 'none' && config.gradient_checkpointing !== false ? [{ settings: { offload: 'file' as const } }] : []),
    ...(candidate.stages === 'resident' ? [{ settings: { stages: 'streamed' as const } }] : []),
  ];
}

function shorter({ config, shape }: RunBase, settings: Partial<RunConfig>): Change[] {
  const changes: Change[] = [];
  const size = settings.per_device_train_batch_size ?? config.per_device_train_batch_size;
  for (let length = Math.floor(config.max_seq_length / 2); length >= shortest; length = Math.floor(length / 2)) {
    const tokens = capacityOf((size === 'auto' ? 1 : size) * length);
    changes.push({ settings: { ...settings, max_seq_length: length }, shape: { ...shape, tokens, maxLength: length }, note: 'longer samples: overlong: split, truncate or drop' });
  }
  return changes;
}

/** Last resort: what a weight and its state take. */
function otherWeights({ config }: RunBase): Change[] {
  return config.dtype === 'f32' ? [{ settings: { dtype: 'bf16' }, note: 'weights of 16 bits, rounded stochastically' }] : [];
}

/** Tokens of a micro-batch of so many: as the data are laid out. */
export function capacityOf(tokens: number): number {
  return Math.ceil(tokens / 64) * 64;
}

async function fitted({ backend, base, chosen, rates }: Asked, { settings, shape = base.shape, note }: Change): Promise<Nearest | null> {
  const { memory, candidate: asked, beside } = chosen;
  // Only another place or another type makes weights and state smaller.
  if (settings.stages === undefined && settings.dtype === undefined && settledBytes(asked.plan) > memory) return null;
  const config = { ...base.config, stages: asked.stages, ...settings };
  const ways = new Ways(backend, { ...base, config, shape, generates: { ...base.generates, prompt: Math.min(base.generates.prompt, config.max_seq_length) } }, rates);
  // As the run would be run if it fitted.
  const like = [asked, ...beside].filter((c) => c.stages === asked.stages).toSorted((a, b) => a.seconds - b.seconds)[0]!;
  const { candidate, fits } = await choose(ways, memory, { like });
  if (!fits) return null;
  return { settings, extent: candidate.plan.extent, time: perToken(candidate, shape) / perToken(like, base.shape), note: note ?? null };
}

function perToken({ seconds, rows }: Candidate, shape: RunBase['shape']): number {
  const { tokens, microBatches } = joinedShape(shape, rows);
  return seconds / (tokens * microBatches);
}

/** 'gradient_checkpointing: true, clip_by: file' */
export function settingWords(settings: Nearest['settings']): string {
  return Object.entries(settings).map(([key, value]) => `${key}: ${typeof value === 'object' ? JSON.stringify(value) : value}`).join(', ');
}

/** '1.33 x the time' */
export function slowerWords({ time }: Nearest): string {
  return time >= 9.95 ? `${time.toFixed(0)} x the time` : `${time.toFixed(2)} x the time`;
}

/** '  weights  1.20 GiB' a category, then what is asked for at the peak, in which op, where in the program. */
export function peakLines(plan: MemoryPlan): string[] {
  const table = Object.entries(plan.atPeak).filter(([, size]) => size > 0).toSorted(([, a], [, b]) => b - a);
  const { event } = peakOf(plan);
  return [
    ...table.map(([name, size]) => `  ${name.padEnd(12)} ${bytes(size).padStart(10)}`),
    ...(plan.extent > plan.peak ? [`  ${'gaps'.padEnd(12)} ${bytes(plan.extent - plan.peak).padStart(10)}`] : []),
    `  most when ${blockWords(event.block)} asks for ${bytes(event.block.bytes)} of ${event.block.category}, in ${placeWords(event.place)}`,
  ];
}

/** Throws DoesNotFit with the plan's table and the nearest configurations that fit. */
export function refuse({ chosen }: Asked, found: readonly Nearest[]): never {
  const { memory, candidate: { plan } } = chosen;
  const needed = plan.extent;
  const own = settledBytes(plan);
  throw new LomoError(
    'DoesNotFit',
    [
      `the run needs ${bytes(needed)}, ${bytes(memory)} are free; nothing has been started`,
      ...peakLines(plan),
      ...(own > memory ? [`weights and optimizer state alone take ${bytes(own)}`] : []),
      ...(found.length === 0 ? ['nothing near it fits; `lomo plan` shows other optimizers beside it'] : ['what fits:', ...found.map((n) => `  ${settingWords(n.settings)}: ${bytes(n.extent)}, ${slowerWords(n)}, saves ${bytes(needed - n.extent)}${n.note === null ? '' : ` (${n.note})`}`)]),
    ].join('\n'),
    { needed, memory, atPeak: plan.atPeak, nearest: found },
  );
}
