// gpu train: the LLaMA-7B shape in bf16 under LOMO, ours and PyTorch's in turn, in one call; the bars of speed and memory.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '@lomo/tensor';
import { percent, ratios, shapeOf, spread, table } from '../manners.ts';
import { modelConfig } from '../models.ts';
import type { Conclusion } from './findings.ts';
import type { GpuLimits } from './limits.ts';
import { gpuSizes, tinySizes } from './limits.ts';
import type { Context, Part, Scale } from './part.ts';
import { measureOne, passed, script } from './part.ts';
import type { ProfileResult } from './kernels_process.ts';
import { runLines } from './runner.ts';
import type { StepsJob, StepsResult } from './steps.ts';

/** Operations a second of a dense bf16 product by the datasheet of an H100 or H200 (SXM). */
export const datasheet = 989e12;
/** What is asked of the training part. */
export const trainBars = { ofProducts: 0.6, goal: 0.75, overEager: 1.2, arenaGib: 13.2, fullTokens: 4096, losses: 0.03 } as const;

/** PyTorch's ways: the authors' optimizer, the leanest hook there can be, and that hook with every layer compiled. */
export const peerWays = ['lomo', 'hook', 'compiled'] as const;
export type PeerWay = (typeof peerWays)[number];
const eager = ['lomo', 'hook'] as const;

/** What the peer's script says of one way and shape. Bytes, seconds. */
export interface PeerResult {
  readonly cell: string;
  readonly tokens_per_s: number;
  readonly times_s: readonly number[];
  readonly losses: readonly number[];
  readonly checkpointed: boolean;
  readonly attention: string;
  /** Where the optimizer comes from. */
  readonly optimizer: string;
  readonly allocated: number;
  readonly reserved: number;
  readonly driver: number | null;
  readonly failed?: string;
}

interface PeerLimits {
  readonly limits: { readonly products: number };
  readonly versions: Readonly<Record<string, string>>;
}

const model = ({ tiny }: Scale): string => (tiny ? 'tiny' : '7b');
const learningRate = 0.01;

/** Model FLOPs utilisation: `work` operations in `seconds`, of `peak` a second. */
export function utilisation(work: number, seconds: number, peak: number): number {
  return work / seconds / peak;
}

function stepsJob(context: Pick<Context, 'where' | 'scale'>, shape: string, more: Partial<StepsJob> = {}): { readonly kind: 'steps' } & StepsJob {
  const { where, scale } = context;
  return {
    kind: 'steps', where, models: [model(scale)], dtype: 'bf16', ...shapeOf(shape), microBatches: 1, tapes: 'where they fit', lr: learningRate,
    warmup: scale.tiny ? 1 : 3, steps: scale.tiny ? 2 : 8, sameTokens: false, digest: false, ...more,
  };
}

const oursId = (shape: string, round: number): string => `ours ${shape} #${round}`;
const peerId = (way: PeerWay, shape: string, round: number): string => `${way} ${shape} #${round}`;
const recomputedId = (shape: string): string => `ours ${shape} recomputed`;
const limitsId = 'limits of the GPU';

/** Measures everything round by round: what the GPU does meanwhile meets all sides alike. */
async function run(context: Context): Promise<void> {
  const { scale, where } = context;
  const [first] = scale.shapes as [string];
  await measureOne(context, { id: limitsId, job: { kind: 'limits', where, sizes: scale.tiny ? tinySizes : gpuSizes }, expects: 15 });
  await measureOne(context, { id: recomputedId(first), job: stepsJob(context, first, { tapes: 'recomputed', headForm: 'tiles' }), expects: 20 });
  for (let round = 1; round <= scale.rounds; round++) {
    for (const shape of scale.shapes) await measureOne(context, { id: oursId(shape, round), job: stepsJob(context, shape), expects: 25 });
    await runPeer(context, eager.flatMap((way) => scale.shapes.map((shape) => ({ way, shape, round }))));
    // Compiling takes longer than measuring: the shapes that bars name, once.
    if (round === 1) await runPeer(context, compiledShapes(scale).map((shape) => ({ way: 'compiled', shape, round })));
  }
  const best = bestOf(scale.shapes, (shape) => oursAt(context.findings, scale, shape));
  const kept = best !== null && context.findings.get<StepsResult>(oursId(best, 1))?.kept === true;
  if (best !== null) await measureOne(context, { id: 'profile', job: { kind: 'profile', where, model: model(scale), dtype: 'bf16', ...shapeOf(best), kept, sizes: scale.tiny ? tinySizes : gpuSizes }, expects: 30 });
}

function compiledShapes({ shapes }: Scale): string[] {
  return [shapes[0]!, ...shapes.slice(1).filter((shape) => tokensOf(shape) >= trainBars.fullTokens).slice(0, 2)];
}

const tokensOf = (shape: string): number => shapeOf(shape).seq * shapeOf(shape).batch;

interface PeerCell {
  readonly way: PeerWay;
  readonly shape: string;
  readonly round: number;
}

/** One process of the peer for all cells that are missing; each counts as soon as it is said. */
async function runPeer(context: Context, cells: readonly PeerCell[]): Promise<void> {
  const { python, findings, scale, budget, where } = context;
  const missing = cells.filter(({ way, shape, round }) => !findings.has(peerId(way, shape, round)));
  if (python === undefined || missing.length === 0) return;
  const [{ way, round }] = missing as [PeerCell];
  if (passed(context, { id: `PyTorch, ${way}, round ${round}`, expects: scale.tiny ? 20 : way === 'compiled' ? 90 : 60 })) return;
  const work = mkdtempSync(join(tmpdir(), 'lomo-gpu-'));
  try {
    const [config, text] = [join(work, 'config.json'), join(work, 'tokens')];
    writeFileSync(config, JSON.stringify(modelConfig(model(scale))));
    writeFileSync(text, Uint8Array.from(new Random(1).ints(2 ** 18, 256)));
    const flags = { cells: missing.map((cell) => `${cell.way}:${cell.shape}`).join(), config, text, device: 'gpu' in where ? `cuda:${where.gpu}` : 'cpu', warmup: scale.tiny ? 1 : 3, steps: scale.tiny ? 2 : 8, lr: learningRate, edge: scale.tiny ? 64 : 8192 };
    let last = performance.now();
    const heard = (line: unknown): void => {
      const now = performance.now();
      if ('limits' in (line as object)) findings.put('limits of PyTorch', { data: line }, (now - last) / 1000);
      else {
        const result = line as PeerResult;
        const [cellWay, shape] = result.cell.split(':') as [PeerWay, string];
        findings.put(peerId(cellWay, shape, round), result.failed === undefined ? { data: result } : { failed: result.failed }, (now - last) / 1000);
        context.say(`${peerId(cellWay, shape, round)}: ${result.failed ?? `${result.tokens_per_s.toFixed(0)} tokens/s`}`);
      }
      last = now;
      context.keep();
    };
    const ran = await runLines([python, script('torch_train.py'), ...Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)])], { seconds: budget.left, heard });
    for (const { way: cellWay, shape } of ran.how === 'done' ? [] : missing) {
      const id = peerId(cellWay, shape, round);
      if (!findings.has(id) && findings.failure(id) === undefined) findings.put(id, { failed: ran.words }, 0);
    }
    context.say(`PyTorch, ${way}, round ${round}: ${ran.how}, ${ran.seconds.toFixed(1)} s${ran.how === 'failed' ? `\n${ran.words}` : ''}`);
    context.keep();
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

type Found = Parameters<Part['conclude']>[0];

/** Tokens a second of ours at `shape`, round by round. */
function oursAt(findings: Found, { rounds }: Scale, shape: string): number[] {
  return Array.from({ length: rounds }, (_, i) => findings.get<StepsResult>(oursId(shape, i + 1))?.tokensPerSecond).filter((rate) => rate !== undefined);
}

function peerAt(findings: Found, { rounds }: Scale, way: PeerWay, shape: string): number[] {
  return Array.from({ length: rounds }, (_, i) => findings.get<PeerResult>(peerId(way, shape, i + 1))?.tokens_per_s).filter((rate) => rate !== undefined);
}

/** The shape at which the middle of the rounds is largest; null where none was measured. */
export function bestOf(shapes: readonly string[], ratesAt: (shape: string) => readonly number[]): string | null {
  const measured = shapes.filter((shape) => ratesAt(shape).length > 0);
  return measured.toSorted((a, b) => spread(ratesAt(b)).median - spread(ratesAt(a)).median)[0] ?? null;
}

/** Of several lists of rates, the one whose middle is largest. */
function strongest(lists: readonly { readonly name: string; readonly rates: readonly number[] }[]) {
  return lists.filter(({ rates }) => rates.length > 0).toSorted((a, b) => spread(b.rates).median - spread(a.rates).median)[0];
}

/** What the findings come to. */
export function concludeTrain(findings: Found, scale: Scale): Conclusion {
  const [held, missed, open]: [string[], string[], string[]] = [[], [], []];
  const bar = (what: string, holds: boolean): void => void (holds ? held : missed).push(what);
  const { shapes } = scale;
  const [first] = shapes as [string];
  const [own, theirs] = [findings.get<GpuLimits>(limitsId), findings.get<PeerLimits>('limits of PyTorch')];
  const peak = Math.max(own?.products ?? 0, theirs?.limits.products ?? 0);
  const result = (shape: string): StepsResult | undefined => findings.get<StepsResult>(oursId(shape, 1));
  const share = (shape: string): number => utilisation(result(shape)!.work / result(shape)!.tokens, 1 / spread(oursAt(findings, scale, shape)).median, peak);
  const tflops = (rate: number): string => `${(rate / 1e12).toFixed(0)} TFLOP/s`;

  const full = shapes.filter((shape) => (result(shape)?.tokens ?? 0) >= trainBars.fullTokens);
  const best = bestOf(full, (shape) => oursAt(findings, scale, shape));
  if (best === null || peak === 0) open.push(`share of the product peak: no shape of ${trainBars.fullTokens} tokens or more is measured`);
  else bar(`${percent(share(best))} of the product peak of the same call (${tflops(peak)}) at ${best}, the bar is ${percent(trainBars.ofProducts)}, the goal ${percent(trainBars.goal)}`, share(best) >= trainBars.ofProducts);

  const compare = (what: string, ours: readonly number[], peers: readonly { readonly name: string; readonly rates: readonly number[] }[]): void => {
    const peer = strongest(peers);
    if (ours.length === 0 || peer === undefined) return void open.push(`${what} against eager PyTorch: ${ours.length === 0 ? 'ours' : 'PyTorch'} is not measured`);
    const rounds = Math.min(ours.length, peer.rates.length);
    const ratio = ratios(ours.slice(0, rounds), peer.rates.slice(0, rounds));
    bar(`${what}: ${ratio.median.toFixed(2)} x the strongest eager PyTorch (${peer.name}; ${ratio.min.toFixed(2)} to ${ratio.max.toFixed(2)} over ${rounds} rounds), the bar is ${trainBars.overEager} x`, ratio.median >= trainBars.overEager);
  };
  compare(first, oursAt(findings, scale, first), eager.map((way) => ({ name: way, rates: peerAt(findings, scale, way, first) })));
  const ourBest = bestOf(shapes, (shape) => oursAt(findings, scale, shape));
  compare(`at the best (${ourBest ?? 'none'})`, ourBest === null ? [] : oursAt(findings, scale, ourBest), eager.flatMap((way) => shapes.map((shape) => ({ name: `${way} ${shape}`, rates: peerAt(findings, scale, way, shape) }))));

  const lean = findings.get<StepsResult>(recomputedId(first));
  if (lean === undefined) open.push(`arena at ${first}, recomputed: ${findings.failure(recomputedId(first)) ?? 'not measured'}`);
  else {
    const driver = lean.driver === null ? 'the driver says nothing' : `${gib(lean.driver.end - lean.driver.before)} GiB by the driver, +${((lean.driver.end - lean.driver.second) / 2 ** 20).toFixed(0)} MiB after step 2`;
    bar(`arena ${gib(lean.arena)} GiB at ${first}, recomputed (${driver}), the bar is ${trainBars.arenaGib} GiB`, lean.arena <= trainBars.arenaGib * 2 ** 30 && lean.reserved === lean.arena);
  }
  const apart = lossesApart(findings, scale);
  if (apart !== null) bar(`first losses of ours and PyTorch's ${percent(apart)} apart, at most ${percent(trainBars.losses)} from random weights`, apart <= trainBars.losses);
  for (const shape of shapes) for (let round = 1; round <= scale.rounds; round++) if (!findings.has(oursId(shape, round))) open.push(`${oursId(shape, round)}: ${findings.failure(oursId(shape, round)) ?? 'not measured'}`);
  if (theirs === undefined) open.push('PyTorch: not measured; --python names an interpreter with torch and transformers');

  const profile = findings.get<ProfileResult>('profile');
  const lines = [
    ...(own === undefined ? [] : [`product peak ${tflops(own.products)} (edge ${own.size})${theirs === undefined ? '' : `, PyTorch's ${tflops(theirs.limits.products)}`}; memory ${(own.bytes / 1e12).toFixed(2)} TB/s`]),
    ...(theirs === undefined ? [] : [Object.entries(theirs.versions).map((pair) => pair.join(' ')).join(', ')]),
    table([head, ...rowsOf(findings, scale, peak)]),
    ...(profile === undefined ? [`profile: ${findings.failure('profile') ?? 'not measured'}`] : [`a step of ${profile.step.toFixed(1)} ms: launches ${profile.sum.toFixed(1)} ms, ${profile.between.toFixed(1)} ms between`, table([['ms', 'share', 'op'], ...profile.byOp.slice(0, 12).map((line) => [line.milliseconds.toFixed(1), percent(line.milliseconds / profile.sum), line.name])], [2])]),
  ];
  const figure = best === null || peak === 0 ? `${held.length} bars held, ${missed.length} missed` : `${spread(oursAt(findings, scale, best)).median.toFixed(0)} tokens/s at ${best}, ${percent(share(best))} of the product peak, ${percent((share(best) * peak) / datasheet)} of ${tflops(datasheet)}; ${held.length} bars held, ${missed.length} missed`;
  return { lines, figure, held, missed, open };
}

const gib = (bytes: number): string => (bytes / 2 ** 30).toFixed(2);
const head = ['shape', 'ours tokens/s', 'tapes', 'of products', 'of 989', 'arena GiB', 'driver GiB', ...peerWays.flatMap((way) => [`${way} tokens/s`, 'ratio', 'reserved GiB'])];

function rowsOf(findings: Found, scale: Scale, peak: number): string[][] {
  return scale.shapes.map((shape) => {
    const [ours, rates] = [findings.get<StepsResult>(oursId(shape, 1)), oursAt(findings, scale, shape)];
    const own = ours === undefined ? ['-', '', '', '', '', ''] : [spread(rates).median.toFixed(0), ours.kept ? 'kept' : 'recomputed', ...[peak, datasheet].map((limit) => percent(utilisation(ours.work / ours.tokens, 1 / spread(rates).median, limit))), gib(ours.arena), ours.driver === null ? '-' : gib(ours.driver.end - ours.driver.before)];
    const peers = peerWays.flatMap((way) => {
      const [peer, list] = [findings.get<PeerResult>(peerId(way, shape, 1)), peerAt(findings, scale, way, shape)];
      if (peer === undefined || list.length === 0) return ['-', '', ''];
      const rounds = Math.min(rates.length, list.length);
      return [`${spread(list).median.toFixed(0)}${peer.checkpointed ? ' (checkpointed)' : ''}`, rounds === 0 ? '' : ratios(rates.slice(0, rounds), list.slice(0, rounds)).median.toFixed(2), gib(peer.reserved)];
    });
    return [shape, ...own, ...peers];
  });
}

/** Largest relative difference of the first losses at one shape; null where one side is missing. */
function lossesApart(findings: Found, { shapes }: Scale): number | null {
  const pairs = shapes.flatMap((shape) => eager.map((way) => [findings.get<StepsResult>(oursId(shape, 1))?.losses[0], findings.get<PeerResult>(peerId(way, shape, 1))?.losses[0]] as const));
  const both = pairs.flatMap(([a, b]) => (a === undefined || b === undefined ? [] : [Math.abs(a - b) / b]));
  return both.length === 0 ? null : Math.max(...both);
}

export const train: Part = { name: 'train', run, conclude: (findings, { scale }) => concludeTrain(findings, scale) };
