// The worker process of the tokenizer pool: loads one tokenizer, then answers encode and decode jobs one at a time. A process, not a thread:
// running out of memory in a thread can end the whole program.
import { Worker } from 'node:worker_threads';
import { loadEngine } from './engine.js';

/** @typedef {import('./engine-types.ts').Request} Request */
/** @typedef {import('./engine-types.ts').Response} Response */

const folder = process.argv[2];
const send = process.send?.bind(process);
if (send === undefined || folder === undefined) throw new Error('the tokenizer worker runs only as a process of the pool');

// Ctrl-C reaches every process of the terminal; the program that owns this one decides what it means.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => undefined);
process.on('disconnect', () => process.exit());
// An endless job does not hear that its program is gone; a thread that looks for it does.
new Worker("const { ppid } = process; setInterval(() => { if (process.ppid !== ppid) process.kill(process.pid, 'SIGKILL'); }, 1000);", { eval: true }).unref();

/** @param {Response} response */
const say = (response) => send(response);

/**
 * @param {number | null} id
 * @param {unknown} error
 */
const fail = (id, error) => say({ kind: 'failed', id, code: error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'TokenizerWorker', message: error instanceof Error ? error.message : String(error) });

/**
 * @param {import('./engine-types.ts').Engine} engine
 * @param {Request} request
 */
function answer(engine, request) {
  if (request.kind === 'decode') {
    say({ kind: 'texts', id: request.id, texts: request.rows.map((ids) => engine.decode(ids, request.skipSpecialTokens)) });
    return;
  }
  const rows = request.texts.map((text) => engine.encode(text, request.specialTokens));
  const ids = new Int32Array(rows.reduce((sum, row) => sum + row.length, 0));
  let at = 0;
  for (const row of rows) {
    ids.set(row, at);
    at += row.length;
  }
  say({ kind: 'ids', id: request.id, ids, lengths: rows.map((row) => row.length) });
}

try {
  const engine = loadEngine(folder);
  process.on('message', (/** @type {Request} */ request) => {
    try {
      answer(engine, request);
    } catch (error) {
      fail(request.id, error);
    }
  });
  say({ kind: 'ready', facts: engine.facts });
} catch (error) {
  fail(null, error);
}
