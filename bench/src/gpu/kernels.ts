// gpu kernels: attention and every fused kernel alone, as a share of what products or memory allow, next to what PyTorch runs in its place.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { geometricMean, percent, table } from '../manners.ts';
import type { Conclusion } from './findings.ts';
import type { KernelsResult, KernelTime } from './kernels_process.ts';
import { gpuSizes, tinySizes } from './limits.ts';
import type { Context, Part } from './part.ts';
import { measureOne, passed, script } from './part.ts';
import { runLines } from './runner.ts';

/** PyTorch's answer to one kernel. */
export interface Counterpart {
  readonly id: string;
  readonly what?: string;
  readonly milliseconds?: number;
  readonly absent?: string;
}

const ownId = 'kernels';
const peerId = 'PyTorch';
/** Shorter than this, milliseconds, a burst measures launches. */
const least = 0.005;

async function run(context: Context): Promise<void> {
  const { where, scale, python, findings, budget } = context;
  // Tokens enough that no operand of a layer stays in a cache of 60 MB.
  const shape = scale.tiny ? { model: 'tiny', seq: 32, batch: 2 } : { model: '7b', seq: 2048, batch: 8 };
  await measureOne(context, { id: ownId, job: { kind: 'kernels', where, dtype: 'bf16', ...shape, sizes: scale.tiny ? tinySizes : gpuSizes }, expects: 90 });
  const own = findings.get<KernelsResult>(ownId);
  if (python === undefined || own === undefined || passed(context, { id: peerId, expects: 60 })) return;
  const work = mkdtempSync(join(tmpdir(), 'lomo-gpu-'));
  try {
    const requests = join(work, 'requests.json');
    writeFileSync(requests, JSON.stringify(own.kernels));
    const list: unknown[] = [];
    const ran = await runLines([python, script('torch_kernels.py'), requests, '--device', 'gpu' in where ? `cuda:${where.gpu}` : 'cpu'], { seconds: budget.left, heard: (line) => void list.push(line) });
    findings.put(peerId, { data: list, ...(ran.how === 'done' ? {} : { failed: ran.words }) }, ran.seconds);
    context.say(`${peerId}: ${list.length} of ${own.kernels.length} kernels, ${ran.how}, ${ran.seconds.toFixed(1)} s${ran.how === 'failed' ? `\n${ran.words}` : ''}`);
    context.keep();
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** What the findings come to. */
export function concludeKernels(findings: Parameters<Part['conclude']>[0]): Conclusion {
  const own = findings.get<KernelsResult>(ownId);
  if (own === undefined) return { lines: [], figure: 'no kernel is measured', held: [], missed: [], open: [`kernels: ${findings.failure(ownId) ?? 'not measured'}`] };
  const peers = new Map((findings.get<readonly Counterpart[]>(peerId) ?? []).map((one) => [one.id, one]));
  const told = own.kernels.filter(({ milliseconds }) => milliseconds >= least).toSorted((a, b) => b.milliseconds - a.milliseconds);
  const against = (kernel: KernelTime): number | null => {
    const theirs = peers.get(kernel.id)?.milliseconds;
    return theirs === undefined ? null : theirs / kernel.milliseconds;
  };
  const rows = told.map((kernel) => {
    const [peer, ratio] = [peers.get(kernel.id), against(kernel)];
    return [
      percent(kernel.share), kernel.bound, (1000 * kernel.milliseconds).toFixed(0), (kernel.flops / kernel.milliseconds / 1e9).toFixed(0), (kernel.bytes / kernel.milliseconds / 1e6).toFixed(0),
      ratio === null ? '-' : `${ratio.toFixed(2)} x`, kernel.op, kernel.shapes, peer === undefined ? '' : (peer.what ?? peer.absent ?? ''),
    ];
  });
  const ratios = told.flatMap((kernel) => against(kernel) ?? []);
  const shares = told.map(({ share }) => Math.min(1, share));
  const { limits } = own;
  return {
    lines: [`limits ${(limits.products / 1e12).toFixed(0)} TFLOP/s, ${(limits.bytes / 1e12).toFixed(2)} TB/s; a share above 100 %: operands lay in a cache`, table([['share', 'of', 'us', 'TFLOP/s', 'GB/s', 'PyTorch takes', 'op', 'operands', 'in its place'], ...rows], [1, 6, 7, 8])],
    figure: `${percent(geometricMean(shares))} of their limits, geometric mean of ${shares.length} kernels${ratios.length === 0 ? '' : `; PyTorch takes ${geometricMean(ratios).toFixed(2)} x as long, over ${ratios.length} of them`}`,
    held: [],
    missed: [],
    open: peers.size === 0 ? [`PyTorch: ${findings.failure(peerId) ?? 'not measured; --python names an interpreter with torch and transformers'}`] : [],
    data: { kernels: told.map((kernel) => ({ op: kernel.op, shapes: kernel.shapes, share: kernel.share, bound: kernel.bound, milliseconds: kernel.milliseconds, times_of_pytorch: against(kernel) })) },
  };
}

export const kernels: Part = { name: 'kernels', run, conclude: concludeKernels };
