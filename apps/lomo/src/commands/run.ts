// What train, resume and quickstart share: a session opened and shown on one screen, a run driven to its end.
import { appendFile, open } from 'node:fs/promises';
import { join } from 'node:path';
import { describe } from '@lomo/data';
import type { FitEvent, ParsedRun, Session } from '@lomo/trainer';
import { fit, openSession, shortTime, significant } from '@lomo/trainer';
import { categories } from '@lomo/tensor';
import { freeMemory, openBackend } from '../backends.ts';
import { loadPlugins } from '../plugins.ts';
import type { Screen } from '../screen.ts';
import { bytes, count, duration, percent, wrapped } from '../screen.ts';
import { GpuMemory, withHolders } from './gpu_run.ts';
import type { Progress } from './progress.ts';

/** A run before its first step. */
export interface OpenedRun {
  readonly session: Session;
  /** The backend, in a line. */
  readonly description: string;
  /** Memory of the GPU it is on; null where it is on none. */
  readonly memory: GpuMemory | null;
}

/** Opens the run's session, telling the screen and `onPhase` what goes on: 'tokenizing', 'planning', 'loading weights'. */
export async function openRun({ config, renamed, warnings }: ParsedRun, screen: Screen, onPhase: (text: string) => void = () => {}): Promise<OpenedRun> {
  for (const name of renamed) screen.line(`  ${name}`);
  for (const warning of warnings) screen.line(`  warning: ${warning}`);
  const begin = (text: string): void => {
    onPhase(text);
    if (screen.columns === null) screen.line(`  ${text} ...`);
    else screen.live(`  ${text} ...`);
  };
  const plugins = await loadPlugins(config.plugins);
  const opened = await openBackend(config.backend, { threads: config.threads, gpu: config.gpu, ops: plugins.ops });
  const { backend, machine, description, rates, gpu } = opened;
  const places = gpu === null ? {} : { hostMemory: freeMemory() };
  const open = openSession({ config, backend, memory: opened.freeMemory(), ...places, freeMemory, ...(rates === null ? {} : { rates }), machine, rules: plugins.rules, families: plugins.families, onPhase: begin });
  const session = await open.catch((error: unknown) => Promise.reject(withHolders(error, gpu)));
  screen.settle();
  return { session, description, memory: gpu === null ? null : new GpuMemory(gpu, session.plan.extent) };
}

/** Everything worth knowing before step 1. */
export async function showSession(session: Session, description: string, screen: Screen): Promise<void> {
  const { config, assembly, plan, schedule, train, held } = session;
  const { model } = assembly;
  const report = schedule.report();
  const trained = model.parameters.filter((p) => p.trainable).reduce((n, p) => n + p.shape.reduce((a, b) => a * b, 1), 0);
  const optimizer = `${config.optim}, learning rate ${session.peakRate}, ${config.lr_scheduler_type}`;
  const rows = [
    ['model', `${config.model_name_or_path} (${model.config.modelType}, ${count(model.size)} parameters, ${percent(trained / model.size)} trained, ${config.dtype})`],
    ['backend', description],
    ['data', `${count(train.length)} samples, ${count(report.trained)} trained tokens${held === null ? '' : `; ${count(held.length)} held out`}`],
    ['steps', `${count(session.steps)}, ${optimizer}`],
    ...session.choices.map(({ name, value, reason }) => [name, `${value}: ${reason}`]),
    ['memory', `${bytes(plan.extent)} planned: ${memoryLine(plan.atPeak)}`],
  ];
  for (const [name, value] of rows) screen.line(wrapped(`  ${name!.padEnd(12)} ${value!}`, { columns: screen.columns, indent: 15 }));
  screen.line('');
  await schedule.prepare(0);
  const shown = await describe(schedule.at(0).batches[0]!, { tokenizer: session.tokenizer, colour: process.stdout.isTTY, where: (index) => train.where(index) });
  for (const line of shown.split('\n')) screen.line(`  ${line}`);
  screen.line('');
}

/** '1.00 MiB weights, 212 KiB boundary', largest first. */
export function memoryLine(usage: Readonly<Record<string, number>>): string {
  return categories
    .map((name) => ({ name, size: usage[name] ?? 0 }))
    .filter(({ size }) => size > 0)
    .toSorted((a, b) => b.size - a.size)
    .map(({ name, size }) => `${bytes(size)} ${name}`)
    .join(', ');
}

/** Resumes from the newest checkpoint where the configuration allows it; says so. */
export async function resumeRun(session: Session, screen: Screen): Promise<void> {
  const wish = session.config.resume_from_checkpoint;
  let folder = typeof wish === 'string' ? wish : null;
  if (wish === true) {
    const { path, damaged } = await session.newest();
    for (const { path: other, reason } of damaged) screen.line(`  warning: ${other} is no complete checkpoint and is left alone: ${reason}`);
    folder = path;
  }
  if (folder === null) return;
  const differences = await session.resume(folder);
  screen.line(`  resuming from ${folder}: step ${session.done} of ${session.steps} is done`);
  // Another backend has other libraries, another instruction set and so on: it says it all.
  const backend = differences.find((difference) => difference.startsWith('backend '));
  for (const difference of backend === undefined ? differences : [backend]) screen.line(`  warning: the checkpoint was made with ${difference}; the run goes on, but its bits will not be those of a run that was never stopped`);
}

export interface DriveOptions {
  readonly signal: AbortSignal;
  /** Kept up to date, for whoever asks the run to stop. */
  readonly progress: Progress;
}

/** Trains to the end or the abort; shows every step, keeps metrics.jsonl. Returns the last checkpoint's folder, if one was written. */
export async function driveRun({ session, memory }: Pick<OpenedRun, 'session' | 'memory'>, screen: Screen, { signal, progress }: DriveOptions): Promise<string | null> {
  const { config } = session;
  for (const warning of await session.probe()) screen.line(`  warning: ${warning}`);
  const metrics = join(session.root, 'metrics.jsonl');
  await endLine(metrics);
  const [start, first] = [performance.now(), session.done];
  let tokensPerSecond = 0;
  let saved: string | null = null;
  for await (const event of fit(session, { signal, onPhase: (phase, step) => progress.enter(phase, step) })) {
    progress.note(event);
    if (config.report_to.includes('jsonl') && (event.kind !== 'step' || event.step % config.logging_steps === 0)) await appendFile(metrics, `${JSON.stringify(plain(event))}\n`);
    if (event.kind === 'step') {
      memory?.stepped();
      const rate = event.trained === 0 ? 0 : (1000 * tokensOf(session)) / event.milliseconds;
      tokensPerSecond = tokensPerSecond === 0 ? rate : 0.9 * tokensPerSecond + 0.1 * rate;
      const left = ((performance.now() - start) / 1000 / (event.step - first)) * (session.steps - event.step);
      if (event.step % config.logging_steps === 0) screen.live(...stepLines(event, { session, tokensPerSecond, left }));
    } else if (event.kind === 'evaluated') screen.line(`  step ${event.step}: held-out loss ${event.loss.toFixed(4)}${event.best ? ' (best)' : ''}`);
    else if (event.kind === 'saved') {
      saved = event.path;
      screen.line(savedLine(event));
      if (event.notRemoved !== null) screen.line(`  warning: an older checkpoint could not be removed: ${event.notRemoved.message}`);
    } else if (event.kind === 'save failed') screen.line(`  warning: step ${event.step} could not be saved: ${event.error.message}. The last checkpoint stands; the next save tries again.`);
    else screen.line(`  ${event.error.message}${event.kind === 'rolled back' ? ` Went back to step ${event.to}${event.again ? ' and does the step again' : ''}.` : ` The step is skipped${event.lossScale === null ? '' : `, the loss scale halved to ${event.lossScale}`}.`}`);
  }
  screen.settle();
  const taken = memory?.line() ?? null;
  if (taken !== null) screen.line(`  ${taken}`);
  return saved;
}

/** What a save cost: '2.50 MiB in 0.12 s, 21 MiB/s, 0.3 % of the time so far'. The checkpoint survives a power loss when this is printed. */
function savedLine({ path, bytes: size, milliseconds, waited, share, copied }: Extract<FitEvent, { kind: 'saved' }>): string {
  const seconds = milliseconds / 1000;
  const cost = copied ? `from a copy, training waited ${shortTime(waited / 1000)}` : 'training waited';
  return `  saved ${path}: ${bytes(size)} in ${shortTime(seconds)}, ${significant(size / 2 ** 20 / seconds)} MiB/s; ${cost}; saving takes ${percent(share)} of the time`;
}

/** What a step did, and the same in fewer words for narrow terminals. */
function stepLines(event: Extract<FitEvent, { kind: 'step' }>, more: { session: Session; tokensPerSecond: number; left: number }): [string, ...string[]] {
  const { session, tokensPerSecond, left } = more;
  const { arena } = session.assembly.device;
  const all = event.telemetry?.all;
  const gradNorm = all?.gradNorm ?? event.gradNorm;
  const step = `  step ${String(event.step).padStart(String(session.steps).length)}/${session.steps}  loss ${event.loss.toFixed(4)}`;
  const norm = gradNorm > 0 ? `  norm ${significant(gradNorm)}` : '';
  const lost = session.config.dtype === 'f32' || all === undefined || all.lost === null ? '' : `  rounding lost ${percent(all.lost)}`;
  const lr = `  lr ${event.lr.toExponential(2)}`;
  const speed = `  ${count(tokensPerSecond)} tokens/s`;
  const memory = `  memory live/peak/plan ${bytes(arena.live)} / ${bytes(arena.peak)} / ${bytes(session.plan.extent)}`;
  const end = `  ${duration(left)} left`;
  return [step + norm + lost + lr + speed + memory + end, step + norm + lost + lr + speed + end, step + norm + lost + speed + end, step + speed + end];
}

/** A process that was killed while it wrote a line left half of it: the next line is one of its own. */
async function endLine(path: string): Promise<void> {
  const file = await open(path, 'a+');
  try {
    const { size } = await file.stat();
    if (size > 0 && (await file.read(new Uint8Array(1), 0, 1, size - 1)).buffer[0] !== 10) await file.appendFile('\n');
  } finally {
    await file.close();
  }
}

function tokensOf(session: Session): number {
  const { microBatches, capacity } = session.schedule;
  return microBatches * capacity;
}

function plain(event: FitEvent): Record<string, unknown> {
  if (!('error' in event)) return { ...event, time: new Date().toISOString() };
  const { error, ...rest } = event;
  return { ...rest, code: error.code, message: error.message, time: new Date().toISOString() };
}
