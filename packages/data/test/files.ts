// Temporary data files for tests.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Writes one file into a folder of its own and returns its path. */
export function fileOf(name: string, content: string | Uint8Array): string {
  const path = join(mkdtempSync(join(tmpdir(), 'lomo-data-')), name);
  writeFileSync(path, content);
  return path;
}

/** A JSONL file of these rows. */
export function jsonlOf(rows: readonly unknown[]): string {
  return fileOf('rows.jsonl', rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
}
