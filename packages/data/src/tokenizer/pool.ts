// Worker threads that hold a tokenizer each: loading and encoding never block the event loop, and a runaway job is ended, not waited for.
import { Worker } from 'node:worker_threads';
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

interface Thread {
  readonly worker: Worker;
  readonly ready: Promise<TokenizerFacts>;
  current: Pending | null;
  timer: NodeJS.Timeout | null;
  up: boolean;
}

/** Milliseconds that loading may take; GPT-2 takes 300. */
const loadMs = 120_000;

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
 * thread ends; one that takes more than `heapMb` fails with TokenizerWorker.
 */
export class TokenizerPool {
  private readonly folder: string;
  private readonly limit: number;
  private readonly budgetMs: number;
  private readonly heapMb: number;
  private readonly threads = new Set<Thread>();
  private readonly queue: Pending[] = [];
  private nextId = 0;
  private closed = false;

  constructor(folder: string, { threads, budgetMs, heapMb }: PoolOptions) {
    this.folder = folder;
    this.limit = threads;
    this.budgetMs = budgetMs;
    this.heapMb = heapMb;
  }

  /** Starts the first thread and tells what it loaded. */
  facts(): Promise<TokenizerFacts> {
    const [first] = this.threads;
    return (first ?? this.start()).ready;
  }

  /** Runs one job on a free thread. */
  run(job: Job): Promise<Answer> {
    if (this.closed) return Promise.reject(new DataError('TokenizerClosed', `tokenizer of ${this.folder} is closed; open it again with openTokenizer`));
    this.nextId += 1;
    const request: Request = { id: this.nextId, ...job };
    return new Promise((resolve, reject) => {
      this.queue.push({ request, resolve, reject });
      if (this.threads.size < Math.min(this.limit, this.queue.length + this.busy())) this.start();
      this.dispatch();
    });
  }

  /** Ends the threads; jobs still waiting reject with TokenizerClosed. */
  async close(): Promise<void> {
    this.closed = true;
    const error = new DataError('TokenizerClosed', `tokenizer of ${this.folder} was closed before this job ended`);
    for (const waiting of this.queue.splice(0)) waiting.reject(error);
    await Promise.all([...this.threads].map((thread) => this.end(thread, error)));
  }

  private busy(): number {
    let n = 0;
    for (const thread of this.threads) if (thread.current !== null) n += 1;
    return n;
  }

  private start(): Thread {
    const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: { folder: this.folder }, execArgv: [], resourceLimits: { maxOldGenerationSizeMb: this.heapMb } });
    let settle: { resolve: (facts: TokenizerFacts) => void; reject: (error: Error) => void } | null = null;
    const ready = new Promise<TokenizerFacts>((resolve, reject) => { settle = { resolve, reject }; });
    ready.catch(() => undefined);   // the jobs carry this error too; without a listener Node would end the process
    const thread: Thread = { worker, ready, current: null, timer: null, up: false };
    this.threads.add(thread);
    const fail = (error: Error): void => {
      settle?.reject(error);
      if (!thread.up) for (const waiting of this.queue.splice(0)) waiting.reject(error);
      void this.end(thread, error);
      // The other jobs are not to wait for a thread that is gone.
      if (this.queue.length > 0 && !this.closed) this.start();
    };
    thread.timer = setTimeout(() => fail(new DataError('TokenizerTimeout', `tokenizer of ${this.folder}: loading took over ${loadMs} ms and was ended; the tokenizer is hostile or broken`)), loadMs);
    worker.on('error', (cause) => fail(new DataError('TokenizerWorker', `tokenizer of ${this.folder}: its worker thread failed (${cause instanceof Error ? cause.message : String(cause)}); ${isOutOfMemory(cause) ? `a tokenizer may take ${this.heapMb} MiB: it is hostile or broken, or heapMb is to be raised` : 'open the tokenizer again'}`, {}, cause)));
    worker.on('exit', (code) => {
      if (this.threads.has(thread)) fail(new DataError('TokenizerWorker', `tokenizer of ${this.folder}: its worker thread ended with ${code}; open the tokenizer again`));
    });
    worker.on('message', (response: Response) => {
      if (response.kind === 'ready') {
        thread.up = true;
        settle?.resolve(response.facts);
        this.release(thread);
        this.dispatch();
        return;
      }
      if (response.kind === 'failed' && response.id === null) {
        fail(new DataError(codeOf(response.code), response.message));
        return;
      }
      const { current } = thread;
      if (current === null || current.request.id !== response.id) return;
      this.release(thread);
      if (response.kind === 'failed') current.reject(new DataError(codeOf(response.code), response.message));
      else current.resolve(response);
      this.dispatch();
    });
    return thread;
  }

  private dispatch(): void {
    for (const thread of this.threads) {
      if (!thread.up || thread.current !== null) continue;
      const next = this.queue.shift();
      if (next === undefined) return;
      thread.current = next;
      thread.worker.ref();
      thread.timer = setTimeout(() => {
        void this.end(thread, new DataError('TokenizerTimeout', `tokenizer of ${this.folder}: a job took over ${this.budgetMs} ms and was ended; look for a very long text without a break, or raise budgetMs`));
        if (this.queue.length > 0) this.start();
      }, this.budgetMs);
      thread.worker.postMessage(next.request);
    }
  }

  private release(thread: Thread): void {
    if (thread.timer !== null) clearTimeout(thread.timer);
    thread.timer = null;
    thread.current = null;
    thread.worker.unref();
  }

  private async end(thread: Thread, error: Error): Promise<void> {
    this.threads.delete(thread);
    const { current } = thread;
    this.release(thread);
    current?.reject(error);
    await thread.worker.terminate();
  }
}

function isOutOfMemory(cause: unknown): boolean {
  return cause instanceof Error && 'code' in cause && cause.code === 'ERR_WORKER_OUT_OF_MEMORY';
}

const workerCodes: readonly DataErrorCode[] = ['BadTokenizer', 'UnsupportedTokenizer', 'TokenOutOfRange', 'TokenizerOutput', 'TokenizerWorker'];

/** The code of an engine's error, TokenizerWorker where it is none of this package's. */
export function codeOf(code: string): DataErrorCode {
  return workerCodes.find((known) => known === code) ?? 'TokenizerWorker';
}
