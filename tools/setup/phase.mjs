// Runs one named phase of the set-up or of the tests: a log file, live progress, one line with its time, the log's tail on failure.
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Absolute path of the repository. */
export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
/** Where stamps, logs and the pnpm shim live; removed together with node_modules. */
export const cache = join(root, 'node_modules', '.cache', 'lomo');

/** A phase that failed: `message` is one sentence; `log` is the path of the full output, when there is one. */
export class PhaseFailed extends Error {
  constructor(message, log) {
    super(message);
    this.code = 'PHASE_FAILED';
    this.log = log;
  }
}

/** The environment every child gets: no prompts, no telemetry, none of what an outer `npm test` leaves behind. */
export function childEnvironment(extra = {}) {
  const inherited = Object.entries(process.env).filter(([name]) => !/^npm_(package|lifecycle|command|execpath|node_execpath|config_(local_prefix|prefix|user_agent|globalconfig|global_prefix|noproxy|npm_version))/.test(name));
  return {
    ...Object.fromEntries(inherited),
    COREPACK_ENABLE_DOWNLOAD_PROMPT: '0', TURBO_TELEMETRY_DISABLED: '1', DO_NOT_TRACK: '1', NO_UPDATE_NOTIFIER: '1', NO_COLOR: '1', ...extra,
  };
}

/** Runs `command`, its output going to the phase's log. Resolves to `{ status, log, text }`; `progress(line)` hears every line. */
export function runLogged(name, command, options = {}) {
  mkdirSync(join(cache, 'logs'), { recursive: true });
  const log = join(cache, 'logs', `${name.replaceAll(/[^\w.-]+/g, ' ').trim().replaceAll(' ', '-')}.log`);
  const file = openSync(log, 'w');
  const [program, ...args] = command;
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd: options.cwd ?? root, env: childEnvironment(options.env), stdio: ['ignore', 'pipe', 'pipe'] });
    const listen = (stream) => {
      let rest = '';
      stream.setEncoding('utf8');
      stream.on('data', (text) => {
        writeSync(file, text);
        const lines = (rest + text).split(/\r?\n|\r/);
        rest = lines.pop() ?? '';
        for (const line of lines) options.progress?.(line);
      });
    };
    listen(child.stdout);
    listen(child.stderr);
    let ended = false; // a program that cannot be started reports 'error' and then 'close'
    const finish = (status, note) => {
      if (ended) return;
      ended = true;
      if (note !== '') writeSync(file, `${note}\n`);
      closeSync(file);
      resolve({ status, log, text: readFileSync(log, 'utf8') });
    };
    child.once('error', (error) => finish(127, String(error)));
    child.once('close', (code, signal) => finish(code ?? 1, signal === null ? '' : `ended by ${signal}`));
  });
}

/** Prints a phase's name at once, its progress while it runs, and its time when it ends. `body(say)` returns a note to print, or ''. */
export async function phase(name, body, options = {}) {
  const started = performance.now();
  const seconds = () => `${((performance.now() - started) / 1000).toFixed(1)} s`;
  const terminal = process.stdout.isTTY === true;
  let spoken = performance.now();
  const say = (line) => {
    const short = line.trim().slice(0, 90);
    if (short === '') return;
    if (terminal) process.stdout.write(`\r\x1b[2K  ${name.padEnd(22)} ${seconds().padStart(8)}  ${short}`);
    else if (performance.now() - spoken > 15_000) {
      spoken = performance.now();
      process.stdout.write(`    ${name} at ${seconds()}: ${short}\n`);
    }
  };
  if (terminal) process.stdout.write(`  ${name.padEnd(22)} ...`);
  const clear = terminal ? '\r\x1b[2K' : '';
  const spent = () => {
    const over = options.budget !== undefined && performance.now() - started > options.budget * 1000;
    return options.budget === undefined ? seconds() : `${seconds()} of ${options.budget} s${over ? ', OVER BUDGET' : ''}`;
  };
  try {
    const note = await body(say);
    process.stdout.write(`${clear}  ${name.padEnd(22)} ${spent().padStart(16)}  ${note}\n`);
  } catch (error) {
    process.stdout.write(`${clear}  ${name.padEnd(22)} ${spent().padStart(16)}  FAILED\n`);
    throw error;
  }
}

/** As `runLogged`, but a status other than 0 throws `PhaseFailed` saying what was run. */
export async function mustRun(name, command, options = {}) {
  const result = await runLogged(name, command, options);
  if (result.status !== 0) throw new PhaseFailed(`\`${command.join(' ')}\` ended with status ${result.status}`, result.log);
  return result;
}

/** Prints why a phase failed: its sentence, the last 40 lines of its log, and where the whole log is. */
export function explain(error) {
  if (!(error instanceof PhaseFailed)) {
    process.stderr.write(`\n${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    return;
  }
  if (error.log !== undefined) {
    const lines = readFileSync(error.log, 'utf8').trimEnd().split('\n');
    process.stderr.write(`\n${lines.slice(-40).join('\n')}\n\nThe whole log: ${error.log}\n`);
  }
  process.stderr.write(`\n${error.message}\n`);
}
