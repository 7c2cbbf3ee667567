// bench precision: the same runs in f32, bf16 and f16, to nearest and stochastic, over seeds: held-out losses, drawn with the seeds' spread.
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readRun } from 'lomo';
import type { RunInput } from '@lomo/trainer';
import type { Curve, CurveOptions } from './curves.ts';
import { curvesOf, evaluationSteps, heldOut, writeTable } from './curves.ts';
import type { Reporting } from './manners.ts';
import { benchFolder, deliver, machine, percent, spread, table } from './manners.ts';
import type { Band, Line, PlotPanel } from './plot.ts';
import { drawPlot, linearTicks, logTicks } from './plot.ts';

export interface PrecisionOptions extends Reporting {
  /** Folder of stories260k. */
  readonly model: string;
  /** Folder of GSM8K. */
  readonly data: string;
  /** Steps of stories260k; the quickstart has its own. */
  readonly steps: number;
  /** LOMO's learning rate for stories260k: the sweep's best. */
  readonly rate: number;
  readonly jobs: number;
  readonly keep: string | undefined;
  readonly out: string;
}

/** What is compared. f16 weights have f32 activations, bf16 weights have bf16 ones. */
export const formats = [
  { name: 'f32', dtype: 'f32', rounding: 'nearest', colour: '#202124' },
  { name: 'bf16, to nearest', dtype: 'bf16', rounding: 'nearest', colour: '#c0392b' },
  { name: 'bf16, stochastic', dtype: 'bf16', rounding: 'stochastic', colour: '#1f5fa8' },
  { name: 'f16, stochastic', dtype: 'f16', rounding: 'stochastic', colour: '#1e7d5a' },
] as const;
const seeds = [1, 2, 3];
const quickstart = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'apps', 'lomo', 'quickstart');

interface Subject {
  readonly name: string;
  readonly settings: RunInput;
  readonly steps: number;
  readonly completions: number;
  /** Losses fall over decades. */
  readonly log: boolean;
}

/** Runs every format and seed, draws, prints the table. Returns the exit code. */
export async function precision(options: PrecisionOptions): Promise<number> {
  const [trainFile, testFile] = ['gsm8k_train.jsonl', 'gsm8k_test.jsonl'].map((name) => join(options.data, name)) as [string, string];
  for (const path of [trainFile, testFile, join(options.model, 'config.json')]) {
    if (!existsSync(path)) throw new Error(`${path} is not there; --data names the folder of GSM8K, --folder that of the model`);
  }
  const work = mkdtempSync(join(tmpdir(), 'lomo-precision-'));
  try {
    const subjects = [storiesOf(options, { trainFile, held: heldOut(testFile, options.keep ?? work) }), await quickstartOf()];
    const runs: Record<string, CurveOptions> = {};
    for (const { name, settings, steps, completions } of subjects) {
      for (const seed of seeds) {
        for (const { name: format, dtype, rounding } of formats) {
          const evaluateAt = evaluationSteps(steps, Math.round(steps / 10));
          runs[`${name}, ${format}, seed ${seed}`] = { settings: { ...settings, dtype, rounding, seed }, evaluateAt, completions, inF32: true };
        }
      }
    }
    const found = await curvesOf(runs, { jobs: options.jobs, keep: options.keep, onDone: (name, { final, stopped }) => process.stderr.write(`${name}: ${final?.toFixed(4) ?? `not finite at step ${stopped?.step}`}\n`) });
    const of = (subject: Subject, format: string): Curve[] => seeds.map((seed) => found[`${subject.name}, ${format}, seed ${seed}`]!);
    mkdirSync(dirname(options.out), { recursive: true });
    writeFileSync(options.out, drawPlot([...subjects.map((subject) => lossPanel(subject, of)), ...subjects.map((subject) => ratioPanel(subject, of))], {
      heading: 'Held-out loss in f32, bf16 and f16',
      captions: [
        `LOMO, the same data in every format; lines are medians of ${seeds.length} seeds (order of samples, random bits of rounding), bands their spread.`,
        'Below: each loss over the f32 loss of the same seed and step. bf16 runs have bf16 activations too; f16 weights have f32 activations.',
      ],
      legend: formats.map(({ name, colour }) => ({ label: name, colour })),
      columns: 2,
    }));
    const rows = subjects.flatMap((subject) => formats.map(({ name }) => rowOf(subject, name, of(subject, name))));
    const head = ['model', 'format', 'held-out loss', 'least to most', 'the weights in f32', 'exact', 'update lost', 'weights changed a step', 's/step'];
    if (options.save) writeTable(join(benchFolder, '..', 'docs', 'precision.md'), 'precision', { rows: [head, ...rows], note: `Medians of seeds ${seeds.join(', ')}; stories260k ${options.steps} steps at learning rate ${options.rate}. ${machine()}, ${new Date().toISOString().slice(0, 10)}.` });
    return deliver(
      {
        name: 'precision',
        lines: [table([head, ...rows], [0, 1]), `drawn to ${options.out}`],
        figure: subjects.map((subject) => `${subject.name}: ${formats.map(({ name }) => `${name} ${finals(of(subject, name)).median.toFixed(4)}`).join(', ')}`).join('; '),
        missed: [],
        data: { steps: options.steps, rate: options.rate, seeds, runs: found },
      },
      options,
    );
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function storiesOf({ model, steps, rate }: PrecisionOptions, { trainFile, held }: { readonly trainFile: string; readonly held: string }): Subject {
  const settings: RunInput = {
    model_name_or_path: model, datasets: [{ path: trainFile }], eval_datasets: [{ path: held }], max_seq_length: 512, overlong: 'drop',
    per_device_train_batch_size: 1, gradient_accumulation_steps: 1, max_steps: steps, optim: 'lomo', learning_rate: rate, lr_scheduler_type: 'linear',
    warmup_steps: 0.05, clip_mode: 'none', logging_steps: 10, save_minutes: 1e6,
  };
  return { name: 'stories260k', settings, steps, completions: 0, log: false };
}

/** The quickstart as its finetune.yaml has it. */
async function quickstartOf(): Promise<Subject> {
  const { config } = await readRun(join(quickstart, 'finetune.yaml'));
  const inside = (sources: typeof config.datasets) => sources.map((source) => ({ ...source, path: join(quickstart, source.path) }));
  const settings = { ...config, model_name_or_path: join(quickstart, config.model_name_or_path), datasets: inside(config.datasets), eval_datasets: inside(config.eval_datasets), logging_steps: 10, save_minutes: 1e6 };
  return { name: 'quickstart', settings, steps: config.max_steps ?? 800, completions: 200, log: true };
}

function finals(curves: readonly Curve[]) {
  return spread(curves.flatMap(({ final }) => (final === null ? [] : [final])));
}

function rowOf({ name, completions }: Subject, format: string, curves: readonly Curve[]): string[] {
  const of = (value: (curve: Curve) => number | null): number => spread(curves.map(value).filter((v) => v !== null)).median;
  const { min, median, max } = finals(curves);
  const ended = curves.filter(({ stopped }) => stopped !== null).length;
  const spoken = (value: number, words: (v: number) => string): string => (Number.isNaN(value) ? '-' : words(value));
  return [
    name,
    ended > 0 ? `${format} (${ended} of ${curves.length} not finite)` : format,
    median.toFixed(4),
    `${min.toFixed(4)} to ${max.toFixed(4)}`,
    spoken(of(({ finalInF32 }) => finalInF32), (v) => v.toFixed(4)),
    completions === 0 ? '-' : `${of(({ exact }) => exact)} of ${completions}`,
    spoken(of(({ lost }) => lost), (v) => `${(100 * v).toFixed(1)} %`),
    spoken(of(({ changed }) => changed), percent),
    of(({ secondsPerStep }) => secondsPerStep).toFixed(4),
  ];
}

type Found = (subject: Subject, format: string) => readonly Curve[];

/** Lines of medians with bands of the seeds' spread; `value` of seed `s`'s curve at point `i`. */
function medians(subject: Subject, of: Found, value: (loss: number, at: { readonly seed: number; readonly point: number }) => number): { lines: Line[]; bands: Band[] } {
  const [lines, bands]: [Line[], Band[]] = [[], []];
  for (const { name, colour } of formats) {
    const curves = of(subject, name);
    const length = Math.min(...curves.map(({ points }) => points.length));
    const spreads = Array.from({ length }, (_, point) => ({ step: curves[0]!.points[point]!.step, ...spread(curves.map(({ points }, seed) => value(points[point]!.loss, { seed, point }))) }));
    lines.push({ points: spreads.map(({ step, median }) => [step, median]), colour, bold: true });
    bands.push({ points: spreads.map(({ step, min, max }) => [step, min, max]), colour });
  }
  return { lines, bands };
}

function lossPanel(subject: Subject, of: Found): PlotPanel {
  const all = formats.flatMap(({ name }) => of(subject, name)).flatMap(({ points }) => points.map(({ loss }) => loss)).filter(Number.isFinite);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const y = subject.log ? { min: low / 1.15, max: high * 1.15, log: true, ticks: logTicks(low / 1.15, high * 1.15) } : { min: low - 0.04 * (high - low), max: high, ticks: linearTicks(low, high, 5) };
  return { title: subject.name, subtitle: subject.log ? 'held-out loss, logarithmic' : 'held-out loss', x: stepsAxis(subject), y: { label: 'held-out loss', ...y }, ...medians(subject, of, (loss) => loss) };
}

function ratioPanel(subject: Subject, of: Found): PlotPanel {
  const reference = of(subject, 'f32');
  const ratio = (loss: number, { seed, point }: { readonly seed: number; readonly point: number }): number => loss / (reference[seed]!.points[point]?.loss ?? NaN);
  const { lines, bands } = medians(subject, of, ratio);
  const all = bands.flatMap(({ points }) => points.flatMap(([, low, high]) => [low, high])).filter(Number.isFinite);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const [min, max] = [low - 0.05 * (high - low), high + 0.05 * (high - low)];
  const log = max / Math.max(min, 1e-9) > 20;
  const y = log ? { min: low / 1.2, max: high * 1.2, log, ticks: logTicks(low / 1.2, high * 1.2) } : { min, max, ticks: linearTicks(min, max, 5) };
  return { title: subject.name, subtitle: 'over the f32 loss of the same seed', x: stepsAxis(subject), y: { label: 'loss / f32 loss', ...y }, lines, bands };
}

function stepsAxis({ steps }: Subject) {
  return { label: 'step', min: 0, max: steps, ticks: linearTicks(0, steps, 4) };
}
