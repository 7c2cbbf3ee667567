// lomo train and lomo resume: a run from its YAML to its checkpoint.
import { readRun } from '../yaml.ts';
import { onInterrupt } from '../interrupt.ts';
import { screen as openScreen } from '../screen.ts';
import { driveRun, openRun, resumeRun, showSession } from './run.ts';
import type { TraceFlags } from './tracing.ts';
import { tracing } from './tracing.ts';

/** Exit code of a run that was stopped and saved: what a shell gives SIGINT. */
const interruptedCode = 130;

/** Trains `path` with `overrides` on top of its settings; resumes from the newest checkpoint of its output folder unless told not to. */
export async function train(path: string, overrides: Readonly<Record<string, unknown>>, flags: TraceFlags = {}): Promise<void> {
  const screen = openScreen();
  const parsed = await readRun(path, overrides);
  using interrupt = onInterrupt(() => screen.line('  stopping after this step and saving; once more to stop at once'));
  const { session, description } = await openRun(parsed, screen);
  try {
    await showSession(session, description, screen);
    await resumeRun(session, screen);
    if (session.done >= session.steps) {
      screen.line(`  nothing to do: all ${session.steps} steps are done`);
      return;
    }
    const before = session.done === 0 ? await session.evaluate() : null;
    if (before !== null) screen.line(`  held-out loss before: ${before.toFixed(4)}`);
    const traced = await tracing(session, flags);
    const saved = await driveRun(session, screen, interrupt.signal);
    if (traced !== null) screen.line(`  ${traced.line()}`);
    const after = await session.evaluate();
    if (after !== null) screen.line(`  held-out loss after: ${after.toFixed(4)}`);
    if (saved !== null) {
      const stopped = session.done < session.steps;
      screen.line(`\n  ${stopped ? `stopped at step ${session.done} of ${session.steps}, saved` : 'done, the model is'} ${saved}`);
      const plugins = session.config.plugins.map((name) => ` --plugin ${name}`).join('');
      screen.line(`  next: ${stopped ? `lomo train ${path}` : `lomo generate ${saved}${plugins} --prompt "..."`}`);
    }
    if (interrupt.signal.aborted) process.exitCode = interruptedCode;
  } finally {
    await session.close();
  }
}
