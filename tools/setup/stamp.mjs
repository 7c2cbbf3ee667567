// Remembers which inputs a phase last succeeded with, so that a second run does only what changed.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { cache, root } from './phase.mjs';

const file = join(cache, 'stamps.json');
const ignored = new Set(['node_modules', 'dist', 'build', '.turbo', '.git', '.cache', 'runs']);

function* filesUnder(path) {
  for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (ignored.has(entry.name) || entry.name.endsWith('.gen.ts')) continue;
    const child = join(path, entry.name);
    if (entry.isDirectory()) yield* filesUnder(child);
    else if (entry.isFile()) yield child;
  }
}

/** SHA-256 over the names and bytes of `paths` (files or folders, relative to the root; absent ones count as absent) and over `extra`. */
export function hashOf(paths, extra = []) {
  const hash = createHash('sha256');
  for (const word of extra) hash.update(`${word}\0`);
  for (const path of paths) {
    const absolute = join(root, path);
    if (!existsSync(absolute)) {
      hash.update(`absent ${path}\0`);
      continue;
    }
    const isFolder = statSync(absolute).isDirectory();
    for (const one of isFolder ? filesUnder(absolute) : [absolute]) hash.update(`${relative(root, one)}\0`).update(readFileSync(one)).update('\0');
  }
  return hash.digest('hex');
}

function read() {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return {}; // no stamp yet, or one cut short: everything is done again
  }
}

/** Whether `name` last succeeded with exactly this `hash` and every one of `outputs` (absolute paths) is still there. */
export function isFresh(name, hash, outputs) {
  return read()[name] === hash && outputs.every((path) => existsSync(path));
}

/** Records that `name` succeeded with `hash`; written beside and renamed, so an interrupt never leaves half a file. */
export function remember(name, hash) {
  mkdirSync(cache, { recursive: true });
  const beside = `${file}.${process.pid}`;
  writeFileSync(beside, `${JSON.stringify({ ...read(), [name]: hash }, null, 2)}\n`);
  renameSync(beside, file);
}
