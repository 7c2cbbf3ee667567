// Our side of `bench train`: trains a model on fixed tokens in this process and says how fast, in how much memory, with which losses.
import { readFileSync, writeFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { cpu } from '@lomo/cpu';
import { initialise, loadWeights, readConfig } from '@lomo/models';
import type { HeadForm } from '@lomo/tensor';
import { Device, DryBackend } from '@lomo/tensor';
import type { Assembly, Setup } from './assembly.ts';
import { assemble, batchesOf, modelWork, planStep, ruleNamed, run } from './assembly.ts';
import { measureLimits } from './limits.ts';
import { spread } from './manners.ts';
import { modelConfig } from './models.ts';

/** What to train, as the peer's flags say it. */
export interface OursOptions {
  /** A name of models.ts: its weights are drawn here; or a Hugging Face folder: its weights are loaded. */
  readonly model: { readonly name: string } | { readonly folder: string };
  /** The file whose bytes are the tokens. */
  readonly text: string;
  readonly optim: string;
  readonly dtype: 'f32' | 'bf16';
  readonly seq: number;
  readonly batch: number;
  readonly steps: number;
  readonly warmup: number;
  readonly lr: number;
  readonly threads: number;
  readonly keeps: boolean;
  /** How the head's products are cut; the program's choice unless given. */
  readonly headForm?: HeadForm;
}

/** Times in seconds, memory in MiB. */
export interface OursResult {
  readonly tokens_per_s: number;
  readonly step_s: number;
  readonly step_min_s: number;
  readonly times_s: readonly number[];
  readonly losses: readonly number[];
  /** Of the model's own work: recomputation does not count. */
  readonly gflop_per_s: number;
  /** Of the best matrix product met in this process, after training. */
  readonly product_gflop_per_s: number;
  /** Most the process ever held since training began. */
  readonly peak_mib: number;
  /** The same above what it held before the model: Node and the libraries. */
  readonly above_start_mib: number;
  /** What it held before the model. */
  readonly start_mib: number;
  /** Most the process ever held since it began, drawing or loading the weights included. */
  readonly whole_peak_mib: number;
  readonly arena_mib: number;
  readonly weights_mib: number;
  readonly launches: number;
  readonly js_us_per_launch: number;
  readonly longest_block_ms: number;
  readonly spin: string;
  readonly libraries: string;
}

const mebibyte = 2 ** 20;

/** VmRSS or VmHWM of this process, MiB. */
function memory(field: 'VmRSS' | 'VmHWM'): number {
  return Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? NaN) / 1024;
}

/** Trains, then takes the measures that would disturb the times. */
export async function measure(options: OursOptions): Promise<OursResult> {
  const { seq, batch, steps, warmup, lr, threads, dtype, keeps } = options;
  await using backend = cpu({ threads });
  const atStart = memory('VmRSS');
  const json = 'folder' in options.model ? await readConfig(options.model.folder) : modelConfig(options.model.name);
  const setup: Setup = { json, dtype, seq, batch, microBatches: 1, rule: ruleNamed(options.optim), keeps, ...(options.headForm === undefined ? {} : { headForm: options.headForm }) };
  const plan = await planStep(backend, setup);
  const device = new Device(backend, { bytes: plan.extent });
  const made = assemble(device, setup);
  if ('folder' in options.model) await loadWeights(made.model, options.model.folder);
  else initialise(made.model, 0);
  const stream = readFileSync(options.text);
  const building = memory('VmHWM');
  writeFileSync('/proc/self/clear_refs', '5'); // a new high-water mark, as the peer takes one
  const [times, losses]: [number[], number[]] = [[], []];
  for (let i = 0; i < warmup + steps; i++) {
    const batches = batchesOf(setup, stream, i);
    const start = performance.now();
    losses.push(await run(made, { step: i + 1, lr, batches }));
    times.push((performance.now() - start) / 1000);
  }
  const peak = memory('VmHWM');
  const timed = times.slice(warmup);
  const { median, min } = spread(timed);
  const result: Omit<OursResult, 'product_gflop_per_s'> = {
    tokens_per_s: (seq * batch) / median,
    step_s: median,
    step_min_s: min,
    times_s: timed,
    losses,
    gflop_per_s: modelWork(made.model, setup) / median / 1e9,
    peak_mib: peak,
    above_start_mib: peak - atStart,
    start_mib: atStart,
    whole_peak_mib: Math.max(building, peak),
    arena_mib: plan.extent / mebibyte,
    weights_mib: plan.byCategory.weights / mebibyte,
    launches: plan.launches.get('step') ?? 0,
    js_us_per_launch: await scriptTime(backend, setup),
    longest_block_ms: await longestBlock(made, { setup, stream, lr, step: warmup + steps }),
    spin: process.env['GOMP_SPINCOUNT'] ?? 'unset',
    libraries: backend.libraries.map(({ name, version }) => `${name} ${version}`).join(', '),
  };
  device.free();
  return { ...result, product_gflop_per_s: (await measureLimits(backend, dtype)).flops / 1e6 };
}

/** Microseconds of processor time a launch costs in JavaScript: the program without data, its launches going nowhere. */
async function scriptTime(backend: ReturnType<typeof cpu>, setup: Setup): Promise<number> {
  const device = new Device(new DryBackend(backend), { bytes: Infinity });
  const made = assemble(device, setup);
  const batches = batchesOf(setup, new Uint8Array(setup.seq * setup.batch), 0);
  for (let n = 1; n <= 10; n++) await run(made, { step: n, lr: 0, batches });
  const [launched, start] = [device.launchCount, process.cpuUsage()];
  for (let n = 1; n <= 20; n++) await run(made, { step: n, lr: 0, batches });
  const { user, system } = process.cpuUsage(start);
  return (user + system) / (device.launchCount - launched);
}

/** Longest time, milliseconds, that a step kept the event loop from its timers. */
async function longestBlock(made: Assembly, { setup, stream, lr, step }: { readonly setup: Setup; readonly stream: Uint8Array; readonly lr: number; readonly step: number }): Promise<number> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await run(made, { step: step + 1, lr, batches: batchesOf(setup, stream, step) });
  delay.disable();
  return delay.max / 1e6;
}
