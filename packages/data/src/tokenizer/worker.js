// The worker thread of the tokenizer pool: loads one tokenizer, then answers encode and decode jobs one at a time.
import { parentPort, workerData } from 'node:worker_threads';
import { loadEngine } from './engine.js';

/** @typedef {import('./engine-types.ts').Request} Request */
/** @typedef {import('./engine-types.ts').Response} Response */

if (parentPort === null) throw new Error('the tokenizer worker runs only inside a worker thread');
const port = parentPort;

/**
 * @param {Response} response
 * @param {readonly ArrayBuffer[]} [moved]
 */
const say = (response, moved = []) => port.postMessage(response, moved);

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
  say({ kind: 'ids', id: request.id, ids, lengths: rows.map((row) => row.length) }, [ids.buffer]);
}

try {
  const engine = loadEngine(workerData.folder);
  port.on('message', (/** @type {Request} */ request) => {
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
