// What the parts of the GPU bench have in common: measurements taken once, within the time there is, kept as soon as they are there.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Conclusion, Findings } from './findings.ts';
import type { Job } from './process.ts';
import type { Budget, Ran } from './runner.ts';
import { programFolder } from './where.ts';
import type { Where } from './where.ts';

/** Sizes of everything: a GPU's, or small enough for the double. */
export interface Scale {
  readonly tiny: boolean;
  /** Shapes of the training part as 'tokens x rows': the first is the one that bars name. */
  readonly shapes: readonly string[];
  readonly rounds: number;
  /** Ops of the conformance part; all unless given. */
  readonly ops?: readonly string[];
  readonly cases: number;
}

/** What a part works with. */
export interface Context {
  readonly where: Where;
  /** Where the same program runs on the host double, to compare with; null where it is not built. */
  readonly double: Where | null;
  readonly findings: Findings;
  readonly budget: Budget;
  readonly scale: Scale;
  /** The interpreter with torch; undefined: only our side is measured. */
  readonly python: string | undefined;
  /** The folder with golden/, models/ and tokenizers/; undefined where it is not there. */
  readonly shared: string | undefined;
  /** Where results of earlier calls are. */
  readonly former: readonly string[];
  /** Runs a job elsewhere. */
  start(job: Job, options: { readonly seconds: number; readonly heard: (line: unknown) => void }): Promise<Ran>;
  /** Tells a person how it goes. */
  say(text: string): void;
  /** Writes what the part has found so far. */
  keep(): void;
}

/** One of the five proofs. */
export interface Part {
  readonly name: 'conformance' | 'train' | '65b' | 'kernels' | 'determinism';
  /** Measures what is missing. */
  run(context: Context): Promise<void>;
  /** What it comes to, of whatever has been found. */
  conclude(findings: Pick<Findings, 'get' | 'failure' | 'has'>, context: Pick<Context, 'scale' | 'former'>): Conclusion;
}

export interface Measurement {
  readonly id: string;
  readonly job: Job;
  /** Seconds that it is thought to take: with fewer left it is not begun. */
  readonly expects: number;
}

/** True where `id` need not, or cannot now, be measured. */
export function passed(context: Context, { id, expects }: Pick<Measurement, 'id' | 'expects'>): boolean {
  if (context.findings.has(id)) return true;
  if (context.budget.left >= expects) return false;
  context.say(`${id}: not begun, ${context.budget.left.toFixed(0)} s are left and it takes about ${expects} s`);
  return true;
}

/** Runs a job that finds one thing, unless it has been found before. */
export async function measureOne(context: Context, { id, job, expects }: Measurement): Promise<void> {
  if (passed(context, { id, expects })) return;
  let found: unknown;
  const ran = await context.start(job, { seconds: context.budget.left, heard: (line) => void (found = line) });
  if (ran.how === 'done' && found !== undefined) context.findings.put(id, { data: found }, ran.seconds);
  else context.findings.put(id, { failed: ran.words === '' ? 'found nothing' : ran.words }, ran.seconds);
  context.say(`${id}: ${ran.how}, ${ran.seconds.toFixed(1)} s${ran.how === 'failed' ? `\n${ran.words}` : ''}`);
  context.keep();
}

/** Runs a job that finds a list, unless it has been found before; of one that did not end, what there is stays. */
export async function measureList(context: Context, { id, job, expects }: Measurement): Promise<void> {
  if (passed(context, { id, expects })) return;
  const list: unknown[] = [];
  const ran = await context.start(job, { seconds: context.budget.left, heard: (line) => void list.push(line) });
  context.findings.put(id, { data: list, ...(ran.how === 'done' ? {} : { failed: ran.words }) }, ran.seconds);
  context.say(`${id}: ${list.length} findings, ${ran.how}, ${ran.seconds.toFixed(1)} s${ran.how === 'failed' ? `\n${ran.words}` : ''}`);
  context.keep();
}

/** The entry of measuring processes: beside the running file. */
export function processFile(): string {
  return join(programFolder, 'gpu_process.js');
}

/** A file that travels with a bundle, or lies in bench/gpu. Throws where it is in neither place. */
export function script(name: string): string {
  const places = [programFolder, join(programFolder, '..', 'gpu'), join(programFolder, '..', '..', 'gpu')].map((folder) => join(folder, name));
  const found = places.find((place) => existsSync(place));
  if (found === undefined) throw new Error(`${name} is not there (looked at ${places.join(', ')})`);
  return found;
}
