// bench train: the same model, weights, tokens, dtype and threads trained by us and by PyTorch in turn; tokens a second as ratios. Two
// peers: `stock` is what pip installs, eager; `tuned` the strongest setting found (layers compiled, a better allocator, MKL's fast path).
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '@lomo/tensor';
import type { Report, Reporting } from './manners.ts';
import { benchFolder, deliver, dtypeOf, geometricMean, inTurn, keep, lastJson, percent, ratios, shapeOf, spread, table } from './manners.ts';
import type { OursOptions, OursResult } from './measure.ts';
import { modelConfig } from './models.ts';
import { tunedPreload } from './peer.ts';

export type Peer = 'stock' | 'tuned';

export interface TrainOptions extends Reporting {
  /** The peer's interpreter. */
  readonly python: string | undefined;
  /** Folder of torch_lomo.py. */
  readonly peers: string;
  readonly against: readonly Peer[];
  readonly models: readonly string[];
  readonly dtypes: readonly string[];
  readonly shapes: readonly string[];
  readonly optims: readonly string[];
  readonly rounds: number;
  /** Timed steps a process; by the model's size unless given. */
  readonly steps: number | undefined;
  readonly threads: number;
  /** Recomputation on both sides, instead of kept tapes. */
  readonly recompute: boolean;
  /** Libraries the tuned peer is loaded with; found and built unless given. */
  readonly preload: string | undefined;
}

/** What the benches read of the peer's line. */
interface PeerResult {
  readonly tokens_per_s: number;
  readonly gflop_per_s: number;
  readonly losses: readonly number[];
  readonly rss_mib: { readonly peak: number };
  readonly peak_minus_imports_mib: number;
  readonly versions: { readonly torch: string };
}

/** One model, dtype, shape, rule and way, on every side. */
export interface Cell {
  readonly name: string;
  readonly model: string;
  readonly dtype: 'f32' | 'bf16';
  /** LOMO with kept tapes: what the bars are about. The other cells are there to be seen. */
  readonly barred: boolean;
  readonly ours: readonly OursResult[];
  /** Absent where not measured. */
  readonly peers: Readonly<Partial<Record<Peer, readonly PeerResult[]>>>;
}

/** Tokens a second over stock's, geometric mean of the cells of a dtype. */
export const stockBars = { f32: 2, bf16: 1.6 } as const;
/** Tokens a second over tuned's, in every cell. */
export function tunedBar(model: string, dtype: 'f32' | 'bf16'): number {
  if (dtype === 'f32') return 1;
  return model === '15m' ? 1.15 : 1.05;
}
/** Our rate over that of the best product of the same run, at 110M. */
export const productBars = { f32: 0.88, bf16: 0.75 } as const;
/** Shares by which losses of a step may differ: the two sides round differently, and nothing else. */
const lossTolerance = { f32: 2e-3, bf16: 2e-2 } as const;
const stepsOf: Readonly<Record<string, number>> = { '1m': 10, '15m': 8, '110m': 4 };

/** Runs the grid; returns the exit code: 1 where `check` found a bar missed, 2 where `check` has no peer to compare with. */
export async function train(options: TrainOptions): Promise<number> {
  const script = join(options.peers, 'torch_lomo.py');
  const python = existsSync(script) ? options.python : undefined;
  const absent = existsSync(script) ? '--python PATH (or PEER_PYTHON) names no interpreter with torch and transformers' : `${script} is not there`;
  if (python === undefined) {
    process.stderr.write(`bench train: only our side is measured, because ${absent}\n`);
    if (options.check) return 2;
  }
  const work = mkdtempSync(join(tmpdir(), 'lomo-bench-'));
  try {
    const text = join(work, 'tokens');
    writeFileSync(text, Uint8Array.from(new Random(1).ints(2 ** 18, 256)));
    const tuned = python !== undefined && options.against.includes('tuned');
    const peer = python === undefined ? null : { python, script, preload: tuned ? (options.preload ?? tunedPreload(options.peers, work)) : null };
    const cells: Cell[] = [];
    for (const model of options.models) {
      const folder = peer === null ? null : await startingWeights(model, { ...peer, work });
      for (const dtype of options.dtypes.map(dtypeOf)) {
        for (const shape of options.shapes) {
          for (const optim of options.optims) {
            const cell = await measureCell({ model, folder, dtype, shape, optim, text }, { ...options, peer });
            if (!options.json) process.stderr.write(`${describe(cell)}\n`);
            cells.push(cell);
            // A grid may take an hour, and what is measured is measured.
            if (options.save) keep(conclude(cells, { ...options, absent, preload: peer?.preload ?? null }));
          }
        }
      }
    }
    return deliver(conclude(cells, { ...options, absent, preload: peer?.preload ?? null }), options);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** A Hugging Face folder of the model with the weights the peer draws: both sides begin with these. */
async function startingWeights(model: string, { python, script, work }: { readonly python: string; readonly script: string; readonly work: string }): Promise<string> {
  const config = join(work, `${model}.json`);
  const folder = join(work, model);
  writeFileSync(config, JSON.stringify(modelConfig(model)));
  await lastJson([python, script, '--model', config, '--seq', '8', '--batch', '1', '--steps', '1', '--warmup', '0', '--save-init', folder]);
  return folder;
}

interface CellOptions {
  readonly model: string;
  readonly folder: string | null;
  readonly dtype: 'f32' | 'bf16';
  readonly shape: string;
  readonly optim: string;
  readonly text: string;
}

async function measureCell(cell: CellOptions, options: TrainOptions & { readonly peer: { readonly python: string; readonly script: string; readonly preload: string | null } | null }): Promise<Cell> {
  const { model, folder, dtype, shape, optim, text } = cell;
  const { threads, recompute, peer, against, rounds } = options;
  // The peer divides its rate by 100 for adamw, whose steps do not shrink with the gradient. Three steps are enough for a compiler's warm-up.
  const common = { ...shapeOf(shape), steps: options.steps ?? stepsOf[model] ?? 4, warmup: 3, lr: 0.01, threads };
  const settings: OursOptions = { ...common, model: folder === null ? { name: model } : { folder }, text, optim, dtype, lr: optim === 'adamw' ? 1e-4 : 0.01, keeps: !recompute };
  const ours = () => lastJson<OursResult>([process.execPath, join(benchFolder, 'dist', 'ours.js'), JSON.stringify(settings)]);
  const facts = { name: `${model} ${dtype} ${shape} ${optim}${recompute ? ' recomputed' : ''}`, model, dtype, barred: optim === 'lomo' && !recompute };
  if (peer === null || folder === null) return { ...facts, peers: {}, ...(await inTurn(rounds, { ours })) };
  const flags = Object.entries({ ...common, model: folder, optim, text, dtype: dtype === 'f32' ? 'float32' : 'bfloat16' }).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
  const { GOMP_SPINCOUNT: _, ...inherited } = process.env; // ours alone
  const run = (more: readonly string[], preload: string | null) => () =>
    lastJson<PeerResult>([peer.python, peer.script, ...flags, ...(recompute ? ['--checkpoint'] : []), ...more], preload === null ? inherited : { ...inherited, LD_PRELOAD: preload });
  const sides = { stock: run([], null), tuned: run(['--compile', 'layer'], peer.preload) };
  const { ours: own, ...peers } = await inTurn(rounds, { ours, ...Object.fromEntries(against.map((side) => [side, sides[side]])) } as { ours: typeof ours } & Partial<typeof sides>);
  return { ...facts, ours: own, peers: peers as Cell['peers'] };
}

/** Ours over the peer's, round by round; null where that peer was not measured. */
export function ratiosOf({ ours, peers }: Cell, peer: Peer): ReturnType<typeof spread> | null {
  const theirs = peers[peer];
  return theirs === undefined ? null : ratios(ours.map((r) => r.tokens_per_s), theirs.map((r) => r.tokens_per_s));
}

/** Our rate over that of the best product of the same processes. */
export function shareOf({ ours }: Cell): number {
  return spread(ours.map((r) => r.gflop_per_s / r.product_gflop_per_s)).median;
}

/** Largest relative difference of a step's losses: all sides must be training the same thing. */
function lossDifference({ ours, peers }: Cell): number {
  const own = ours[0]!.losses;
  return Math.max(0, ...Object.values(peers).flatMap((list) => list[0]!.losses.map((loss, i) => Math.abs(loss - own[i]!) / Math.abs(loss))));
}

function describe(cell: Cell): string {
  const against = (['stock', 'tuned'] as const).flatMap((peer) => {
    const found = ratiosOf(cell, peer);
    return found === null ? [] : [`${found.median.toFixed(2)} x ${peer} (${found.min.toFixed(2)} to ${found.max.toFixed(2)})`];
  });
  return `${cell.name}: ${spread(cell.ours.map((r) => r.tokens_per_s)).median.toFixed(0)} tokens/s, ${percent(shareOf(cell))} of the product peak${against.map((text) => `, ${text}`).join('')}`;
}

/** What the bars come to: each kept, missed, or out of any program's reach on this machine. */
export function judge(cells: readonly Cell[]): { readonly held: readonly string[]; readonly missed: readonly string[]; readonly unreachable: readonly string[] } {
  const [held, missed, unreachable]: [string[], string[], string[]] = [[], [], []];
  const note = (what: string, value: number, bar: number, shown: (x: number) => string): void => void (value >= bar ? held : missed).push(`${what}: ${shown(value)}, the bar is ${shown(bar)}`);
  const times = (x: number): string => `${x.toFixed(2)} x`;
  const barred = cells.filter((cell) => cell.barred);
  for (const dtype of ['f32', 'bf16'] as const) {
    const list = barred.filter((cell) => cell.dtype === dtype && ratiosOf(cell, 'stock') !== null);
    if (list.length === 0) continue;
    const what = `${dtype} against stock, geometric mean of ${list.length}`;
    const value = geometricMean(list.map((cell) => ratiosOf(cell, 'stock')!.median));
    // Where all of a step ran at the rate of the best product, this would be its lead.
    const most = geometricMean(list.map((cell) => spread(cell.ours.map((r) => r.product_gflop_per_s)).median / spread(cell.peers.stock!.map((r) => r.gflop_per_s)).median));
    if (value < stockBars[dtype] && most < stockBars[dtype])
      unreachable.push(`${what}: ${times(value)}; the bar of ${times(stockBars[dtype])} is out of reach here: stock runs at ${percent(1 / most)} of the best product's rate on this machine, so nothing exceeds ${times(most)}`);
    else note(what, value, stockBars[dtype], times);
  }
  for (const cell of barred) {
    const tuned = ratiosOf(cell, 'tuned');
    if (tuned !== null) note(`${cell.name} against tuned`, tuned.median, tunedBar(cell.model, cell.dtype), times);
    if (cell.model === '110m') note(`${cell.name}: share of the product peak`, shareOf(cell), productBars[cell.dtype], percent);
  }
  for (const cell of cells) {
    const apart = lossDifference(cell);
    if (!(apart <= lossTolerance[cell.dtype])) missed.push(`${cell.name}: losses differ by ${apart.toExponential(1)}, so the sides do not train the same thing`);
  }
  return { held, missed, unreachable };
}

function conclude(cells: readonly Cell[], options: Omit<TrainOptions, 'preload'> & { readonly absent: string; readonly preload: string | null }): Report {
  const { threads, rounds, recompute, preload, optims, models } = options;
  const peers = (['stock', 'tuned'] as const).filter((peer) => cells.every((cell) => cell.peers[peer] !== undefined));
  const torch = peers.map((peer) => cells[0]?.peers[peer]?.[0]?.versions.torch)[0];
  const libraries = cells[0]?.ours[0]?.libraries;
  const { held, missed, unreachable } = judge(cells);
  const means = peers.map((peer) => ({ peer, ratio: geometricMean(cells.map((cell) => ratiosOf(cell, peer)!.median)) }));
  const middle = (values: readonly number[], digits = 0): string => spread(values).median.toFixed(digits);
  const rows = cells.map((cell) => {
    const { ours } = cell;
    const theirs = peers.flatMap((peer) => {
      const list = cell.peers[peer]!;
      const { median, min, max } = ratiosOf(cell, peer)!;
      return [middle(list.map((r) => r.tokens_per_s)), middle(list.map((r) => r.gflop_per_s)), middle(list.map((r) => r.peak_minus_imports_mib)), median.toFixed(2), `${min.toFixed(2)}-${max.toFixed(2)}`];
    });
    const own = [middle(ours.map((r) => r.tokens_per_s)), middle(ours.map((r) => r.gflop_per_s)), percent(shareOf(cell)), middle(ours.map((r) => r.above_start_mib))];
    return [cell.name, ...own, ...theirs, ...(peers.length > 0 ? [lossDifference(cell).toExponential(0)] : [])];
  });
  const head = ['', 'tokens/s', 'GFLOP/s', 'of peak', 'MiB', ...peers.flatMap((peer) => [`${peer} tokens/s`, 'GFLOP/s', 'MiB', 'ratio', 'spread']), ...(peers.length > 0 ? ['losses differ'] : [])];
  const own = cells.map(({ name, ours: [r] }) => [name, r!.arena_mib.toFixed(0), r!.weights_mib.toFixed(0), String(r!.launches), r!.js_us_per_launch.toFixed(1), r!.longest_block_ms.toFixed(0), r!.product_gflop_per_s.toFixed(0)]);
  const bars = held.length + missed.length + unreachable.length;
  return {
    name: ['train', ...(recompute ? ['recomputed'] : []), ...(optims.join() === 'lomo' ? [] : optims), ...(models.length === 1 ? models : [])].join('-'),
    lines: [
      `${peers.length > 0 ? `torch ${String(torch)}${preload === null ? '' : `, tuned with ${preload}`}; ` : ''}${String(libraries)}; ${threads} threads; ${rounds} ${rounds === 1 ? 'round' : 'rounds'}${peers.length > 0 ? ' in turn' : ''}, medians; MiB: peak of the process above its start`,
      table([head, ...rows]),
      '',
      table([['our side', 'arena MiB', 'weights MiB', 'launches/step', 'script us/launch', 'longest block ms', 'best product GFLOP/s'], ...own]),
      '',
      ...held.map((line) => `held: ${line}`),
      ...unreachable.map((line) => `out of reach: ${line}`),
    ],
    figure:
      means.length === 0
        ? `no peer: ${options.absent}`
        : `${means.map(({ peer, ratio }) => `${ratio.toFixed(2)} x ${peer} PyTorch`).join(', ')}, geometric mean of ${cells.length} ${cells.length === 1 ? 'cell' : 'cells'}${bars === 0 ? '' : `; ${held.length} of ${bars} bars held${unreachable.length === 0 ? '' : `, ${unreachable.length} out of reach on this machine`}`}`,
    missed,
    data: { means, held, unreachable, torch, preload, libraries, threads, rounds, cells },
  };
}
