// Worker processes that hold a tokenizer each: loading and encoding never block the event loop, and a job that runs away, or takes all memory, ends
// its worker and nothing else.
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { DataError } from '../errors.ts';
import type { DataErrorCode } from '../errors.ts';
import type { Request, Response, TokenizerFacts } from './engine-types.ts';

type Job =
  | { readonly kind: 'encode'; readonly texts: readonly string[]; readonly specialTokens: boolean }
  | { readonly kind: 'decode'; readonly rows: readonly (readonly number[])[]; readonly skipSpecialTokens: boolean };

type Answer = Extract<Response, { kind: 'ids' | 'texts' }>;

interface Pending {
  readonly request: Request;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

interface Member {
  readonly child: ChildProcess;
  readonly ready: Promise<TokenizerFacts>;
  current: Pending | null;
  timer: NodeJS.Timeout | null;
  up: boolean;
}

/** Milliseconds that loading may take; GPT-2 takes 300. */
const loadMs = 120_000;

/** Exit status of a Node process that an abort ended, where a shell or a container makes a number of the signal. */
const outOfMemory = 134;

/** How a pool runs. */
export interface PoolOptions {
  readonly threads: number;
  /** Milliseconds that each job may take. */
  readonly budgetMs: number;
  /** Heap of each worker, in MiB. */
  readonly heapMb: number;
}

/**
 * A pool of at most `threads` workers, started as work arrives. A job that takes longer than `budgetMs` fails with TokenizerTimeout and its
 * worker ends; one that takes more than `heapMb` fails with TokenizerWorker.
 */
export class TokenizerPool {
  private readonly folder: string;
  private readonly limit: number;
  private readonly budgetMs: number;
  private readonly heapMb: number;
  private readonly members = new Set<Member>();
  private readonly queue: Pending[] = [];
  private nextId = 0;
  private closed = false;

  constructor(folder: string, { threads, budgetMs, heapMb }: PoolOptions) {
    this.folder = folder;
    this.limit = threads;
    this.budgetMs = budgetMs;
    this.heapMb = heapMb;
  }

  /** Starts the first worker and tells what it loaded. */
  facts(): Promise<TokenizerFacts> {
    const [first] = this.members;
    return (first ?? this.start()).ready;
  }

  /** Runs one job on a free worker. */
  run(job: Job): Promise<Answer> {
    if (this.closed) return Promise.reject(new DataError('TokenizerClosed', `tokenizer of ${this.folder} is closed; open it again with openTokenizer`));
    this.nextId += 1;
    const request: Request = { id: this.nextId, ...job };
    return new Promise((resolve, reject) => {
      this.queue.push({ request, resolve, reject });
      if (this.members.size < Math.min(this.limit, this.queue.length + this.busy())) this.start();
      this.dispatch();
    });
  }

  /** Ends the workers; jobs still waiting reject with TokenizerClosed. */
  async close(): Promise<void> {
    this.closed = true;
    const error = new DataError('TokenizerClosed', `tokenizer of ${this.folder} was closed before this job ended`);
    for (const waiting of this.queue.splice(0)) waiting.reject(error);
    await Promise.all([...this.members].map((member) => this.end(member, error)));
  }

  private busy(): number {
    let n = 0;
    for (const member of this.members) if (member.current !== null) n += 1;
    return n;
  }

  private start(): Member {
    // No standard streams: what a process that runs out of memory prints helps nobody.
    const child = fork(fileURLToPath(new URL('./worker.js', import.meta.url)), [this.folder], { serialization: 'advanced', execArgv: [`--max-old-space-size=${this.heapMb}`], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    let settle: { resolve: (facts: TokenizerFacts) => void; reject: (error: Error) => void } | null = null;
    const ready = new Promise<TokenizerFacts>((resolve, reject) => { settle = { resolve, reject }; });
    ready.catch(() => undefined);   // the jobs carry this error too; without a listener Node would end the process
    const member: Member = { child, ready, current: null, timer: null, up: false };
    this.members.add(member);
    const fail = (error: Error): void => {
      settle?.reject(error);
      if (!member.up) for (const waiting of this.queue.splice(0)) waiting.reject(error);
      void this.end(member, error);
      // The other jobs are not to wait for a worker that is gone.
      if (this.queue.length > 0 && !this.closed) this.start();
    };
    member.timer = setTimeout(() => fail(new DataError('TokenizerTimeout', `tokenizer of ${this.folder}: loading took over ${loadMs} ms and was ended; the tokenizer is hostile or broken`)), loadMs);
    child.on('error', (cause) => {
      if (this.members.has(member)) fail(new DataError('TokenizerWorker', `tokenizer of ${this.folder}: its worker failed (${cause.message}); open the tokenizer again`, {}, cause));
    });
    child.on('exit', (code, signal) => {
      const why = signal === 'SIGABRT' || code === outOfMemory ? `took over ${this.heapMb} MiB and was ended: the text is very long, or the tokenizer hostile or broken; or raise heapMb` : `ended with ${signal ?? code ?? 'nothing'}; open the tokenizer again`;
      if (this.members.has(member)) fail(new DataError('TokenizerWorker', `tokenizer of ${this.folder}: its worker ${why}`, { code, signal }));
    });
    child.on('message', (message) => {
      const response = message as Response;
      if (response.kind === 'ready') {
        member.up = true;
        settle?.resolve(response.facts);
        this.release(member);
        this.dispatch();
        return;
      }
      if (response.kind === 'failed' && response.id === null) {
        fail(new DataError(codeOf(response.code), response.message));
        return;
      }
      const { current } = member;
      if (current === null || current.request.id !== response.id) return;
      this.release(member);
      if (response.kind === 'failed') current.reject(new DataError(codeOf(response.code), response.message));
      else current.resolve(response);
      this.dispatch();
    });
    return member;
  }

  private dispatch(): void {
    for (const member of this.members) {
      if (!member.up || member.current !== null) continue;
      const next = this.queue.shift();
      if (next === undefined) return;
      member.current = next;
      hold(member.child, true);
      member.timer = setTimeout(() => {
        void this.end(member, new DataError('TokenizerTimeout', `tokenizer of ${this.folder}: a job took over ${this.budgetMs} ms and was ended; look for a very long text without a break, or raise budgetMs`));
        if (this.queue.length > 0) this.start();
      }, this.budgetMs);
      // Where the worker is gone, 'exit' says so.
      member.child.send(next.request, () => undefined);
    }
  }

  private release(member: Member): void {
    if (member.timer !== null) clearTimeout(member.timer);
    member.timer = null;
    member.current = null;
    hold(member.child, false);
  }

  private async end(member: Member, error: Error): Promise<void> {
    this.members.delete(member);
    const { current } = member;
    this.release(member);
    current?.reject(error);
    const { child } = member;
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    const ended = once(child, 'exit');
    // The event is what is waited for, so the process is to be held until it comes.
    child.ref();
    child.kill('SIGKILL');
    await ended;
  }
}

/** Whether a worker keeps this process alive. */
function hold(child: ChildProcess, on: boolean): void {
  if (on) child.ref();
  else child.unref();
  // What Node calls the channel has both, whatever its type says.
  const channel = child.channel as { ref?: () => void; unref?: () => void } | null | undefined;
  if (on) channel?.ref?.();
  else channel?.unref?.();
}

const workerCodes: readonly DataErrorCode[] = ['BadTokenizer', 'UnsupportedTokenizer', 'TokenOutOfRange', 'TokenizerOutput', 'TokenizerWorker'];

/** The code of an engine's error, TokenizerWorker where it is none of this package's. */
export function codeOf(code: string): DataErrorCode {
  return workerCodes.find((known) => known === code) ?? 'TokenizerWorker';
}
