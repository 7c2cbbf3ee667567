// kill -9 at instants drawn at random, to real processes of the real command: each run is killed, killed again while it recovers now and then,
// gone on with to its end, and its last state held against an undisturbed run's.
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../packages/tensor/src/random.ts';
import { lomo, runFile, start } from '../tiny/command.ts';
import type { Running } from '../tiny/command.ts';
import { dataFile, modelFolder } from '../tiny/folder.ts';

/** Where a process was when it was killed. */
export type Place = 'set-up' | 'step' | 'save' | 'evaluation' | 'resume' | 'end';

/** One run that was disturbed. */
export interface Case {
  readonly number: number;
  readonly settings: string;
  /** Of each process that was killed, in order. */
  readonly killed: readonly { readonly place: Place; readonly step: number }[];
  /** Whether the last state, after all, is the undisturbed run's. */
  readonly same: boolean;
  readonly notes: string;
}

/** The settings of a run that is killed, and what every process of it begins with. */
export interface Subject {
  readonly name: string;
  readonly settings: Readonly<Record<string, unknown>>;
}

interface Reference {
  readonly digest: string;
  /** Milliseconds from the start of a process to its first step, and to its end. */
  readonly first: number;
  readonly whole: number;
  /** Saves of a run. */
  readonly saves: number;
}

/** Draws `count` instants from `seed` and kills at each; `tell` hears of every case. Throws where an undisturbed run fails. */
export async function kills(subjects: readonly Subject[], options: { readonly count: number; readonly seed: number; readonly tell?: (found: Case) => void }): Promise<readonly Case[]> {
  const random = new Random(options.seed);
  const references = new Map<Subject, Reference>();
  const cases: Case[] = [];
  let instants = 0;
  for (let number = 1; instants < options.count; number++) {
    const subject = subjects[(number - 1) % subjects.length]!;
    const reference = references.get(subject) ?? (await undisturbed(subject));
    references.set(subject, reference);
    const found = await disturbed(subject, { number, reference, random, most: options.count - instants });
    instants += found.killed.length;
    cases.push(found);
    options.tell?.(found);
  }
  return cases;
}

/** 'case 3, adamw bf16: killed in save at step 4, then in resume at step 4: same bits' */
export function spell({ number, settings, killed, same, notes }: Case): string {
  const where = killed.map(({ place, step }) => `in ${place} after step ${step}`).join(', then ');
  return `case ${number}, ${settings}: killed ${where}: ${same ? 'the same bits' : 'OTHER BITS'}${notes}`;
}

/** Counts of the places that were hit. */
export function places(cases: readonly Case[]): Readonly<Partial<Record<Place, number>>> {
  const counts: Partial<Record<Place, number>> = {};
  for (const { place } of cases.flatMap(({ killed }) => killed)) counts[place] = (counts[place] ?? 0) + 1;
  return counts;
}

async function undisturbed(subject: Subject): Promise<Reference> {
  const { folder, path } = runFile(subject.settings);
  const begun = performance.now();
  const run = start(['train', path], { cwd: folder });
  await run.until(() => metrics(folder).length > 0);
  const first = performance.now() - begun;
  const outcome = await run.ended;
  if (outcome.code !== 0) throw new Error(`the undisturbed run of ${subject.name} ended with ${outcome.code}:\n${outcome.out}${outcome.err}`);
  const reference = { digest: digestOf(folder), first, whole: performance.now() - begun, saves: metrics(folder).filter(({ kind }) => kind === 'saved').length };
  rmSync(folder, { recursive: true });
  return reference;
}

async function disturbed(subject: Subject, { number, reference, random, most }: { readonly number: number; readonly reference: Reference; readonly random: Random; readonly most: number }): Promise<Case> {
  const { folder, path } = runFile(subject.settings);
  const killed: { place: Place; step: number }[] = [];
  // Every second run is killed once more while it recovers, every fourth twice.
  const wanted = Math.min(most, number % 4 === 0 ? 3 : number % 2 === 0 ? 2 : 1);
  let notes = '';
  while (killed.length < wanted) {
    const run = start(['train', path], { cwd: folder });
    const before = metrics(folder).length;
    const recovering = killed.length > 0;
    const draw = [random.uniform(), random.uniform(), random.uniform()] as const;
    if (!recovering && draw[0] < 0.5) {
      // In one of the saves: as soon as its folder appears, or a little later.
      const nth = 1 + Math.floor(draw[1] * Math.max(1, reference.saves - 1));
      await run.until(() => metrics(folder).filter(({ kind }) => kind === 'saved').length >= nth - 1 && names(folder).some((name) => name.endsWith('.partial')));
      await pause(draw[2] * 12);
    } else if (recovering) await pause(draw[1] * 1.3 * reference.first);
    else await pause(reference.first * 0.7 + draw[1] * (reference.whole - 0.7 * reference.first));
    run.kill('SIGKILL');
    const { signal } = await run.ended;
    if (signal !== 'SIGKILL') {
      // It was over before: the instant does not count, the run is held to its bits all the same.
      notes = ` (${killed.length === 0 ? 'the instant came after the end' : 'it had recovered and ended before it could be killed again'})`;
      break;
    }
    killed.push(placeOf(run, { folder, before, recovering }));
  }
  const last = await lomo(['train', path], { cwd: folder });
  // No half-written folder and no nameless file's name may stay behind.
  const left = names(folder).filter((name) => /^\.|\.(partial|replaced)$/.test(name));
  const same = last.code === 0 && digestOf(folder) === reference.digest && left.length === 0;
  if (same) rmSync(folder, { recursive: true });
  else notes += `\n${folder}, left behind: ${left.join(', ') || 'nothing'}\n${last.out}${last.err}`;
  return { number, settings: subject.name, killed, same, notes };
}

/** What the process had said and left when it ended. */
function placeOf(run: Running, { folder, before, recovering }: { readonly folder: string; readonly before: number; readonly recovering: boolean }): { place: Place; step: number } {
  const all = metrics(folder);
  const done = Math.max(0, ...all.map(({ step }) => step));
  const since = all.slice(before);
  if (names(folder).some((name) => /\.(partial|replaced)$/.test(name)) && since.length > 0) return { place: 'save', step: done };
  if (since.length === 0) return { place: recovering ? 'resume' : 'set-up', step: done };
  if (run.out.includes('held-out loss after') || run.out.includes('done, the model')) return { place: 'end', step: done };
  const last = since.at(-1)!;
  const due = last.kind === 'step' && last.step % evalSteps === 0;
  return { place: due ? 'evaluation' : 'step', step: done };
}

/** Steps between two evaluations, of every subject. */
const evalSteps = 3;

/** Runs whose states differ in kind: what the optimizer keeps, 16 bits, a loss scale, gradients in a file, weights in a file. */
export function subjects(maxSteps: number): readonly Subject[] {
  const shared = {
    model_name_or_path: modelFolder({ vocab_size: 8192, hidden_size: 64, intermediate_size: 96 }), datasets: [{ path: dataFile(60) }], eval_datasets: [{ path: dataFile(300) }], eval_steps: evalSteps, save_steps: 2,
    max_steps: maxSteps, lr_scheduler_type: 'cosine', warmup_steps: 2, weight_decay: 0.1, learning_rate: 0.01,
  };
  return [
    { name: 'adamw bf16, global norm put aside in a file, 2 micro-batches', settings: { ...shared, optim: 'adamw', dtype: 'bf16', clip_mode: 'global', max_grad_norm: 0.2, clip_by: 'file', gradient_accumulation_steps: 2 } },
    { name: 'adalomo f16, dynamic loss scale', settings: { ...shared, optim: 'adalomo', dtype: 'f16', loss_scale: { initial: 1024, growth_steps: 3 } } },
    { name: 'adalomo bf16, streamed stages', settings: { ...shared, optim: 'adalomo', dtype: 'bf16', stages: 'streamed', offload: 'file', gradient_checkpointing: true } },
    { name: 'lomo f32, two passes', settings: { ...shared, optim: 'lomo', clip_mode: 'global', max_grad_norm: 0.2, clip_by: 'two-pass', save_steps: 1 } },
  ];
}

/** SHA-256 of the last state: trainer_state.json, which has the SHA-256 of every other file; these are checked against it. */
function digestOf(folder: string): string {
  const root = join(folder, 'runs/run');
  const newest = names(folder).filter((name) => /^step-\d+$/.test(name)).toSorted().at(-1) ?? '';
  const text = readFileSync(join(root, newest, 'trainer_state.json'));
  const { files, step, steps } = JSON.parse(text.toString()) as { files: Record<string, string>; step: number; steps: number };
  if (step !== steps) throw new Error(`${root}/${newest} is of step ${step}, the run has ${steps}`);
  for (const [name, expected] of Object.entries(files)) {
    if (sha256(readFileSync(join(root, newest, name))) !== expected) throw new Error(`${root}/${newest}/${name} is not what trainer_state.json says`);
  }
  return sha256(text);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function names(folder: string): readonly string[] {
  const root = join(folder, 'runs/run');
  return existsSync(root) ? readdirSync(root) : [];
}

/** Whole lines of metrics.jsonl so far: a kill may cut the last one short. */
function metrics(folder: string): { readonly kind: string; readonly step: number }[] {
  const path = join(folder, 'runs/run/metrics.jsonl');
  if (!existsSync(path)) return [];
  return readFileSync(path, 'utf8').split('\n').flatMap((line) => {
    try {
      return [JSON.parse(line) as { kind: string; step: number }];
    } catch {
      return [];
    }
  });
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
