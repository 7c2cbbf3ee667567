// The command: folders in, rows and a summary out, and the status to end with.
import { existsSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArguments, usage } from './arguments.ts';
import { checkFolder } from './check.ts';
import { openEngine } from './engine.ts';
import type { Row } from './row.ts';
import { lineOf, summarise, summaryLine } from './table.ts';

/** What the command needs of the outside. */
export interface World {
  /** Relative folders count from here. */
  readonly cwd: string;
  /** The folder beside this repository with golden/, models/ and tokenizers/. */
  readonly shared: string;
  /** The golden folder this repository made itself. */
  readonly own: string;
  out(text: string): void;
  error(text: string): void;
}

/** Runs the command line `argv`. Returns 0 when every bar was held, 1 when one was missed, 2 when nothing could be checked. */
export async function runCommand(argv: readonly string[], world: World): Promise<0 | 1 | 2> {
  try {
    return await command(argv, world);
  } catch (error) {
    world.error(`golden: ${error instanceof Error ? error.message : String(error)}\n`);
    return 2;
  }
}

async function command(argv: readonly string[], world: World): Promise<0 | 1 | 2> {
  const { folders: given, backend, steps, models, threads, json, help } = parseArguments(argv);
  if (help) {
    world.out(usage);
    return 0;
  }
  const folders = given.length > 0 ? given.map((folder) => resolve(world.cwd, folder)) : [join(world.shared, 'golden'), world.own];
  const absent = folders.find((folder) => !existsSync(folder) || !statSync(folder).isDirectory());
  if (absent !== undefined) throw new Error(`no folder ${absent}; give one laid out like shared/golden`);
  const elsewhere = { models: models.map((folder) => resolve(world.cwd, folder)), shared: existsSync(world.shared) ? world.shared : null };
  const started = performance.now();
  await using engine = await openEngine(backend, threads);
  const found: { readonly folder: string; readonly rows: readonly Row[] }[] = [];
  for (const folder of folders) {
    if (!json) world.out(`${folder}\n`);
    const rows: Row[] = [];
    for await (const row of checkFolder(folder, { engine, elsewhere, steps })) {
      if (!json) world.out(`${lineOf(row)}\n`);
      rows.push(row);
    }
    found.push({ folder, rows });
  }
  const summary = summarise(found.flatMap(({ rows }) => rows));
  const seconds = (performance.now() - started) / 1000;
  if (json) world.out(`${JSON.stringify({ backend, folders: found, summary, seconds }, finite)}\n`);
  else world.out(`${summaryLine(summary, { backend, seconds })}\n`);
  if (summary.missed > 0) return 1;
  if (summary.held === 0) throw new Error(`nothing to check in ${folders.join(', ')}`);
  return 0;
}

/** JSON has no infinity: an infinite error is its name. */
function finite(_key: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isFinite(value) ? String(value) : value;
}
