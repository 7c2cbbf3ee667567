// bench paper: docs/paper.md, the LOMO paper's tables beside this program's plans of the same steps. Nothing is trained; no number depends on the machine.
import { writeFileSync } from 'node:fs';
import type { Clip } from '@lomo/optim';
import { adamw, lomo, optimOps, sgd } from '@lomo/optim';
import type { Rule } from '@lomo/optim';
import type { MemoryPlan } from '@lomo/parallel';
import { blockWords, peakOf, placeWords } from '@lomo/parallel';
import type { Backend } from '@lomo/tensor';
import { ReferenceBackend, tensorOps } from '@lomo/tensor';
import { planStep } from './assembly.ts';
import { modelConfig } from './models.ts';
import { parameters7b, published, smallest } from './paper_terms.ts';

const gibibyte = 2 ** 30;

/** A step of LLaMA-7B's shape in bf16 as it is planned here. */
export interface PaperStep {
  readonly rule: Rule;
  /** Tapes kept from forward to backward; else recomputed. */
  readonly keeps: boolean;
  readonly seq: number;
  readonly batch: number;
  readonly clip?: Clip;
}

/** The steps of the page by name: those of the paper's table 1, the one of its table 2, and ours as a run clips by default. */
export const paperSteps = {
  'AdamW, kept': { rule: adamw(), keeps: true, seq: 512, batch: 8 },
  'AdamW, recomputed': { rule: adamw(), keeps: false, seq: 512, batch: 8 },
  'SGD, kept': { rule: sgd, keeps: true, seq: 512, batch: 8 },
  'SGD, recomputed': { rule: sgd, keeps: false, seq: 512, batch: 8 },
  'LOMO, kept': { rule: lomo, keeps: true, seq: 512, batch: 8 },
  'LOMO, recomputed': { rule: lomo, keeps: false, seq: 512, batch: 8 },
  'LOMO, clipped': { rule: lomo, keeps: false, seq: 512, batch: 8, clip: { norm: 1, scope: 'global' } },
  'LOMO, one row': { rule: lomo, keeps: false, seq: 1024, batch: 1 },
} as const satisfies Readonly<Record<string, PaperStep>>;

export type PaperPlans = Readonly<Record<keyof typeof paperSteps, MemoryPlan>>;

/** What is asked of the plans, GiB. */
export const paperBars = { 'LOMO, recomputed': 14.3, 'LOMO, one row': 13.2 } as const;

/** Plans every step of the page for `target`: the reference backend, which takes no scratch memory, unless given. */
export async function paperPlans(target: Backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps] })): Promise<PaperPlans> {
  const json = modelConfig('7b');
  const plans: [string, MemoryPlan][] = [];
  for (const [name, step] of Object.entries<PaperStep>(paperSteps)) plans.push([name, await planStep(target, { json, dtype: 'bf16', microBatches: 1, headForm: 'tiles', ...step })]);
  return Object.fromEntries(plans) as PaperPlans;
}

/** Writes the page; says its figure. Returns the exit code. */
export async function paper(options: { readonly out: string }): Promise<number> {
  const plans = await paperPlans();
  writeFileSync(options.out, paperPage(plans));
  process.stdout.write(`${options.out} is written\nLOMO, recomputed, 512 x 8: ${gib(plans['LOMO, recomputed'].extent)} GiB (the paper: ${published.lomo.recomputed}); 1024 x 1: ${gib(plans['LOMO, one row'].extent)} (${published.oneRow})\n`);
  return 0;
}

const gib = (bytes: number, digits = 2): string => (bytes / gibibyte).toFixed(digits);
const two = (value: number): string => value.toFixed(2);
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const row = (...cells: readonly string[]): string => `| ${cells.join(' | ')} |`;

/** Bytes of a plan at its peak, in the paper's columns. */
function columnsOf({ atPeak, extent, peak }: MemoryPlan) {
  const { weights, gradient, factors, spill, state, boundary, saved, recomputed, logits, workspace, io } = atPeak;
  return { weights, gradients: gradient + factors + spill, state, activations: boundary + saved + recomputed + logits, scratch: workspace + io, gaps: extent - peak };
}

const table1 = [
  ['AdamW, kept', 'adamw', 'kept'],
  ['AdamW, recomputed', 'adamw', 'recomputed'],
  ['SGD, kept', 'sgd', 'kept'],
  ['SGD, recomputed', 'sgd', 'recomputed'],
  ['LOMO, kept', 'lomo', 'kept'],
  ['LOMO, recomputed', 'lomo', 'recomputed'],
] as const;

/** The page from its plans. */
export function paperPage(plans: PaperPlans): string {
  const { weights, largest } = smallest;
  const totals = table1.map(([name, rule, way]) => {
    const theirs = published[rule][way];
    return row(name, theirs.toFixed(2), gib(plans[name].extent), percent(plans[name].extent / gibibyte / theirs));
  });
  const terms = table1.flatMap(([name, rule, way]) => {
    const { gradients, states } = published[rule];
    const total = published[rule][way];
    const ours = columnsOf(plans[name]);
    return [
      row(`${name}: paper`, two(weights), two(gradients), two(states), two(total - weights - gradients - states), '', '', two(total)),
      row('ours', ...[ours.weights, ours.gradients, ours.state, ours.activations, ours.scratch, ours.gaps].map((bytes) => gib(bytes)), `**${gib(plans[name].extent)}**`),
    ];
  });
  const [kept, recomputed, oneRow] = [plans['LOMO, kept'], plans['LOMO, recomputed'], plans['LOMO, one row']];
  const peaks = (['LOMO, kept', 'LOMO, recomputed', 'LOMO, one row', 'AdamW, recomputed'] as const).map((name) => {
    const { event, blocks } = peakOf(plans[name]);
    const others = blocks.filter(({ category }) => category !== 'weights' && category !== 'state').slice(0, 3);
    return row(name, `${placeWords(event.place)}`, blockWords(event.block), others.map((b) => `${blockWords(b)} ${gib(b.bytes, 3)}`).join('; '));
  });
  const { perCard, cards, bytesPerParameter } = published.standard;
  const share = (bytes: number): string => two((bytes * parameters7b) / gibibyte / cards);
  const all = cards * perCard;
  const quadratic = (8 * 32 * 512 * 512) / gibibyte;
  return `${[
    '# The paper, planned',
    '<!-- Written by `pnpm bench paper`; a test fails when this page is not what it writes. -->',
    `The LOMO paper (arXiv 2306.09782) measures LLaMA-7B, ${parameters7b.toLocaleString('en-US')} numbers, on GPUs. Here the same steps are planned: the real program of the real
shape, run without data ([how](how-lomo-works.md)). Weights are bf16. All numbers are GiB of 2^30 bytes; so are the paper's, which writes GB:
two bytes a number are ${two(weights)} GiB. Both sides are what the allocator holds, without the CUDA context or the process. The plans are made for kernels without scratch memory,
so that they are the same on every machine; the CPU backend's plans of these steps differ by less than 0.01 GiB, and a test holds them to that.`,
    '## Table 1: sequence 512, batch 8',
    [row('', 'paper', 'ours', 'ours / paper'), row('---', '--:', '--:', '--:'), ...totals].join('\n'),
    '*Kept*: activations stay from forward to backward; *recomputed*: activation checkpointing. Term by term, at the moment of the peak:',
    [row('', 'weights', 'gradients', 'optimizer', 'activations', 'scratch', 'gaps', 'all'), row('---', ...Array.from({ length: 7 }, () => '--:')), ...terms].join('\n'),
    `The paper's activations are its totals less the other three terms. Without checkpointing that is 46.61 in all three of its rows, while its column prints one less; totals are
what we compare with. *Scratch* is what kernels work in, and the batch; *gaps* is what lies free between blocks when the arena is largest.`,
    '## Why they differ',
    `- **Weights** do not: 2 bytes a number on both sides.
- **Gradients.** AdamW and SGD in the paper keep all gradients in 16 bit until the optimizer runs: ${two(weights)}. Its LOMO keeps the largest one: 32000 x 4096 numbers in 16 bit, ${two(largest)}.
  Here every rule updates when a parameter settles, AdamW and SGD too, and a matrix's gradient passes in f32 tiles of at most 64 MiB (0.06). Where the peak lies in another part of the step, the
  table shows none.
- **Optimizer.** The paper's AdamW is mixed precision: an f32 copy of the weights, a first and a second moment, 12 bytes a number, ${two((12 * parameters7b) / gibibyte)}; its SGD keeps the f32 copy, 4 bytes, ${two((4 * parameters7b) / gibibyte)}.
  Here stochastic rounding takes the copy's place ([what it gives and costs](precision.md)): AdamW keeps two f32 moments, 8 bytes, ${gib(plans['AdamW, kept'].atPeak.state)}; SGD and LOMO are the same formula and keep nothing.
  That is another AdamW than the paper's: not the same bits, less memory.
- **Activations, kept.** ${two(published.lomo.kept - weights - published.lomo.gradients)} in the paper, ${gib(columnsOf(kept).activations)} here. An estimate of the difference from PyTorch's graph of that time, not in the paper: attention kept its scores (16 bit), their softmax (f32) and a
  16-bit copy of that, ${two(8 * quadratic)} a layer, ${two(32 * 8 * quadratic)} over 32 layers, where we keep one f32 logsumexp a head and token (${((4 * 32 * 4096) / 2 ** 20).toFixed(1)} MiB a layer); logits and their
  f32 log-softmax over 4,096 x 32,000, about ${two((4096 * 32000 * 10) / gibibyte)}, where no [tokens, vocabulary] matrix exists here; f32 copies inside every norm, and products of elementwise steps, where one
  kernel keeps what the next one needs.
- **Activations, recomputed.** ${two(published.lomo.recomputed - weights - published.lomo.gradients)} in the paper: 32 boundaries of 4,096 x 4,096 in 16 bit are ${two((32 * 4096 * 4096 * 2) / gibibyte)}, and logits in 16 bit and f32 would be ${two((4096 * 32000 * 6) / gibibyte)} more. Here ${gib(columnsOf(recomputed).activations)}: boundaries
  ${gib(recomputed.atPeak.boundary)} (the embedding's result and that of each block), one block recorded again ${gib(recomputed.atPeak.recomputed)}; beside it ${gib(recomputed.atPeak.workspace)} of gradients on their way through that block.
- **Clipping.** None of our steps above clips. LOMO by the global norm, with a second backward: ${gib(plans['LOMO, clipped'].extent)}.`,
    '## Table 2: sequence 1024, one row',
    `LOMO with checkpointing on one 24 GB card: ${two(published.oneRow)} in the paper, ${gib(oneRow.extent)} here: weights ${gib(oneRow.atPeak.weights)}, boundaries ${gib(oneRow.atPeak.boundary)}, one block recorded again ${gib(oneRow.atPeak.recomputed)}, a gradient
tile ${gib(oneRow.atPeak.gradient)}, gradients inside the block ${gib(oneRow.atPeak.workspace)}, gaps ${gib(oneRow.extent - oneRow.peak)}. That step [really ran](real-size.md), in the bytes planned.`,
    '## "10.8 % of the memory"',
    `The abstract's number is LOMO on one card over AdamW with ZeRO-3 on eight (DeepSpeed), both at sequence 1024, one row a card (table 2):`,
    [
      row('', 'GiB', 'what it is'),
      row('---', '--:', '---'),
      row('AdamW, one of 8 cards', two(perCard), 'measured in the paper'),
      row('of it weights', share(2), '2 bytes a number, an eighth'),
      row('gradients', share(2), '2 bytes, an eighth'),
      row('f32 copy and two moments', share(12), '12 bytes, an eighth'),
      row('the rest', two(perCard - (bytesPerParameter * parameters7b) / gibibyte / cards), 'activations, gathered layers, buffers; the paper does not tell them apart'),
      row('AdamW, all 8 cards', two(all), `8 x ${two(perCard)}`),
      row('LOMO, one card', two(published.oneRow), `weights ${two(weights)}, the rest ${two(published.oneRow - weights)}`),
      row('**share**', `**${percent(published.oneRow / all)}**`, `${two(published.oneRow)} / ${two(all)}`),
      row('ours', gib(oneRow.extent), `${percent(oneRow.extent / gibibyte / all)} of the same ${two(all)}`),
    ].join('\n'),
    `Eight cards train eight rows a step and one card one: the share compares what a run needs to begin, not memory for equal work. Term for term on one card, without any ZeRO, it is table 1:
${percent(published.lomo.recomputed / published.adamw.recomputed)} of AdamW's memory in the paper with checkpointing (${published.lomo.recomputed.toFixed(2)} / ${published.adamw.recomputed.toFixed(2)}), ${percent(recomputed.extent / gibibyte / published.adamw.recomputed)} here.`,
    '## Where our peaks are',
    [row('', 'in', 'asked by', 'largest beside weights and optimizer, GiB'), row('---', '---', '---', '---'), ...peaks].join('\n'),
  ].join('\n\n')}\n`;
}
