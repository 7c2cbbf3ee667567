// Ctrl-C and SIGTERM. Where nothing would be lost, the first one ends the process; while a run trains, it asks for a checkpoint first. A second
// one ends the process at once, whatever it is in.

/** The signals that are listened to, and what a shell calls the exit of a process that each has ended. */
const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const;
type Name = keyof typeof exitCodes;
const names = Object.keys(exitCodes) as readonly Name[];

/** Milliseconds within which another signal than the first is a wrapper's, not a person's: `pnpm exec` sends SIGTERM after Ctrl-C. */
const echo = 1000;

export interface Interrupt extends Disposable {
  /** Aborted by a signal that found something to save. */
  readonly signal: AbortSignal;
  /** What the process is to exit with: 130 after SIGINT, 143 after SIGTERM, 0 where none came. */
  readonly exitCode: number;
  /** From now on nothing would be lost: a first signal calls `say` and ends the process. */
  leaves(say: () => void): void;
  /** From now on something would be: a first signal calls `say` and aborts `signal`. */
  saves(say: () => void): void;
  /** What is given back before a first signal ends the process; a second one does not wait for it. */
  gives(back: () => Promise<void>): void;
}

/** Listens until disposed; a first signal ends the process until `saves` is called. */
export function onInterrupt(say: () => void): Interrupt {
  const controller = new AbortController();
  let received: Name | null = null;
  let at = 0;
  let saving = false;
  let giveBack: (() => Promise<void>) | null = null;
  const quiet = (): void => {
    for (const name of names) process.off(name, listen);
  };
  const listen = (name: NodeJS.Signals): void => {
    const again = received !== null;
    if (again && name !== received && performance.now() - at < echo) return;
    received = name === 'SIGTERM' ? 'SIGTERM' : 'SIGINT';
    if (again) {
      // Exiting would wait for the kernel that is running; the signal's own effect does not.
      quiet();
      process.kill(process.pid, received);
      return;
    }
    at = performance.now();
    say();
    if (saving) {
      controller.abort();
      return;
    }
    const leave = (code = exitCodes[received ?? 'SIGINT']): void => {
      quiet();
      process.exit(code);
    };
    if (giveBack === null) leave();
    else void giveBack().then(() => leave(), () => leave());
  };
  for (const name of names) process.on(name, listen);
  return {
    signal: controller.signal,
    get exitCode() {
      return received === null ? 0 : exitCodes[received];
    },
    leaves: (next) => {
      saving = false;
      say = next;
    },
    saves: (next) => {
      saving = true;
      say = next;
    },
    gives: (back) => {
      giveBack = back;
    },
    [Symbol.dispose]: quiet,
  };
}
