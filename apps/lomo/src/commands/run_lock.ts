// One run in one output folder: the lock of train, resume and quickstart. What only reads (eval, generate, plan, diff) takes none.
import type { FolderLock, RunConfig } from '@lomo/trainer';
import { lockFolder, rootOf } from '@lomo/trainer';
import type { Interrupt } from '../interrupt.ts';
import type { Screen } from '../screen.ts';

/** Takes the output folder, until it is disposed or a signal ends the process. Null where nothing can be written. Throws FolderInUse. */
export async function lockRun(config: RunConfig, { screen, interrupt }: { readonly screen: Screen; readonly interrupt: Interrupt }): Promise<FolderLock | null> {
  const root = rootOf(config);
  const lock = await lockFolder(root, {
    say: (line) => screen.line(`  ${line}`),
    onLost: () => {
      screen.settle();
      process.stderr.write(`\nlomo: another run has taken ${root} while this one was stopped or could not write there; this one ends and saves nothing more\n`);
      process.exit(1);
    },
  });
  if (lock !== null) interrupt.gives(() => lock.release());
  return lock;
}
