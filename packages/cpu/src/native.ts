// The addon as TypeScript sees it, how it is found, and how its errors become LomoErrors.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { LomoError } from '@lomo/tensor';

/** A library the backend opened at run time. */
export interface Library {
  readonly name: string;
  readonly version: string;
  readonly path: string;
}

/** What the addon says about itself. */
export interface Facts {
  readonly isa: string;
  readonly threads: number;
  readonly libraries: readonly Library[];
}

/** Counts since the backend was made. */
export interface Counters {
  /** Kernels launched. */
  readonly launches: number;
  /** Native allocations of ours while enqueueing or preparing work: queue nodes, staging, cached products. */
  readonly allocations: number;
}

/** One native backend. Launches and workspace queries read the packet it was made with. */
export interface NativeBackend {
  find(name: string, dtypes: readonly number[], ins: number, inouts: number): number;
  attributes(kernel: number): string;
  supported(name: string): string[];
  reserve(place: number, bytes: number): number;
  release(memory: number): void;
  /** The memory's own bytes of a stretch, until it is released. */
  view(memory: number, offset: number, bytes: number): ArrayBuffer | null;
  launch(): number;
  workspace(): number;
  copy(to: number, toOffset: number, from: number, fromOffset: number, bytes: number, queue: number): number;
  write(memory: number, offset: number, bytes: Uint8Array): void;
  read(memory: number, offset: number, bytes: number): Promise<ArrayBuffer>;
  reserved(): number;
  counters(): Counters;
  facts(): Facts;
  /** Commands are timed from now on; milliseconds count from this call. */
  time(capacity: number): void;
  /** [laps lost], then [kind, ticket, start, end] a command, oldest first. Blocks until the queue is empty. */
  timed(): Float64Array;
  drain(): void;
  close(): Promise<void>;
  stop(): void;
}

/** The addon's one export. */
export interface Addon {
  readonly NativeBackend: new (packet: Float64Array, options: { threads: number; isa: string; oneDnn: string }) => NativeBackend;
}

/** Folder of this package, from src/ as from dist/. */
export const packageFolder = fileURLToPath(new URL('..', import.meta.url));

/**
 * Loads the addon: `path` if given; else build/Release of this package; else the prebuilt package of this platform.
 * Throws MissingAddon with every place tried.
 */
export function loadAddon(path?: string): Addon {
  const require = createRequire(import.meta.url);
  const built = `${packageFolder}build/Release/lomo_cpu.node`;
  const prebuilt = `@lomo/cpu-${process.platform}-${process.arch}-gnu`;
  const tried: string[] = [];
  const attempt = (specifier: string): Addon | null => {
    try {
      return require(specifier) as Addon;
    } catch (error) {
      tried.push(`  ${specifier}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
      return null;
    }
  };
  let addon: Addon | null;
  if (path !== undefined) addon = attempt(path);
  else if (existsSync(built)) addon = attempt(built);
  else {
    tried.push(`  ${built}: not there`);
    addon = attempt(prebuilt);
  }
  if (addon === null)
    throw new LomoError('MissingAddon', `@lomo/cpu has no native addon for ${process.platform}-${process.arch}. Compile it: npx @lomo/cpu build (needs cmake, ninja and a C++20 compiler). Tried:\n${tried.join('\n')}`);
  return addon;
}

interface NativeError extends Error {
  readonly code: string;
  readonly at: string;
  readonly op?: string;
  readonly shapes?: string;
}

function isNative(error: unknown): error is NativeError {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' && 'at' in error;
}

/** The LomoError of a native error, naming `op` and its shapes where the error itself does not; anything else as it is. */
export function translate(error: unknown, op = '', shapes = ''): unknown {
  if (!isNative(error)) return error;
  const name = error.op ?? op;
  const met = error.shapes ?? shapes;
  const prefix = name === '' || error.message.startsWith(`${name}: `) ? '' : `${name}: `;
  const suffix = met === '' ? '' : ` (operands ${met})`;
  return new LomoError(error.code, `${prefix}${error.message}${suffix}`, { op: name, shapes: met, at: error.at });
}
