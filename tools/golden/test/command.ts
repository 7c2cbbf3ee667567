// The command as tests run it: output collected, folders made and removed, files spoilt on purpose.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { onTestFinished } from 'vitest';
import { runCommand } from '../src/run.ts';

/** The folder beside the repository; absent on a machine that has only the repository. */
export const shared = join(dirname(dirname(dirname(dirname(import.meta.dirname)))), 'shared');
export const golden = join(shared, 'golden');
export const hasGolden = existsSync(golden);
/** The folder of golden values this repository made itself. */
export const fixtures = join(dirname(import.meta.dirname), 'fixtures');

/** What a run of the command printed, and its status. */
export interface Ran {
  readonly status: number;
  readonly lines: readonly string[];
  readonly errors: string;
}

/** Runs the command; relative folders count from `cwd`. */
export async function run(argv: readonly string[], cwd = '/'): Promise<Ran> {
  // Spinning OpenMP threads of several test processes would starve each other; read when the addon is loaded.
  process.env['GOMP_SPINCOUNT'] ??= '1000';
  let [out, errors] = ['', ''];
  const status = await runCommand(argv, { cwd, shared, own: fixtures, out: (text) => (out += text), error: (text) => (errors += text) });
  return { status, lines: out.trimEnd().split('\n'), errors };
}

/** Lines of rows that missed. */
export function misses({ lines }: Ran): readonly string[] {
  return lines.filter((line) => line.startsWith('MISS'));
}

/** A fresh folder, removed after the test. */
export async function temporary(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'lomo-golden-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Copies parts of the shared golden folder into a fresh one, writable, and returns it. */
export async function copyOf(...parts: readonly string[]): Promise<string> {
  const folder = join(await temporary(), 'golden');
  for (const part of parts) await cp(join(golden, part), join(folder, part), { recursive: true, mode: 0 });
  return folder;
}

/** Changes a JSON file of a copy. */
export async function edit(path: string, change: (json: never) => void): Promise<void> {
  const json = JSON.parse(await readFile(path, 'utf8')) as never;
  change(json);
  await rm(path); // the copy keeps the original's write protection
  await writeFile(path, JSON.stringify(json));
}

/** Adds one to the f32 element `element` of the first tensor of a safetensors file. */
export async function spoil(path: string, element: number): Promise<void> {
  const bytes = await readFile(path);
  const at = 8 + Number(bytes.readBigUInt64LE(0)) + 4 * element;
  bytes.writeFloatLE(bytes.readFloatLE(at) + 1, at);
  await rm(path);
  await writeFile(path, bytes);
}
