// The built `lomo` command in a process of its own: what it prints, where it is, signals for it. And a run.yaml for it.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dataFile, modelFolder } from './folder.ts';

/** apps/lomo/dist/cli.js, which a build makes. */
export const cli = fileURLToPath(new URL('../../apps/lomo/dist/cli.js', import.meta.url));

/** How a process ended. `code` is null where a signal ended it. */
export interface Outcome {
  readonly code: number | null;
  readonly signal: string | null;
  readonly out: string;
  readonly err: string;
}

/** A process under way. */
export interface Running {
  /** Printed so far. */
  readonly out: string;
  readonly ended: Promise<Outcome>;
  /** Where it runs. */
  readonly cwd: string;
  /** Seconds that its threads have waited for a processor so far, of those that waited longest; 0 when it has ended. */
  waited(): number;
  kill(signal: 'SIGINT' | 'SIGTERM' | 'SIGKILL'): void;
  /** Resolves true as soon as `check` holds, looked at every few milliseconds, and false when the process ends without. */
  until(check: () => boolean): Promise<boolean>;
}

export interface CommandOptions {
  readonly cwd?: string;
  /** Variables beside this process's. */
  readonly env?: Readonly<Record<string, string>>;
  /** Flags of Node itself. */
  readonly node?: readonly string[];
}

/** Starts `lomo args` in `cwd`. */
export function start(args: readonly string[], options: CommandOptions = {}): Running {
  const cwd = options.cwd ?? tmpdir();
  const child = spawn(process.execPath, [...(options.node ?? []), cli, ...args], { cwd, env: { ...process.env, ...options.env }, stdio: ['ignore', 'pipe', 'pipe'] });
  let [out, err, over] = ['', '', false];
  child.stdout.on('data', (data: Buffer) => (out += data.toString()));
  child.stderr.on('data', (data: Buffer) => (err += data.toString()));
  const ended = new Promise<Outcome>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      over = true;
      resolve({ code, signal, out, err });
    });
  });
  return {
    get out() {
      return out;
    },
    ended,
    cwd,
    waited: () => waitedFor(child.pid),
    kill: (signal) => void child.kill(signal),
    until: async (check) => {
      for (;;) {
        if (check()) return true;
        if (over) return false;
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    },
  };
}

/** The second number of a thread's schedstat: nanoseconds on a run queue. */
function waitedFor(pid: number | undefined): number {
  try {
    const tasks = `/proc/${pid}/task`;
    return Math.max(...readdirSync(tasks).map((task) => Number(readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[1]))) / 1e9;
  } catch {
    return 0;
  }
}

/** `lomo args`, from its start to its end. */
export function lomo(args: readonly string[], options: CommandOptions = {}): Promise<Outcome> {
  return start(args, options).ended;
}

/** A folder with a run.yaml: the tiny model and data, `settings` on top. */
export function runFile(settings: Readonly<Record<string, unknown>> = {}): { readonly folder: string; readonly path: string } {
  const folder = mkdtempSync(join(tmpdir(), 'lomo-cli-'));
  const all = {
    model_name_or_path: settings['model_name_or_path'] ?? modelFolder(), init: 'random', datasets: settings['datasets'] ?? [{ path: dataFile() }], max_seq_length: 16, per_device_train_batch_size: 4,
    gradient_accumulation_steps: 1, max_steps: 8, optim: 'lomo', learning_rate: 0.1, clip_mode: 'none', threads: 1, ...settings,
  };
  const path = join(folder, 'run.yaml');
  writeFileSync(path, Object.entries(all).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join('\n'));
  return { folder, path };
}
