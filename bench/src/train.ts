// bench train: the same model, tokens, dtype and threads trained by us and by PyTorch in turn; tokens a second as ratios.
import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Random } from '@lomo/tensor';
import { geometricMean, lastJson, machine, spread, table } from './manners.ts';
import type { OursOptions, OursResult } from './ours.ts';

export interface TrainOptions {
  readonly check: boolean;
  readonly json: boolean;
  readonly save: boolean;
  /** The peer's interpreter; null: only our side is measured. */
  readonly python: string | null;
  readonly models: readonly string[];
  readonly shapes: readonly string[];
  readonly optims: readonly string[];
  readonly rounds: number;
  readonly threads: number;
  readonly recompute: boolean;
  readonly peers: string | null;
}

interface PeerResult {
  readonly tokens_per_s: number;
  readonly losses: readonly number[];
  readonly rss_mib: { readonly peak: number };
  readonly versions: { readonly torch: string };
}

interface Cell {
  readonly name: string;
  readonly ours: readonly OursResult[];
  readonly peer: readonly PeerResult[];
}

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
/** Not slower than PyTorch as pip installs it, in any cell. */
const bar = 1;
/** Losses of the first steps may differ by this share: the two sides round differently, and nothing else. */
const lossTolerance = 2e-3;
const stepsOf: Readonly<Record<string, number>> = { '15m': 8, '110m': 4 };

/** Runs the grid; returns the exit code. */
export async function train(options: TrainOptions): Promise<number> {
  const peers = options.peers ?? join(root, '..', 'shared', 'peers');
  const script = join(peers, 'torch_lomo.py');
  if (options.python === null || !existsSync(script)) {
    process.stderr.write(`bench train: the peer needs --python PATH (or PEER_PYTHON) with torch and transformers, and ${script}\n`);
    return 2;
  }
  const python = options.python;
  const work = mkdtempSync(join(tmpdir(), 'lomo-bench-'));
  const text = join(work, 'tokens');
  writeFileSync(text, Uint8Array.from(new Random(1).ints(2 ** 18, 256)));
  const cells: Cell[] = [];
  for (const model of options.models) {
    const folder = join(work, model);
    const steps = stepsOf[model] ?? 4;
    await lastJson([python, script, '--model', join(peers, 'configs', `llama-${model}.json`), '--seq', '64', '--batch', '1', '--steps', '1', '--warmup', '0', '--save-init', folder]);
    for (const shape of options.shapes) {
      for (const optim of options.optims) {
        const [seq, batch] = shape.split('x').map(Number) as [number, number];
        const common = { seq, batch, steps, warmup: 2, lr: 0.01, threads: options.threads };
        const ours: OursResult[] = [];
        const peer: PeerResult[] = [];
        for (let round = 0; round < options.rounds; round++) {
          const settings: OursOptions = { ...common, folder, text, optim, dtype: 'f32', lr: optim === 'adamw' ? 1e-4 : 0.01, keeps: !options.recompute };
          ours.push(await lastJson<OursResult>([process.execPath, join(here, 'ours.js'), JSON.stringify(settings)], { env: { GOMP_SPINCOUNT: '10000' } }));
          const flags = Object.entries({ ...common, model: folder, optim, text }).flatMap(([name, value]) => [`--${name}`, String(value)]);
          peer.push(await lastJson<PeerResult>([python, script, ...flags, ...(options.recompute ? ['--checkpoint'] : [])]));
        }
        cells.push({ name: `${model} f32 ${shape} ${optim}${options.recompute ? ' recomputed' : ''}`, ours, peer });
        if (!options.json) process.stderr.write(`${describe(cells.at(-1)!)}\n`);
      }
    }
  }
  return conclude(cells, options);
}

function ratiosOf({ ours, peer }: Cell): ReturnType<typeof spread> {
  return spread(ours.map((run, i) => run.tokens_per_s / peer[i]!.tokens_per_s));
}

/** Largest relative difference of the first losses: both sides must be training the same thing. */
function lossDifference({ ours, peer }: Cell): number {
  const [a, b] = [ours[0]!.losses, peer[0]!.losses];
  return Math.max(...a.map((loss, i) => Math.abs(loss - b[i]!) / Math.abs(b[i]!)));
}

function describe(cell: Cell): string {
  const { median, min, max } = ratiosOf(cell);
  return `${cell.name}: ${median.toFixed(2)} x (${min.toFixed(2)} to ${max.toFixed(2)})`;
}

function conclude(cells: readonly Cell[], options: TrainOptions): number {
  const figure = geometricMean(cells.map((cell) => ratiosOf(cell).median));
  const missed = cells.flatMap((cell) => [
    ...(ratiosOf(cell).median >= bar ? [] : [`${cell.name}: ${ratiosOf(cell).median.toFixed(2)} x, the bar is ${bar} x`]),
    ...(lossDifference(cell) <= lossTolerance ? [] : [`${cell.name}: losses differ by ${lossDifference(cell).toExponential(1)}, so the sides do not train the same thing`]),
  ]);
  const result = { date: new Date().toISOString(), machine: machine(), torch: cells[0]?.peer[0]?.versions.torch, libraries: cells[0]?.ours[0]?.libraries, threads: options.threads, figure, missed, cells };
  if (options.save) {
    mkdirSync(join(root, 'bench', 'results'), { recursive: true });
    writeFileSync(join(root, 'bench', 'results', `${result.date.slice(0, 10)}-train${options.recompute ? '-recomputed' : ''}.json`), `${JSON.stringify(result, null, 1)}\n`);
  }
  if (options.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  else {
    const median = (values: readonly number[]): string => spread(values).median.toFixed(0);
    process.stdout.write(`${machine()}; torch ${String(result.torch)}, stock, eager; ${String(result.libraries)}; ${options.threads} threads, ${options.rounds} rounds in turn\n`);
    process.stdout.write(
      `${table([
        ['', 'ours tokens/s', 'PyTorch tokens/s', 'ratio', 'from', 'to', 'ours peak MiB', 'PyTorch peak MiB', 'losses differ'],
        ...cells.map((cell) => {
          const ratio = ratiosOf(cell);
          return [
            cell.name, median(cell.ours.map((r) => r.tokens_per_s)), median(cell.peer.map((r) => r.tokens_per_s)), ratio.median.toFixed(2), ratio.min.toFixed(2), ratio.max.toFixed(2),
            median(cell.ours.map((r) => r.peak_mib)), median(cell.peer.map((r) => r.rss_mib.peak)), lossDifference(cell).toExponential(1),
          ];
        }),
      ])}\n`,
    );
    for (const line of missed) process.stdout.write(`missed: ${line}\n`);
    process.stdout.write(`${figure.toFixed(2)} x PyTorch, geometric mean of ${cells.length} cells\n`);
  }
  return options.check && missed.length > 0 ? 1 : 0;
}
