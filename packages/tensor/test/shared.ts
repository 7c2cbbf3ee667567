// Where the reference values lie, if they are here: tests that read them are skipped, visibly, where they are not.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const folder = new URL('../../../../shared/golden/', import.meta.url);

/** True where the golden file is on this machine. */
export function hasGolden(name: string): boolean {
  return existsSync(fileURLToPath(new URL(name, folder)));
}

/** The JSON of a golden file. */
export function golden<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(name, folder), 'utf8')) as T;
}
