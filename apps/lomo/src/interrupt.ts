// Ctrl-C and SIGTERM: the first asks the run to stop at the next whole step and save, the second ends the process at once.

export interface Interrupt extends Disposable {
  readonly signal: AbortSignal;
}

/** Listens until disposed. `onFirst` tells the person what is happening. */
export function onInterrupt(onFirst: () => void): Interrupt {
  const controller = new AbortController();
  const listen = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(name === 'SIGINT' ? 130 : 143);
    onFirst();
    controller.abort();
  };
  process.on('SIGINT', listen);
  process.on('SIGTERM', listen);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      process.off('SIGINT', listen);
      process.off('SIGTERM', listen);
    },
  };
}
