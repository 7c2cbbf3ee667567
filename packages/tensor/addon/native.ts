// A native addon as TypeScript sees it (native/lomo/verbs.h is its other side), how it is found, and how its errors become LomoErrors.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { LomoError } from '../src/index.ts';

/** A library the backend opened at run time. */
export interface Library {
  readonly name: string;
  readonly version: string;
  readonly path: string;
}

/** Counts since the backend was made. */
export interface Counters {
  /** Kernels launched. */
  readonly launches: number;
  /** Native allocations of ours while enqueueing or preparing work: queue nodes, staging, cached products. */
  readonly allocations: number;
}

/** The verbs every addon exports. Launches and workspace queries read the packet the backend was made with. */
export interface NativeVerbs {
  find(name: string, dtypes: readonly number[], ins: number, inouts: number): number;
  attributes(kernel: number): string;
  supported(name: string): string[];
  reserve(place: number, bytes: number): number;
  release(memory: number): void;
  /** The memory's own bytes of a stretch, until it is released; null where the host cannot see them. */
  view(memory: number, offset: number, bytes: number): ArrayBuffer | null;
  launch(): number;
  workspace(): number;
  copy(to: number, toOffset: number, from: number, fromOffset: number, bytes: number, queue: number): number;
  /** What is enqueued on `queue` from now on starts after the other's ticket. */
  wait(queue: number, other: number, ticket: number): void;
  write(memory: number, offset: number, bytes: Uint8Array): void;
  read(memory: number, offset: number, bytes: number): Promise<ArrayBuffer>;
  /** Once the queue's work up to the ticket is done. */
  reached(queue: number, ticket: number): Promise<void>;
  /** Measures what the device chooses by measurement, in that scratch. */
  tune(memory: number, offset: number, bytes: number): Promise<void>;
  /** What it chose so far, null where it chooses nothing; and what it chose in an earlier run. */
  algorithms(): unknown;
  adopt(chosen: unknown): void;
  reserved(): number;
  counters(): Counters;
  /** Commands are timed from now on; milliseconds count from this call. */
  time(capacity: number): void;
  /** [laps lost], then [kind, ticket, start, end] a command, oldest first. Blocks until the queue is empty. */
  timed(): Float64Array;
  drain(): void;
  close(): Promise<void>;
  stop(): void;
}

/** Where an addon may be. */
export interface AddonPlace {
  /** The package that has it: '@lomo/cpu'. */
  readonly name: string;
  /** That package's folder. */
  readonly folder: string;
  /** Its file in build/Release: 'lomo_cpu.node'. */
  readonly file: string;
  /** What compiles it, and what that needs. */
  readonly advice: string;
  /** A file built elsewhere, instead of all others. */
  readonly path?: string;
}

/** Loads an addon: `path` if given; else build/Release of its package; else the prebuilt package of this platform. Throws MissingAddon with every place tried. */
export function loadAddon<A>({ name, folder, file, advice, path }: AddonPlace): A {
  const require = createRequire(import.meta.url);
  const built = join(folder, 'build', 'Release', file);
  const tried: string[] = [];
  const attempt = (load: NodeJS.Require, specifier: string): A | null => {
    try {
      return load(specifier) as A;
    } catch (error) {
      tried.push(`  ${specifier}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
      return null;
    }
  };
  let addon: A | null;
  if (path !== undefined) addon = attempt(require, path);
  else if (existsSync(built)) addon = attempt(require, built);
  else {
    tried.push(`  ${built}: not there`);
    // A dependency of the addon's package, not of this one.
    addon = attempt(createRequire(join(folder, 'package.json')), `${name}-${process.platform}-${process.arch}-gnu`);
  }
  if (addon === null) throw new LomoError('MissingAddon', `${name} has no native addon for ${process.platform}-${process.arch}. Compile it: ${advice}. Tried:\n${tried.join('\n')}`);
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

/** Runs one native call; its error is thrown translated. */
export function guarded<T>(verb: () => T): T {
  try {
    return verb();
  } catch (error) {
    throw translate(error);
  }
}
