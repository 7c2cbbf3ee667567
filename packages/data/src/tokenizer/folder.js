// Reads the files of a tokenizer's folder: regular ones of a bounded size, no link out of the folder. Plain JavaScript, as the engine is.
import { closeSync, constants, existsSync, fstatSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join, sep } from 'node:path';

/** Most bytes of tokenizer.json, vocab.json and merges.txt. */
export const tokenizerLimit = 512 * 2 ** 20;
/** Most bytes of tokenizer_config.json and special_tokens_map.json. */
export const configLimit = 16 * 2 ** 20;

/**
 * @param {string} code
 * @param {string} message
 * @returns {Error}
 */
export function failure(code, message) {
  return Object.assign(new Error(message), { code });
}

/**
 * Where a link may lead: the folder, and the blobs beside the snapshots of a Hugging Face cache.
 * @param {string} folder
 */
function rootsOf(folder) {
  const root = realpathSync(folder);
  const blobs = join(dirname(dirname(root)), 'blobs');
  const isCache = basename(dirname(root)) === 'snapshots' && existsSync(blobs) && realpathSync(blobs) === blobs;
  return isCache ? [root, blobs] : [root];
}

/**
 * The real path of a file, for an error message and for opening. Throws BadTokenizer where it leads out of the folder or is no regular file.
 * @param {string} folder
 * @param {string} name
 */
export function locate(folder, name) {
  const path = join(folder, name);
  const real = realpathSync(path);
  if (!rootsOf(folder).some((root) => real.startsWith(root.endsWith(sep) ? root : root + sep))) throw failure('BadTokenizer', `${path} leads to ${real}, outside the tokenizer's folder; copy the file into the folder`);
  const stat = statSync(real);
  if (!stat.isFile()) throw failure('BadTokenizer', `${path} is not a regular file`);
  return { path, real, size: stat.size, dev: stat.dev, ino: stat.ino };
}

/**
 * The text of a file of the folder, UTF-8. Throws BadTokenizer.
 * @param {string} folder
 * @param {string} name
 * @param {number} limit bytes
 * @returns {string}
 */
export function readText(folder, name, limit) {
  const { path, real, dev, ino } = locate(folder, name);
  // Without O_NONBLOCK a fifo put there since would be waited for without end.
  const handle = openSync(real, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stat = fstatSync(handle);
    if (!stat.isFile() || stat.dev !== dev || stat.ino !== ino) throw failure('BadTokenizer', `${path} was replaced while it was opened`);
    if (stat.size > limit) throw failure('BadTokenizer', `${path}: ${stat.size} bytes, expected at most ${limit}`);
    const bytes = new Uint8Array(stat.size);
    let at = 0;
    for (let n = -1; n !== 0 && at < bytes.length; at += n) n = readSync(handle, bytes, at, bytes.length - at, at);
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, at));
  } finally {
    closeSync(handle);
  }
}

/**
 * A JSON object of the folder. Throws BadTokenizer.
 * @param {string} folder
 * @param {string} name
 * @param {number} limit bytes
 * @returns {Record<string, any>}
 */
export function readJson(folder, name, limit) {
  const path = join(folder, name);
  let value;
  try {
    value = JSON.parse(readText(folder, name, limit));
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'BadTokenizer') throw cause;
    throw failure('BadTokenizer', `${path}: unreadable as JSON (${cause instanceof Error ? cause.message.slice(0, 300) : String(cause)}); copy the file again`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw failure('BadTokenizer', `${path}: expected a JSON object`);
  return value;
}
