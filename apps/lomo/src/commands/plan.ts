// lomo plan: what a run will need, by category, from the program run without data; what it would choose; what fits where it does not.
import type { BatchShape } from '@lomo/parallel';
import { assumedRates, choose, expectedProcess, explain, isJudgedFirst, joinedShape, nearest, scaleChoice, wayOf, Ways } from '@lomo/trainer';
import type { Choice, Chosen, ExpectedProcess, Nearest, Rates, RunPlan, Way } from '@lomo/trainer';
import { count, screen as openScreen } from '../screen.ts';
import { devicePage } from './gpu_run.ts';
import type { PlanDevice } from './plan_device.ts';
import { planDevice } from './plan_device.ts';
import type { PlanPage } from './plan_page.ts';
import { writePlanPage } from './plan_page.ts';
import { planJson, planLines } from './plan_screen.ts';
import type { PlanSource } from './plan_source.ts';
import { openPlanSource } from './plan_source.ts';

/** One optimizer's plan, by the way that the run would be run. */
export interface OptimizerPlan {
  readonly name: string;
  readonly plan: RunPlan;
  readonly way: Way;
  readonly fits: boolean;
  /** Of a step, estimated. */
  readonly seconds: number;
  /** Whether a step is judged before its first update. */
  readonly judged: boolean;
  readonly parameters: number;
}

/** Everything `lomo plan` knows; the run's own optimizer is the first. */
export interface PlanReport {
  readonly model: string;
  readonly backend: string;
  readonly dtype: string;
  /** Of the program: micro-batches as chosen. */
  readonly shape: BatchShape & { readonly microBatches: number };
  readonly device: PlanDevice;
  readonly rates: Rates;
  /** What the whole process of the run will come to on this machine; null where tensors live on a GPU. */
  readonly process: ExpectedProcess | null;
  /** What the driver will see taken, bytes; null where tensors live in the memory of the process. */
  readonly gpu: ExpectedGpu | null;
  readonly optimizers: readonly OptimizerPlan[];
  readonly choices: readonly Choice[];
  /** What fits instead, where the run does not. */
  readonly nearest: readonly Nearest[];
  readonly notes: readonly string[];
}

/** A GPU's memory during a run. */
export interface ExpectedGpu {
  readonly arena: number;
  /** What the driver's context and the backend take beside it: assumed. */
  readonly startup: number;
  readonly total: number;
}

export interface PlanFlags {
  readonly json?: boolean;
  /** '24 GiB': what the plan is held against, instead of this machine. */
  readonly device?: string;
  /** File of the page to write. */
  readonly html?: string;
}

/** Rules that stand beside the run's own. */
const compared = ['lomo', 'adalomo', 'adamw', 'sgd'];

/** Prints the plan of `path`, a run's file or a model folder. */
export async function plan(path: string, overrides: Readonly<Record<string, unknown>>, flags: PlanFlags): Promise<void> {
  const screen = openScreen();
  const source = await openPlanSource(path, overrides);
  const device = planDevice(flags.device, source.planning);
  const report = await reportOf(source, device);
  if (flags.json === true) screen.line(JSON.stringify(plain(report), null, 2));
  else for (const line of planLines(report, screen.columns)) screen.line(line);
  if (flags.html === undefined) return;
  await writePlanPage(flags.html, pageOf(report));
  if (flags.json !== true) screen.line(`  ${flags.html}: the memory of a step, to be opened in a browser`);
}

function pageOf({ model, backend, dtype, shape, device, optimizers }: PlanReport): PlanPage {
  return {
    title: model,
    facts: [backend, `${shape.microBatches} x ${count(shape.tokens)} tokens a step, ${dtype}`],
    limit: device,
    runs: optimizers.map(({ name, plan: made, way }, i) => ({ name: `${name}, ${way.keeps ? 'kept' : 'recomputed'}`, plan: made, chosen: i === 0 })),
  };
}

async function reportOf(source: PlanSource, device: PlanDevice): Promise<PlanReport> {
  const { base, rules } = source;
  const { backend, description, gpu } = source.planning;
  const { config } = base;
  const rates = source.planning.rates ?? assumedRates;
  const own = new Ways(backend, base, rates);
  const chosen = await choose(own, device.bytes);
  // Now, when this process has opened and planned what the run's own would have.
  const { extent } = chosen.candidate.plan;
  const expected = gpu === null ? expectedProcess(extent) : null;
  const optimizers = [optimizerPlan(own, chosen)];
  for (const name of compared) {
    const rule = rules.find((r) => r.name === name);
    if (rule === undefined || name === config.optim) continue;
    const ways = new Ways(backend, { ...base, rule, config: { ...config, optim: name } }, rates);
    const way = wayOf(chosen.candidate);
    const candidate = await ways.candidate({ ...way, by: ways.by.includes(way.by) ? way.by : ways.by[0]! });
    optimizers.push(optimizerPlan(ways, { candidate, fits: candidate.plan.extent <= device.bytes }));
  }
  return {
    model: config.model_name_or_path,
    backend: description,
    dtype: config.dtype,
    shape: joinedShape(base.shape, chosen.candidate.rows),
    device,
    rates,
    process: expected,
    gpu: gpu === null ? null : gpuOf(extent, gpu),
    optimizers,
    choices: [...explain(own, chosen), ...scaleChoice(config)],
    nearest: chosen.fits ? [] : await nearest({ backend, base, chosen, rates }),
    notes: source.notes,
  };
}

function gpuOf(extent: number, { contextBytes, startupBytes }: NonNullable<PlanSource['planning']['gpu']>): ExpectedGpu {
  const [arena, startup] = [Math.ceil(extent / devicePage) * devicePage, contextBytes + startupBytes];
  return { arena, startup, total: arena + startup };
}

function optimizerPlan(ways: Ways, { candidate, fits }: Pick<Chosen, 'candidate' | 'fits'>): OptimizerPlan {
  const { config } = ways.base;
  const { plan: made, seconds } = candidate;
  return { name: config.optim, plan: made, way: wayOf(candidate), fits, seconds, judged: isJudgedFirst(config), parameters: made.parameters };
}

function plain({ optimizers, device, ...report }: PlanReport): Record<string, unknown> {
  return {
    ...report,
    device: { bytes: device.bytes, named: device.named },
    optimizers: optimizers.map(({ plan: p, ...rest }) => ({ ...rest, ...planJson(p) })),
  };
}
