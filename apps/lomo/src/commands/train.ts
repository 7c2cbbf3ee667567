// lomo train and lomo resume: a run from its YAML to its checkpoint.
import type { Session } from '@lomo/trainer';
import { readRun } from '../yaml.ts';
import type { Interrupt } from '../interrupt.ts';
import { screen as openScreen } from '../screen.ts';
import { withCheckpoint } from './gpu_run.ts';
import { Progress } from './progress.ts';
import { driveRun, openRun, resumeRun, showSession } from './run.ts';
import { lockRun } from './run_lock.ts';
import type { TraceFlags } from './tracing.ts';
import { tracing } from './tracing.ts';

export interface TrainFlags extends TraceFlags {
  readonly interrupt: Interrupt;
}

/**
 * Trains `path` with `overrides` on top of its settings; resumes from the newest checkpoint of its output folder unless told not to. A signal
 * that comes before or after the training ends the process; one that comes while it goes on has the last whole step saved first.
 */
export async function train(path: string, overrides: Readonly<Record<string, unknown>>, { interrupt, ...flags }: TrainFlags): Promise<void> {
  const screen = openScreen();
  let phase = 'reading the settings';
  const leave = (outcome: string, next: string): void => {
    screen.settle();
    screen.line(`\n  stopped while ${phase}: ${outcome}`);
    screen.line(`  next: ${next}`);
  };
  interrupt.leaves(() => leave('nothing was trained, nothing is lost', trainCommand(path, overrides)));
  const parsed = await readRun(path, overrides);
  await using _lock = await lockRun(parsed.config, { screen, interrupt });
  const { session, description, memory } = await openRun(parsed, screen, (text) => (phase = text));
  try {
    await showSession(session, description, screen);
    phase = 'loading the checkpoint';
    await resumeRun(session, screen);
    if (session.done >= session.steps) {
      screen.line(`  nothing to do: all ${session.steps} steps are done`);
      return;
    }
    phase = 'evaluating';
    if (session.done === 0 && session.held !== null) screen.line('  evaluating ...');
    const before = session.done === 0 ? await session.evaluate() : null;
    if (before !== null) screen.line(`  held-out loss before: ${before.toFixed(4)}`);
    const traced = await tracing(session, flags);
    const progress = new Progress();
    interrupt.saves(() => screen.line(`  ${progress.stopping}`));
    const saved = await driveRun({ session, memory }, screen, { signal: interrupt.signal, progress });
    const stopped = session.done < session.steps;
    const plugins = session.config.plugins.map((name) => ` --plugin ${name}`).join('');
    const next = stopped ? onwards(path, overrides, { session, saved }) : `lomo generate ${saved ?? session.root}${plugins} --prompt "..."`;
    if (!interrupt.signal.aborted) interrupt.leaves(() => leave(`the model is saved, ${saved}`, next));
    if (traced !== null) screen.line(`  ${traced.line()}`);
    const after = interrupt.signal.aborted ? null : (session.heldOutLoss ?? (await session.evaluate()));
    if (after !== null) screen.line(`  held-out loss after: ${after.toFixed(4)}`);
    screen.line(`\n  ${stopped ? `stopped at step ${session.done} of ${session.steps}, ${saved === null ? 'nothing to save' : `saved ${saved}`}` : `done, the model is ${saved}`}`);
    screen.line(`  next: ${next}`);
    process.exitCode = interrupt.exitCode;
  } catch (error) {
    screen.settle();
    throw await withCheckpoint(error, session, trainCommand(path, overrides));
  } finally {
    await session.close();
  }
}

/** The command that goes on where a run has stopped: with its newest checkpoint, unless the settings say to begin anew. */
function onwards(path: string, overrides: Readonly<Record<string, unknown>>, { session, saved }: { readonly session: Session; readonly saved: string | null }): string {
  const { resume_from_checkpoint: wish } = session.config;
  if (wish === true || saved === null) return trainCommand(path, overrides);
  const { resume_from_checkpoint: _, ...others } = overrides;
  return `lomo resume ${quoted(path)} ${quoted(saved)}${flagsOf(others)}`;
}

/** The command that was given. */
function trainCommand(path: string, overrides: Readonly<Record<string, unknown>>): string {
  const { resume_from_checkpoint: wish, ...others } = overrides;
  if (typeof wish === 'string') return `lomo resume ${quoted(path)} ${quoted(wish)}${flagsOf(others)}`;
  return `lomo train ${quoted(path)}${flagsOf(overrides)}`;
}

function flagsOf(overrides: Readonly<Record<string, unknown>>): string {
  return Object.entries(overrides)
    .map(([name, value]) => ` --${name.replaceAll('_', '-')} ${quoted(typeof value === 'string' ? value : JSON.stringify(value))}`)
    .join('');
}

/** As a shell takes it for one word. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
