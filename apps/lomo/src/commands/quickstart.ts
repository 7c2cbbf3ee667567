// lomo quickstart: the small model that comes with lomo, fine-tuned on an instruction set it cannot follow before.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Session } from '@lomo/trainer';
import type { BackendName } from '../backends.ts';
import type { Interrupt } from '../interrupt.ts';
import { bytes, count, duration, percent, screen as openScreen } from '../screen.ts';
import type { Screen } from '../screen.ts';
import { readRun } from '../yaml.ts';
import { Progress } from './progress.ts';
import { driveRun, openRun, resumeRun, showSession } from './run.ts';
import { lockRun } from './run_lock.ts';

/** Completions shown before and after. */
const shownSamples = 3;
/** Completions compared for the exact match. */
const comparedSamples = 200;

/** The folder with recipe, data and model, beside this package's code. */
export const quickstartFolder = join(dirname(fileURLToPath(import.meta.url)), '..', 'quickstart');

export interface QuickstartFlags {
  readonly threads?: number;
  readonly backend: BackendName;
  /** Which GPU, with backend cuda. */
  readonly gpu?: number;
  readonly outputDir: string;
  readonly interrupt: Interrupt;
}

/** Trains and shows the point: held-out loss and exact match before and after. A finished run is shown again, not trained again. */
export async function quickstart(flags: QuickstartFlags): Promise<void> {
  const screen = openScreen();
  const { interrupt } = flags;
  interrupt.leaves(() => {
    screen.settle();
    screen.line('\n  stopped; `lomo quickstart` begins again, or goes on from its last checkpoint');
  });
  const { config, ...notes } = await readRun(join(quickstartFolder, 'finetune.yaml'), {
    output_dir: flags.outputDir,
    ...(flags.threads === undefined ? {} : { threads: flags.threads }),
    backend: flags.backend,
    ...(flags.gpu === undefined ? {} : { gpu: flags.gpu }),
  });
  // The recipe names its files as they lie beside it.
  const beside = <T extends { readonly path: string }>(source: T): T => ({ ...source, path: join(quickstartFolder, source.path) });
  const parsed = {
    ...notes,
    config: {
      ...config,
      model_name_or_path: join(quickstartFolder, config.model_name_or_path),
      datasets: config.datasets.map(beside),
      eval_datasets: config.eval_datasets.map(beside),
    },
  };
  await using _lock = await lockRun(parsed.config, { screen, interrupt });
  const { session, description, memory } = await openRun(parsed, screen);
  try {
    await showSession(session, description, screen);
    const before = await judge(session, screen, 'before');
    await resumeRun(session, screen);
    const start = performance.now();
    const progress = new Progress();
    interrupt.saves(() => screen.line(`  ${progress.stopping}`));
    if (session.done < session.steps) await driveRun({ session, memory }, screen, { signal: interrupt.signal, progress });
    if (interrupt.signal.aborted) {
      screen.line(`  stopped at step ${session.done} of ${session.steps}; \`lomo quickstart\` goes on from there`);
      process.exitCode = interrupt.exitCode;
      return;
    }
    interrupt.leaves(() => screen.line('\n  stopped; the model is saved, and `lomo quickstart` shows it again'));
    const seconds = (performance.now() - start) / 1000;
    const after = await judge(session, screen, 'after');
    const { arena } = session.assembly.device;
    screen.line(`  trained ${count(session.trainedTokens)} tokens in ${duration(seconds)}; held-out loss ${before.loss} -> ${after.loss}, exact match ${before.exact} -> ${after.exact}`);
    screen.line(`  memory ${bytes(arena.extent)} as planned, ${bytes(arena.usage.weights.peak)} of it weights; no optimizer state\n`);
    const folder = join(session.root, `step-${String(session.steps).padStart(6, '0')}`);
    screen.line(`  the model is a Hugging Face folder: ${folder}`);
    const sample = session.train.at(0);
    const prompt = await session.tokenizer.decode(sample.ids.subarray(0, sample.trained.indexOf(1)), { skipSpecialTokens: true });
    screen.line(`  next: npx lomo generate ${folder} --prompt ${JSON.stringify(prompt)}`);
  } finally {
    await session.close();
  }
}

async function judge(session: Session, screen: Screen, title: 'before' | 'after'): Promise<{ loss: string; exact: string }> {
  const loss = await session.evaluate();
  let [done, exact] = [0, 0];
  screen.line(`  ${title}: held-out completions`);
  for await (const { prompt, expected, written, exact: same } of session.complete(comparedSamples)) {
    done++;
    if (same) exact++;
    if (done <= shownSamples) screen.line(`    ${prompt.trimEnd().split('\n').join('\n    ')}\n      expected ${JSON.stringify(expected.trim())}\n      written  ${JSON.stringify(written.trim())}${same ? '' : '  (differs)'}`);
    screen.live(`    ${exact} of ${done} exact`);
  }
  screen.settle();
  const result = { loss: (loss ?? NaN).toFixed(4), exact: `${percent(done === 0 ? 0 : exact / done)}` };
  screen.line(`  ${title}: held-out loss ${result.loss}, exact match ${result.exact} (${exact} of ${done})\n`);
  return result;
}
