// Checks a golden folder: finds its sections, runs them one after another, and says what of the folder is not checked.
import { isLomoError } from '@lomo/tensor';
import { families } from './cases/families.ts';
import { philoxWords } from './cases/philox.ts';
import { rounding } from './cases/rounding.ts';
import { rules } from './cases/rules.ts';
import { rulesBf16 } from './cases/rulesBf16.ts';
import { runFolders } from './cases/runFolder.ts';
import { schedules } from './cases/schedules.ts';
import { tokenizers } from './cases/tokenizers.ts';
import type { Engine } from './engine.ts';
import type { Elsewhere } from './folder.ts';
import { GoldenFolder } from './folder.ts';
import { Judge } from './judge.ts';
import type { Row } from './row.ts';
import { failed, skipped } from './row.ts';
import type { Section } from './section.ts';

const discoverers = [families, rules, rulesBf16, rounding, philoxWords, schedules, tokenizers, runFolders];
const knownNumbers = new Set(['bf16.json', 'f16.json', 'philox4x32_10.json', 'schedules.json']);

export interface CheckOptions {
  readonly engine: Engine;
  readonly elsewhere: Elsewhere;
  /** Most updates of a trajectory; Infinity for all. */
  readonly steps: number;
}

/** The rows of the folder at `root`, as they are found. A section that throws ends in a missed row with its error. */
export async function* checkFolder(root: string, { engine, elsewhere, steps }: CheckOptions): AsyncGenerator<Row> {
  const folder = new GoldenFolder(root, elsewhere);
  const context = { folder, engine, steps, judge: new Judge(engine.name === 'reference' ? 'float64' : 'float32') };
  for (const discover of discoverers) for (const section of discover(folder)) yield* guarded(section, context);
  yield* strangers(folder);
}

async function* guarded(section: Section, context: Parameters<Section['rows']>[0]): AsyncGenerator<Row> {
  try {
    yield* section.rows(context);
  } catch (error) {
    // A poisoned backend fails everything after it: better to end here than to blame each case.
    if (isLomoError(error, 'BackendClosed')) throw error;
    yield failed(`${section.name}/error`, error instanceof Error ? error.message : String(error));
  }
}

/** True of a folder that holds nothing but what this repository made itself: it lacks every other part by design. */
function isFixture(folder: GoldenFolder): boolean {
  return folder.folders().length > 0 && folder.folders().every((name) => name === 'rules_bf16');
}

/** Parts of the layout that are absent, and parts that no section knows. */
async function* strangers(folder: GoldenFolder): AsyncGenerator<Row> {
  if (isFixture(folder)) return;
  for (const part of ['models', 'rules', 'numbers', 'tokenizers']) if (!folder.has(part)) yield skipped(part, 'not in the folder');
  if (folder.has('rules') && !folder.has('rules', 'rules.json')) yield skipped('rules', 'rules.json is not in the folder');
  for (const file of folder.files('numbers')) if (!knownNumbers.has(file)) yield skipped(`numbers/${file}`, 'no check reads this file');
  if (folder.has('numbers')) for (const file of knownNumbers) if (!folder.has('numbers', file)) yield skipped(`numbers/${file}`, 'not in the folder');
  const others = folder.folders().filter((name) => !['models', 'rules', 'rules_bf16', 'numbers', 'tokenizers', '__pycache__'].includes(name));
  for (const name of others) if (!folder.has(name, 'batches.json')) yield skipped(name, 'it has no batches.json, so that nothing in it can be run');
  if (!others.some((name) => folder.has(name, 'batches.json'))) yield skipped('runs', 'no folder with a batches.json');
}
