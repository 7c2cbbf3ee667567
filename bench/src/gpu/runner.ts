// Runs measurements as processes of their own that say what they find line by line, within the seconds there are.
import { spawn } from 'node:child_process';

export interface Ran {
  readonly how: 'done' | 'out of time' | 'failed';
  /** The program's last words, where it failed. */
  readonly words: string;
  readonly seconds: number;
}

export interface RunOptions {
  readonly seconds: number;
  readonly env?: NodeJS.ProcessEnv;
  /** Hears every line of JSON, as it comes. */
  readonly heard: (line: unknown) => void;
}

/** Room for what a killed process printed last. */
const kept = 4000;
/** setTimeout takes no more. */
const longest = 2 ** 31 - 1;

/** Runs a program; its lines of standard output that are JSON objects are heard. Never rejects; the program is ended after `seconds`. */
export function runLines([file, ...args]: readonly [string, ...string[]], { seconds, env, heard }: RunOptions): Promise<Ran> {
  return new Promise((resolve) => {
    const start = performance.now();
    // In this process's own group: whoever ends this one ends them all, and no GPU stays taken.
    const child = spawn(file, args, { env: env ?? process.env, stdio: ['ignore', 'pipe', 'pipe'] });
    let [rest, words, late] = ['', '', false];
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, Math.min(longest, seconds * 1000));
    const settle = (how: Ran['how'], why: string): void => {
      clearTimeout(timer);
      resolve({ how, words: why, seconds: (performance.now() - start) / 1000 });
    };
    const take = (line: string): void => {
      const found = objectOf(line);
      if (found === null) words = `${words}${line}\n`.slice(-kept);
      else heard(found);
    };
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = `${rest}${text}`.split('\n');
      rest = lines.pop() ?? '';
      lines.forEach(take);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => void (words = `${words}${text}`.slice(-kept)));
    child.on('error', (error) => settle('failed', error.message));
    // Of a killed program, children may live on and hold its pipes.
    child.on('exit', () => {
      if (late) settle('out of time', `ended after ${seconds.toFixed(0)} s`);
    });
    child.on('close', (code, signal) => {
      if (late) return;
      if (rest !== '') take(rest);
      if (code === 0) settle('done', '');
      else settle('failed', `${code === null ? String(signal) : `status ${code}`}: ${words.trim().split('\n').slice(-12).join('\n')}`);
    });
  });
}

/** A line that is a JSON object; null for any other. */
function objectOf(line: string): unknown {
  if (!line.startsWith('{')) return null;
  try {
    return JSON.parse(line) as unknown;
  } catch {
    return null;
  }
}

/** The seconds a call may take. */
export class Budget {
  private readonly end: number;

  constructor(seconds: number) {
    this.end = performance.now() + seconds * 1000;
  }

  /** Seconds left, less what it takes to write results. */
  get left(): number {
    return Math.max(0, (this.end - performance.now()) / 1000 - 5);
  }
}
