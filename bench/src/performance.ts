// bench performance: measures where a step's time goes, keeps the results, and writes the measured section of docs/performance.md anew.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { benchFolder } from './manners.ts';
import type { Kept, KeptMemory, KeptOps, KeptProfile, Results } from './markdown.ts';
import { performanceSection, withSection } from './markdown.ts';
import { ops } from './ops.ts';
import type { ProfileOptions } from './profile.ts';
import { profile } from './profile.ts';

export interface PerformanceOptions extends ProfileOptions {
  /** Nothing is measured: the document is written from the results there are. */
  readonly saved: boolean;
}

/** Benches whose last line is told beside the tables; those of `train` and `memory` carry what they were narrowed to in their names. */
const told = ['products', 'ops', 'profile', 'plan'];

/** Runs the bench; returns the exit code. */
export async function performance(options: PerformanceOptions): Promise<number> {
  if (!options.saved) {
    const kept = { ...options, save: true };
    await ops(kept);
    await profile(kept);
  }
  const path = join(benchFolder, '..', 'docs', 'performance.md');
  writeFileSync(path, withSection(readFileSync(path, 'utf8'), performanceSection(newestResults(join(benchFolder, 'results')))));
  process.stdout.write(`${path} is written from bench/results\n`);
  return 0;
}

/** The newest result of every bench in `folder`: `<date>-<name>.json`. */
export function newestResults(folder: string): Results {
  const newest = new Map<string, string>();
  for (const file of existsSync(folder) ? readdirSync(folder).toSorted() : []) {
    const name = /^\d{4}-\d\d-\d\d-(.+)\.json$/.exec(file)?.[1];
    if (name !== undefined) newest.set(name, join(folder, file));
  }
  const read = <T extends Kept>(name: string): T | undefined => {
    const path = newest.get(name);
    return path === undefined ? undefined : (JSON.parse(readFileSync(path, 'utf8')) as T);
  };
  const [profiled, timed] = [read<KeptProfile>('profile'), read<KeptOps>('ops')];
  const beginning = (word: string): readonly string[] => [...newest.keys()].filter((name) => name.split('-')[0] === word).toSorted();
  const memories = beginning('memory');
  return {
    ...(profiled === undefined ? {} : { profile: profiled }),
    ...(timed === undefined ? {} : { ops: timed }),
    memory: memories.flatMap((name) => read<KeptMemory>(name) ?? []),
    figures: [...beginning('train'), ...told, ...memories].flatMap((name) => read<Kept>(name) ?? []),
  };
}
