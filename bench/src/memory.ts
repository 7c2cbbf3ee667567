// bench memory: the most a whole process ever holds while it trains, ours against PyTorch, each a process of its own in turn.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '@lomo/tensor';
import type { Report, Reporting } from './manners.ts';
import { benchFolder, deliver, dtypeOf, keep, lastJson, shapeOf, table } from './manners.ts';
import type { OursOptions, OursResult } from './measure.ts';
import { modelConfig } from './models.ts';
import { tunedPreload } from './peer.ts';

export interface MemoryOptions extends Reporting {
  /** The peer's interpreter. */
  readonly python: string | undefined;
  /** Folder of torch_lomo.py. */
  readonly peers: string;
  readonly models: readonly string[];
  readonly dtypes: readonly string[];
  readonly shapes: readonly string[];
  /** Steps after the first. */
  readonly steps: number;
  readonly threads: number;
  /** Libraries the tuned peer is loaded with; found and built unless given. */
  readonly preload: string | undefined;
}

/** One process. MiB. */
export interface Measured {
  readonly side: string;
  /** VmHWM over its whole life. */
  readonly whole: number;
  /** VmHWM of training, less the weights and what the process held before it had a model. */
  readonly above: number;
  readonly weights: number;
  /** VmRSS before it had a model: the interpreter, its libraries. */
  readonly start: number;
  readonly tokensPerSecond: number;
}

/** One model, dtype and shape, on every side. */
export interface MemoryCell {
  readonly name: string;
  readonly ours: readonly Measured[];
  readonly tuned: readonly Measured[];
  readonly stock: readonly Measured[];
}

interface PeerMemory {
  readonly rss_mib: { readonly imports: number; readonly model_build_peak: number; readonly peak: number };
  readonly weights_mib: number;
  readonly tokens_per_s: number;
  readonly versions: { readonly torch: string };
}

/** Our peak over the peer's, at most. */
export const memoryBars = { tuned: 0.5, stock: 0.4, above: 0.5 } as const;

const ours = [
  { side: 'lomo, tapes kept', keeps: true },
  { side: 'lomo, recomputed', keeps: false },
  { side: 'lomo, recomputed, head by vocabulary tiles', keeps: false, headForm: 'tiles' },
] as const;
/** The rule the authors published, and the leanest hook PyTorch allows. */
const peerOptims = ['lomo', 'lomo-hook'] as const;

/** Runs the grid; returns the exit code: 1 where `check` found a bar missed, 2 where `check` has no peer to compare with. */
export async function memory(options: MemoryOptions): Promise<number> {
  const script = join(options.peers, 'torch_lomo.py');
  const python = existsSync(script) ? options.python : undefined;
  const absent = existsSync(script) ? '--python PATH (or PEER_PYTHON) names no interpreter with torch and transformers' : `${script} is not there`;
  if (python === undefined) {
    process.stderr.write(`bench memory: only our side is measured, because ${absent}\n`);
    if (options.check) return 2;
  }
  const work = mkdtempSync(join(tmpdir(), 'lomo-bench-'));
  try {
    const text = join(work, 'tokens');
    writeFileSync(text, Uint8Array.from(new Random(1).ints(2 ** 18, 256)));
    const peer = python === undefined ? null : { python, script, preload: options.preload ?? tunedPreload(options.peers, work) };
    const [cells, torch]: [MemoryCell[], Set<string>] = [[], new Set()];
    const concluded = (list: readonly MemoryCell[]): Report => conclude(list, { models: options.models, threads: options.threads, torch: [...torch].join(), preload: peer?.preload ?? null, absent });
    for (const model of options.models) {
      for (const dtype of options.dtypes.map(dtypeOf)) {
        for (const shape of options.shapes) {
          const common = { ...shapeOf(shape), steps: options.steps, warmup: 1, lr: 0.01, threads: options.threads };
          const own: Measured[] = [];
          for (const { side, ...how } of ours) own.push(await measureOurs(side, { ...common, ...how, model: { name: model }, text, optim: 'lomo', dtype }));
          const [tuned, stock]: [Measured[], Measured[]] = [[], []];
          if (peer !== null) {
            const config = join(work, `${model}.json`);
            writeFileSync(config, JSON.stringify(modelConfig(model)));
            const flags = Object.entries({ ...common, model: config, text, dtype: dtype === 'f32' ? 'float32' : 'bfloat16' }).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
            const run = async (side: string, more: readonly string[], preload?: string): Promise<Measured> => {
              const { GOMP_SPINCOUNT: _, ...inherited } = process.env; // ours alone
              const result = await lastJson<PeerMemory>([peer.python, peer.script, ...flags, ...more], preload === undefined ? inherited : { ...inherited, LD_PRELOAD: preload });
              torch.add(result.versions.torch);
              return measuredOf(side, result);
            };
            for (const optim of peerOptims) {
              tuned.push(await run(`PyTorch tuned, checkpointing, ${optim}`, ['--optim', optim, '--checkpoint', '--compile', 'layer'], peer.preload));
              stock.push(await run(`PyTorch stock, ${optim}`, ['--optim', optim]));
            }
          }
          const cell = { name: `${model} ${dtype} ${shape}`, ours: own, tuned, stock };
          cells.push(cell);
          // A grid may take an hour, and what is measured is measured.
          if (options.save) keep(concluded(cells));
          if (!options.json) process.stderr.write(`${table(rowsOf(cell), [0, 1])}\n\n`);
        }
      }
    }
    return deliver(concluded(cells), options);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function measureOurs(side: string, options: OursOptions): Promise<Measured> {
  const r = await lastJson<OursResult>([process.execPath, join(benchFolder, 'dist', 'ours.js'), JSON.stringify(options)]);
  return { side, whole: r.whole_peak_mib, above: r.above_start_mib - r.weights_mib, weights: r.weights_mib, start: r.start_mib, tokensPerSecond: r.tokens_per_s };
}

function measuredOf(side: string, { rss_mib: rss, weights_mib: weights, tokens_per_s: tokensPerSecond }: PeerMemory): Measured {
  return { side, whole: Math.max(rss.model_build_peak, rss.peak), above: rss.peak - rss.imports - weights, weights, start: rss.imports, tokensPerSecond };
}

/** The process that holds least by `measure`. */
function leanest(list: readonly Measured[], measure: 'whole' | 'above'): Measured {
  return list.reduce((a, b) => (b[measure] < a[measure] ? b : a));
}

/** One ratio and its bar. */
export interface Comparison {
  readonly what: string;
  readonly share: number;
  readonly bar: number;
  /** What our weights alone are of their process, where weights count: no lean program gets below it. */
  readonly floor: number;
  readonly of: string;
  readonly against: string;
}

/** The comparisons of a cell: our leanest process against the leanest of theirs, with the bar. */
export function comparisons({ ours: own, tuned, stock }: MemoryCell): readonly Comparison[] {
  if (tuned.length === 0 || stock.length === 0) return [];
  const against = (what: string, measure: 'whole' | 'above', { list, bar }: { readonly list: readonly Measured[]; readonly bar: number }) => {
    const [us, them] = [leanest(own, measure), leanest(list, measure)];
    return { what, share: us[measure] / them[measure], bar, floor: measure === 'whole' ? us.weights / them.whole : 0, of: us.side, against: them.side };
  };
  return [
    against('whole process against tuned with checkpointing', 'whole', { list: tuned, bar: memoryBars.tuned }),
    against('whole process against stock', 'whole', { list: stock, bar: memoryBars.stock }),
    against('above weights and start-up against the leanest', 'above', { list: [...tuned, ...stock], bar: memoryBars.above }),
  ];
}

function rowsOf({ name, ours: own, tuned, stock }: MemoryCell): string[][] {
  const head = ['', 'side', 'whole MiB', 'above MiB', 'weights MiB', 'start MiB', 'tokens/s'];
  const rows = [...own, ...tuned, ...stock].map((m) => [name, m.side, ...[m.whole, m.above, m.weights, m.start, m.tokensPerSecond].map((v) => v.toFixed(0))]);
  return [head, ...rows];
}

/** What the cells come to; `missed` names every bar that is. */
export function conclude(cells: readonly MemoryCell[], facts: { readonly models: readonly string[]; readonly threads: number; readonly torch: string; readonly preload: string | null; readonly absent: string }): Report {
  const found = cells.map((cell) => ({ name: cell.name, comparisons: comparisons(cell) }));
  const all = found.flatMap(({ name, comparisons: list }) => list.map((c) => ({ name, ...c })));
  const missed = all.filter(({ share, bar }) => !(share <= bar)).map(({ name, what, share, bar, floor, of, against }) => `${name}: ${what}: ${share.toFixed(3)} x (${of} / ${against}), the bar is ${bar} x${floor > bar ? `; our weights alone are ${floor.toFixed(3)} x` : ''}`);
  const [head] = rowsOf(cells[0]!);
  const worst = all.toSorted((a, b) => b.share / b.bar - a.share / a.bar)[0];
  return {
    name: `memory-${facts.models.join('-')}`,
    lines: [
      `${facts.torch === '' ? '' : `torch ${facts.torch}, tuned with ${String(facts.preload)}; `}${facts.threads} threads; whole: VmHWM from the process's start; above: VmHWM of training less weights and what the process held before the model`,
      table([head!, ...cells.flatMap((cell) => rowsOf(cell).slice(1))], [0, 1]),
      '',
      table([['', 'comparison', 'share', 'bar', 'ours', 'theirs'], ...all.map((c) => [c.name, c.what, `${c.share.toFixed(3)} x`, `${c.bar} x`, c.of, c.against])], [0, 1, 4, 5]),
    ],
    figure: worst === undefined ? `no peer: ${facts.absent}` : `${all.length - missed.length} of ${all.length} bars held; the closest is ${worst.name}, ${worst.what}: ${worst.share.toFixed(3)} x of at most ${worst.bar} x`,
    missed,
    data: { threads: facts.threads, torch: facts.torch, preload: facts.preload, cells, comparisons: all },
  };
}
