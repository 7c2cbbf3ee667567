// bench sweep: a pretrained model trained further on GSM8K with every rule at several learning rates: held-out losses side by side, drawn.
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { RunInput } from '@lomo/trainer';
import type { Curve, CurveOptions } from './curves.ts';
import { curvesOf, evaluationSteps, heldOut, heldStride, writeTable } from './curves.ts';
import type { Reporting } from './manners.ts';
import { benchFolder, deliver, machine, table } from './manners.ts';
import type { Line, PlotPanel } from './plot.ts';
import { drawPlot, linearTicks, spell } from './plot.ts';

export interface SweepOptions extends Reporting {
  /** A Hugging Face folder. */
  readonly model: string;
  /** Folder of gsm8k_train.jsonl and gsm8k_test.jsonl. */
  readonly data: string;
  readonly steps: number;
  /** Weights from the seed instead of the checkpoint's. */
  readonly random: boolean;
  readonly jobs: number;
  readonly keep: string | undefined;
  /** File of the picture. */
  readonly out: string;
}

/** Learning rates by rule, a factor of about three apart, too low and too high ones included. */
export const sweepRates = {
  pretrained: {
    lomo: [0.01, 0.03, 0.1, 0.3, 1],
    adalomo: [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
    adamw: [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
  },
  random: {
    lomo: [0.03, 0.1, 0.3, 1, 3],
    adalomo: [1e-3, 3e-3, 1e-2, 3e-2, 1e-1],
    adamw: [3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
  },
} as const;

export const ruleTitles = { lomo: 'LOMO', adalomo: 'AdaLomo', adamw: 'AdamW' } as const;
type RuleName = keyof typeof ruleTitles;
const ruleNames = Object.keys(ruleTitles) as RuleName[];
const colours: Readonly<Record<RuleName, string>> = { lomo: '#1f5fa8', adalomo: '#1e7d5a', adamw: '#c0392b' };

/** Runs the sweep, draws it, prints its table. Returns the exit code. */
export async function sweep(options: SweepOptions): Promise<number> {
  const [trainFile, testFile] = ['gsm8k_train.jsonl', 'gsm8k_test.jsonl'].map((name) => join(options.data, name)) as [string, string];
  for (const path of [trainFile, testFile, join(options.model, 'config.json')]) {
    if (!existsSync(path)) throw new Error(`${path} is not there; --data names the folder of GSM8K, --folder that of the model`);
  }
  const work = mkdtempSync(join(tmpdir(), 'lomo-sweep-'));
  try {
    const held = heldOut(testFile, options.keep ?? work);
    const settings: RunInput = {
      model_name_or_path: options.model, init: options.random ? 'random' : 'pretrained', datasets: [{ path: trainFile }], eval_datasets: [{ path: held }],
      max_seq_length: 512, overlong: 'drop', per_device_train_batch_size: 1, gradient_accumulation_steps: 1, max_steps: options.steps,
      lr_scheduler_type: 'linear', warmup_steps: 0.05, clip_mode: 'none', seed: 1, logging_steps: 10, save_minutes: 1e6,
    };
    const evaluateAt = evaluationSteps(options.steps, Math.max(1, Math.round(options.steps / 10)));
    const rates: Readonly<Record<RuleName, readonly number[]>> = sweepRates[options.random ? 'random' : 'pretrained'];
    const runs: Record<string, CurveOptions> = {};
    for (const optim of ruleNames) for (const rate of rates[optim]) runs[`${optim} ${spell(rate)}`] = { settings: { ...settings, optim, learning_rate: rate }, evaluateAt, completions: 0, inF32: false };
    const found = await curvesOf(runs, { jobs: options.jobs, keep: options.keep, onDone: (name, curve) => process.stderr.write(`${name}: ${described(curve)}\n`) });
    const of = (optim: RuleName, rate: number): Curve => found[`${optim} ${spell(rate)}`]!;
    const best = Object.fromEntries(ruleNames.map((optim) => [optim, rates[optim].reduce((a, b) => (lossOf(of(optim, b)) < lossOf(of(optim, a)) ? b : a))])) as Record<RuleName, number>;
    const begun = of('lomo', rates.lomo[0]!);
    mkdirSync(dirname(options.out), { recursive: true });
    writeFileSync(options.out, drawPlot(panels({ rates, of, best, steps: options.steps }), {
      heading: `Held-out loss of GSM8K answers, ${options.random ? 'from random weights' : 'further training of a pretrained model'}`,
      captions: [
        `stories260k (260,032 parameters, f32), ${options.steps} steps of 512 packed tokens, the same batches and seed for every run;`,
        `linear decay after 5 % warmup, no clipping. Loss over ${begun.heldSamples} held-out answers, ${begun.points[0]!.loss.toFixed(2)} before the first step.`,
        "The learning rate stands at the end of each curve; the best of each rule is bold. 'ended': a step was not finite.",
      ],
      columns: 2,
    }));
    const rows = [['rule', 'learning rate', 'held-out loss', ''], ...ruleNames.flatMap((optim) => rates[optim].map((rate) => [ruleTitles[optim], spell(rate), described(of(optim, rate)), rate === best[optim] ? 'best' : '']))];
    if (options.save && !options.random) writeTable(join(benchFolder, '..', 'docs', 'sweep.md'), 'sweep', { rows, note: `Loss of ${begun.heldSamples} held-out answers, ${begun.points[0]!.loss.toFixed(4)} before the first step; ${options.steps} steps. ${machine()}, ${new Date().toISOString().slice(0, 10)}.` });
    const edges = ruleNames.filter((optim) => best[optim] === rates[optim][0] || best[optim] === rates[optim].at(-1));
    return deliver(
      {
        name: options.random ? 'sweep-random' : 'sweep',
        lines: [table(rows, [0, 3]), ...edges.map((optim) => `${ruleTitles[optim]}: the best rate is at an edge, so the optimum is not bracketed`), `drawn to ${options.out}`],
        figure: ruleNames.map((optim) => `${ruleTitles[optim]} ${lossOf(of(optim, best[optim])).toFixed(4)} at ${spell(best[optim])}`).join(', '),
        missed: [],
        data: { steps: options.steps, settings: { ...settings, model_name_or_path: 'stories260k', datasets: ['gsm8k_train.jsonl'], eval_datasets: [`gsm8k_test.jsonl, every ${heldStride}th line`] }, best, runs: found },
      },
      options,
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function lossOf({ final }: Curve): number {
  return final ?? Infinity;
}

function described({ final, stopped }: Curve): string {
  return stopped === null ? lossOf({ final } as Curve).toFixed(4) : `not finite at step ${stopped.step}`;
}

interface Found {
  readonly rates: Readonly<Record<RuleName, readonly number[]>>;
  readonly of: (optim: RuleName, rate: number) => Curve;
  readonly best: Readonly<Record<RuleName, number>>;
  readonly steps: number;
}

/** One panel a rule, and one of the final losses by rate. */
function panels({ rates, of, best, steps }: Found): PlotPanel[] {
  const ends = ruleNames.flatMap((optim) => rates[optim].map((rate) => lossOf(of(optim, rate)))).filter(Number.isFinite);
  const [low, start] = [Math.min(...ends), of('lomo', rates.lomo[0]!).points[0]!.loss];
  const highest = Math.min(start, low + 2);
  const y = axisOf('held-out loss', low - 0.04 * (highest - low), highest);
  const x = { label: 'step', min: 0, max: steps, ticks: linearTicks(0, steps, 4) };
  const byStep = ruleNames.map((optim): PlotPanel => ({
    title: ruleTitles[optim],
    subtitle: `best ${lossOf(of(optim, best[optim])).toFixed(3)} at learning rate ${spell(best[optim])}`,
    x,
    y,
    lines: rates[optim].map((rate, i): Line => ({
      points: of(optim, rate).points.map(({ step, loss }) => [step, loss]),
      colour: rate === best[optim] ? colours[optim] : shades[i % shades.length]!,
      bold: rate === best[optim],
      label: of(optim, rate).stopped === null ? spell(rate) : `${spell(rate)}, ended`,
    })),
  }));
  const all = ruleNames.flatMap((optim) => [...rates[optim]]);
  const top = Math.min(start, low + 2.2 * (median(ends) - low) + 0.05);
  const byRate: PlotPanel = {
    title: 'Loss at the end, by learning rate',
    x: { label: 'learning rate', min: Math.min(...all) / 1.3, max: Math.max(...all) * 1.3, log: true, ticks: Array.from({ length: 6 }, (_, i) => Number(`1e${i - 4}`)).filter((t) => t >= Math.min(...all) / 1.3 && t <= Math.max(...all) * 1.3) },
    y: axisOf('held-out loss', low - 0.05 * (top - low), top),
    lines: ruleNames.map((optim) => ({ points: rates[optim].map((rate) => [rate, lossOf(of(optim, rate))] as const), colour: colours[optim], bold: true, dots: true, label: ruleTitles[optim] })),
  };
  return [...byStep, byRate];
}

const shades = ['#8a9099', '#6f7680', '#9aa0a8', '#7c838c', '#a5abb2'];

function axisOf(label: string, min: number, max: number) {
  return { label, min, max, ticks: linearTicks(min, max, 5) };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}
