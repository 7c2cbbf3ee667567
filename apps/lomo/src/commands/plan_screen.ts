// A plan on one screen: optimizers side by side, the peak and what lives then, the choices, and what would fit where the run does not.
import { blockWords, peakOf, placeWords } from '@lomo/parallel';
import type { RunPlan } from '@lomo/trainer';
import { settingWords, significant, slowerWords, stepFlops, stepMoved, timeWords } from '@lomo/trainer';
import type { Choice, Nearest } from '@lomo/trainer';
import { categories } from '@lomo/tensor';
import { bytes, count, percent, table, wrapped } from '../screen.ts';
import type { PlanDevice } from './plan_device.ts';
import type { OptimizerPlan, PlanReport } from './plan.ts';

/** Blocks of the peak that are named. */
const named = 5;
const listed = 12;

/** The lines of a report for a terminal of `columns`; null: no terminal, no wrapping. */
export function planLines(report: PlanReport, columns: number | null): string[] {
  const { model, backend, shape, dtype, device, optimizers, choices, nearest, notes, rates } = report;
  const own = optimizers[0]!;
  const fold = (text: string, indent = 2): string => wrapped(text, { columns, indent });
  return [
    fold(`${model}: ${count(own.parameters)} parameters, ${dtype}, ${shape.microBatches} x ${count(shape.tokens)} tokens a step; ${backend}`),
    ...notes.map((note) => fold(note)),
    '',
    optimizerTable(optimizers, device),
    '',
    ...peakLines(own, fold),
    '',
    ...choiceLines(choices, fold),
    fold(`  times are estimates at ${rates.flops / 1e9} GFLOP/s, memory ${rates.memory / 1e9} GB/s, disk ${rates.disk / 1e9} GB/s`),
    fold(wholeLine(report)),
    ...verdict(own, { device, nearest, fold }),
  ];
}

function optimizerTable(optimizers: readonly OptimizerPlan[], device: PlanDevice): string {
  const used = categories.filter((c) => optimizers.some(({ plan }) => plan.atPeak[c] > 0));
  const cells = (cell: (o: OptimizerPlan) => string): string[] => optimizers.map(cell);
  const of = device.named ? `of ${bytes(device.bytes)}` : 'of what is free';
  return table([
    ['bytes at the peak', ...cells(({ name }) => name)],
    ...used.map((c) => [c, ...cells(({ plan }) => (plan.atPeak[c] === 0 ? '-' : bytes(plan.atPeak[c])))]),
    ['gaps', ...cells(({ plan }) => (plan.extent === plan.peak ? '-' : bytes(plan.extent - plan.peak)))],
    ['reserved', ...cells(({ plan }) => bytes(plan.extent))],
    [of, ...cells(({ plan }) => percent(plan.extent / device.bytes))],
    ['stages are', ...cells(({ way }) => (way.keeps ? 'kept' : 'recomputed'))],
    ...(optimizers.some(({ judged }) => judged) ? [['judged by', ...cells(({ judged, way }) => (judged ? way.by : '-'))]] : []),
    ...(optimizers.some(({ way }) => way.stages === 'streamed') ? [['weights are', ...cells(({ way }) => way.stages)]] : []),
    ['TFLOP a step', ...cells(({ plan }) => significant(stepFlops(plan) / 1e12))],
    ['moved a step', ...cells(({ plan }) => bytes(stepMoved(plan)))],
    ['time a step', ...cells(({ seconds }) => timeWords(seconds))],
  ]);
}

/** When the peak is, in which op, and what lives then, largest first. */
function peakLines({ name, plan }: OptimizerPlan, fold: (text: string, indent?: number) => string): string[] {
  const { event, blocks } = peakOf(plan);
  const others = blocks.filter(({ category }) => category !== 'weights' && category !== 'state');
  const largest = others.slice(0, named).map((b) => `${bytes(b.bytes).padStart(9)}  ${b.op === null && b.category !== 'io' ? blockWords(b) : `${b.category}, ${blockWords(b)}`}`);
  const held = blocks.length - others.length;
  return [
    fold(`  peak of ${name}: ${bytes(plan.peak)}, when ${blockWords(event.block)} asks for ${bytes(event.block.bytes)} of ${event.block.category}`, 4),
    fold(`    in ${placeWords(event.place)}; event ${count(event.at + 1)} of ${count(plan.timeline.length)}`, 4),
    fold(`    then live: ${count(held)} blocks of weights and state, ${count(others.length)} others, the largest of them`, 4),
    ...largest.map((line) => fold(`    ${line}`, 16)),
  ];
}

function wholeLine({ process: whole, gpu }: PlanReport): string {
  if (whole !== null) return `  the whole process is expected to come to ${bytes(whole.total)}: ${bytes(whole.start)} before the arena, and ${bytes(whole.growth)} that training adds; saves come on top`;
  return gpu === null ? '' : `  the driver is expected to see ${bytes(gpu.total)} taken: the arena, and ${bytes(gpu.startup)} that CUDA takes itself (assumed; \`lomo doctor\` measures it on a GPU)`;
}

function choiceLines(choices: readonly Choice[], fold: (text: string, indent?: number) => string): string[] {
  return choices.map(({ name, value, reason }) => fold(`  ${name.padEnd(listed)} ${value}: ${reason}`, 4));
}

function verdict({ fits, plan }: OptimizerPlan, { device, nearest, fold }: { readonly device: PlanDevice; readonly nearest: readonly Nearest[]; readonly fold: (text: string, indent?: number) => string }): string[] {
  if (fits) return ['', fold(`  fits: ${bytes(plan.extent)} of ${device.words}`)];
  const shown = nearest.map((n) => fold(`    ${settingWords(n.settings)}: ${bytes(n.extent)}, ${slowerWords(n)}${n.note === null ? '' : ` (${n.note})`}`, 6));
  return ['', fold(`  does not fit: it needs ${bytes(plan.extent)} of ${device.words}`), ...(shown.length === 0 ? [fold('    nothing near it fits')] : [fold('  what fits, nearest first; time a token beside the fastest way of this run, were there room:'), ...shown])];
}

/** What of a plan goes into JSON: everything but the timeline. */
export function planJson(plan: RunPlan): Record<string, unknown> {
  const { event, blocks } = peakOf(plan);
  const plain = (map: ReadonlyMap<string, number>): Record<string, number> => Object.fromEntries(map);
  return {
    extent: plan.extent,
    peak: plan.peak,
    byCategory: plan.byCategory,
    atPeak: plan.atPeak,
    peakAt: { event: event.at, events: plan.timeline.length, op: event.block.op, tensor: blockWords(event.block), place: event.place, launches: event.launches },
    live: blocks.slice(0, 100).map((b) => ({ bytes: b.bytes, offset: b.offset, category: b.category, op: b.op, tensor: blockWords(b), place: b.place })),
    flops: plain(plan.flops),
    moved: plain(plan.moved),
    launches: plain(plan.launches),
    spilled: plan.spilled,
    streamed: plan.streamed,
    offloaded: plan.offloaded,
  };
}
