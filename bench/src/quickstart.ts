// bench quickstart: the quickstart's fine-tuning over seeds, learning rates and from random weights: held-out loss and exact match.
import { execFile } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { lastJson, table } from './manners.ts';

const run = promisify(execFile);
const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const cli = join(root, 'apps', 'lomo', 'dist', 'cli.js');
const folder = join(root, 'apps', 'lomo', 'quickstart');
const steps = 800;

interface Judged {
  readonly loss: number;
  readonly exact: number;
  readonly completions: number;
}

function judge(model: string): Promise<Judged> {
  return lastJson<Judged>([process.execPath, cli, 'eval', model, '--data', join(folder, 'test.jsonl'), '--template', '{prompt}{completion}', '--max-seq-length', '64', '--samples', '200', '--json']);
}

/** Prints a row a run; last, how many of the recipe's seeds end at 80 % or more. */
export async function quickstart(): Promise<number> {
  const recipe = { seed: 1, rate: 0.1, init: 'pretrained' };
  const cases = [recipe, { ...recipe, seed: 2 }, { ...recipe, seed: 3 }, { ...recipe, rate: 0.03 }, { ...recipe, rate: 0.3 }, { ...recipe, init: 'random' }];
  const before = await judge(join(folder, 'model'));
  const rows = [['init', 'seed', 'learning rate', 'held-out loss', 'exact match'], ['pretrained', '-', 'not trained', before.loss.toFixed(4), `${before.exact} of ${before.completions}`]];
  let good = 0;
  for (const { seed, rate, init } of cases) {
    const output = mkdtempSync(join(tmpdir(), 'lomo-quickstart-'));
    const flags = { seed, 'learning-rate': rate, init, 'output-dir': output, 'max-steps': steps };
    await run(process.execPath, [cli, 'train', 'finetune.yaml', ...Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)])], { cwd: folder, maxBuffer: 2 ** 26 });
    const after = await judge(join(output, `step-${String(steps).padStart(6, '0')}`));
    if (init === 'pretrained' && rate === recipe.rate && after.exact >= 0.8 * after.completions) good++;
    rows.push([init, String(seed), String(rate), after.loss.toFixed(4), `${after.exact} of ${after.completions}`]);
    process.stderr.write(`${rows.at(-1)!.join('  ')}\n`);
  }
  process.stdout.write(`${table(rows)}\n${good} of 3 seeds of the recipe at 80 % or more\n`);
  return good === 3 ? 0 : 1;
}
