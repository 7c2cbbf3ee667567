// bench train: the same model, weights, tokens, dtype and threads trained by us and by PyTorch in turn; tokens a second as ratios.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '@lomo/tensor';
import type { Report, Reporting } from './manners.ts';
import { benchFolder, deliver, dtypeOf, geometricMean, inTurn, lastJson, ratios, shapeOf, spread, table } from './manners.ts';
import type { OursOptions, OursResult } from './measure.ts';
import { modelConfig } from './models.ts';

export interface TrainOptions extends Reporting {
  /** The peer's interpreter. */
  readonly python: string | undefined;
  /** Folder of torch_lomo.py. */
  readonly peers: string;
  readonly models: readonly string[];
  readonly dtypes: readonly string[];
  readonly shapes: readonly string[];
  readonly optims: readonly string[];
  readonly rounds: number;
  /** Timed steps a process; by the model's size unless given. */
  readonly steps: number | undefined;
  readonly threads: number;
  readonly recompute: boolean;
  /** torch.compile: 'model' or 'layer'. */
  readonly compile: string | undefined;
  /** Libraries loaded before the peer's own: an allocator, a patch of MKL. */
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

interface Cell {
  readonly name: string;
  readonly dtype: 'f32' | 'bf16';
  readonly ours: readonly OursResult[];
  /** Empty without a peer. */
  readonly peer: readonly PeerResult[];
}

/** Not slower than the peer, in any cell. */
const bar = 1;
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
    const cells: Cell[] = [];
    for (const model of options.models) {
      const folder = python === undefined ? null : await startingWeights(model, { python, script, work });
      for (const dtype of options.dtypes.map(dtypeOf)) {
        for (const shape of options.shapes) {
          for (const optim of options.optims) {
            const cell = await measureCell({ model, folder, dtype, shape, optim, text }, { ...options, python, script });
            if (!options.json) process.stderr.write(`${describe(cell)}\n`);
            cells.push(cell);
          }
        }
      }
    }
    return deliver(conclude(cells, { ...options, absent }), options);
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

async function measureCell(cell: CellOptions, options: TrainOptions & { readonly python: string | undefined; readonly script: string }): Promise<Cell> {
  const { model, folder, dtype, shape, optim, text } = cell;
  const { threads, recompute, python, script, compile, preload } = options;
  // The peer divides its rate by 100 for adamw, whose steps do not shrink with the gradient.
  const common = { ...shapeOf(shape), steps: options.steps ?? stepsOf[model] ?? 4, warmup: compile === undefined ? 2 : 3, lr: 0.01, threads };
  const settings: OursOptions = { ...common, model: folder === null ? { name: model } : { folder }, text, optim, dtype, lr: optim === 'adamw' ? 1e-4 : 0.01, keeps: !recompute };
  const ours = () => lastJson<OursResult>([process.execPath, join(benchFolder, 'dist', 'ours.js'), JSON.stringify(settings)]);
  const name = `${model} ${dtype} ${shape} ${optim}${recompute ? ' recomputed' : ''}`;
  if (python === undefined || folder === null) return { name, dtype, peer: [], ...(await inTurn(options.rounds, { ours })) };
  const flags = Object.entries({ ...common, model: folder, optim, text, dtype: dtype === 'f32' ? 'float32' : 'bfloat16' }).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
  const { GOMP_SPINCOUNT: _, ...inherited } = process.env; // ours alone
  const env = preload === undefined ? inherited : { ...inherited, LD_PRELOAD: preload };
  const peer = () => lastJson<PeerResult>([python, script, ...flags, ...(recompute ? ['--checkpoint'] : []), ...(compile === undefined ? [] : ['--compile', compile])], env);
  return { name, dtype, ...(await inTurn(options.rounds, { ours, peer })) };
}

function ratiosOf({ ours, peer }: Cell): ReturnType<typeof spread> {
  return ratios(ours.map((r) => r.tokens_per_s), peer.map((r) => r.tokens_per_s));
}

/** Largest relative difference of a step's losses: both sides must be training the same thing. */
function lossDifference({ ours, peer }: Cell): number {
  const [a, b] = [ours[0]!.losses, peer[0]!.losses];
  return Math.max(...a.map((loss, i) => Math.abs(loss - b[i]!) / Math.abs(b[i]!)));
}

function describe(cell: Cell): string {
  if (cell.peer.length === 0) return `${cell.name}: ${spread(cell.ours.map((r) => r.tokens_per_s)).median.toFixed(0)} tokens/s`;
  const { median, min, max } = ratiosOf(cell);
  return `${cell.name}: ${median.toFixed(2)} x (${min.toFixed(2)} to ${max.toFixed(2)})`;
}

function barsMissed(cell: Cell): string[] {
  if (cell.peer.length === 0) return [];
  const { median } = ratiosOf(cell);
  const apart = lossDifference(cell);
  return [
    ...(median >= bar ? [] : [`${cell.name}: ${median.toFixed(2)} x, the bar is ${bar} x`]),
    ...(apart <= lossTolerance[cell.dtype] ? [] : [`${cell.name}: losses differ by ${apart.toExponential(1)}, so the sides do not train the same thing`]),
  ];
}

function conclude(cells: readonly Cell[], options: TrainOptions & { readonly absent: string }): Report {
  const { threads, rounds, recompute, compile, preload } = options;
  const compared = cells.every((cell) => cell.peer.length > 0);
  const torch = cells[0]?.peer[0]?.versions.torch;
  const tuned = [compile === undefined ? 'eager' : `compiled by ${compile}`, preload === undefined ? 'stock' : `with ${preload}`].join(', ');
  const libraries = cells[0]?.ours[0]?.libraries;
  const figure = compared ? geometricMean(cells.map((cell) => ratiosOf(cell).median)) : null;
  const middle = (values: readonly number[], digits = 0): string => spread(values).median.toFixed(digits);
  const peerColumns = ({ peer }: Cell): string[] => [middle(peer.map((r) => r.tokens_per_s)), middle(peer.map((r) => r.gflop_per_s)), middle(peer.map((r) => r.peak_minus_imports_mib))];
  const rows = cells.map((cell) => {
    const { ours } = cell;
    const own = [middle(ours.map((r) => r.tokens_per_s)), middle(ours.map((r) => r.gflop_per_s)), middle(ours.map((r) => r.above_start_mib))];
    if (!compared) return [cell.name, ...own];
    const { median, min, max } = ratiosOf(cell);
    return [cell.name, ...own, ...peerColumns(cell), median.toFixed(2), `${min.toFixed(2)}-${max.toFixed(2)}`, lossDifference(cell).toExponential(0)];
  });
  const head = ['', 'tokens/s', 'GFLOP/s', 'MiB', ...(compared ? ['PyTorch tokens/s', 'GFLOP/s', 'MiB', 'ratio', 'spread', 'losses differ'] : [])];
  const own = cells.map(({ name, ours: [r] }) => [name, r!.arena_mib.toFixed(0), r!.weights_mib.toFixed(0), String(r!.launches), r!.js_us_per_launch.toFixed(1), r!.longest_block_ms.toFixed(0)]);
  return {
    name: `train${recompute ? '-recomputed' : ''}${compile === undefined && preload === undefined ? '' : '-tuned'}`,
    lines: [
      `${compared ? `torch ${String(torch)}, ${tuned}; ` : ''}${String(libraries)}; ${threads} threads; ${rounds} rounds${compared ? ' in turn' : ''}, medians; MiB: peak of the process above its start`,
      table([head, ...rows]),
      '',
      table([['our side', 'arena MiB', 'weights MiB', 'launches/step', 'script us/launch', 'longest block ms'], ...own]),
    ],
    figure: figure === null ? `no peer: ${options.absent}` : `${figure.toFixed(2)} x PyTorch, geometric mean of ${cells.length} ${cells.length === 1 ? 'cell' : 'cells'}`,
    missed: cells.flatMap(barsMissed),
    data: { ratio: figure, torch, tuned, libraries, threads, rounds, cells },
  };
}
