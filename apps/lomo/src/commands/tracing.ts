// `--trace FILE`: some steps of a run as a Chrome trace.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { LomoError } from '@lomo/tensor';
import type { TraceFacts } from '@lomo/tensor';
import type { Session } from '@lomo/trainer';

/** The flags as the command line has read them. */
export interface TraceFlags {
  readonly trace?: string;
  readonly traceSteps?: { readonly from: number; readonly to: number };
}

/**
 * Makes the session trace what the flags ask for; null where they ask for nothing. The file is made now, empty, and its folder if need be,
 * so that one that cannot be written stops the run before step 1. Throws FileError.
 */
export async function tracing(session: Session, { trace, traceSteps }: TraceFlags): Promise<{ line(): string } | null> {
  if (trace === undefined) return null;
  const path = resolve(trace);
  const named = async (body: () => Promise<unknown>): Promise<void> => {
    await body().catch((error: Error) => {
      throw new LomoError('FileError', `--trace ${path}: ${error.message}; give a file that can be written`, { path }, error);
    });
  };
  const write = (text: string): Promise<void> => named(() => writeFile(path, text));
  await named(() => mkdir(dirname(path), { recursive: true }));
  await write('');
  let last: TraceFacts | null = null;
  let failure: string | null = null;
  session.program.watch({
    steps: traceSteps ?? null,
    write: async (json, facts) => {
      await write(json);
      last = facts;
    },
    failed: (error) => {
      failure = error instanceof Error ? error.message : String(error);
    },
  });
  return {
    line: () => {
      if (failure !== null) return `tracing ended early: ${failure}`;
      if (last === null) return `--trace ${path}: nothing was traced, for no such step ran: ${session.done} of ${session.steps} steps are done; --trace-steps names one that is to come`;
      const { steps, launches, lost } = last;
      return `traced ${steps.length === 1 ? `step ${steps[0]!}` : `steps ${steps[0]!} to ${steps.at(-1)!}`}, ${launches} launches${lost === 0 ? '' : ` (${lost} older pieces of work did not fit)`}: ${path}; open it in ui.perfetto.dev or chrome://tracing`;
    },
  };
}
