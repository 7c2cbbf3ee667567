// What a part of the GPU bench has found so far, kept on disk after every measurement, so that the next call goes on where this one ended.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { machine } from '../manners.ts';
import type { Stamp } from './machine.ts';

/** One thing that was measured, or tried. */
export interface Entry extends Stamp {
  readonly date: string;
  readonly seconds: number;
  /** What was found; absent where it failed. */
  readonly data?: unknown;
  /** Why there is nothing. */
  readonly failed?: string;
}

/** What a part comes to, as far as it is measured. */
export interface Conclusion {
  /** Lines for a person, tables included. */
  readonly lines: readonly string[];
  readonly figure: string;
  /** Bars, each in a sentence with its numbers. */
  readonly held: readonly string[];
  readonly missed: readonly string[];
  /** What has not been measured yet, or could not be, each with its reason. */
  readonly open: readonly string[];
  /** Findings that other programs read. */
  readonly data?: Readonly<Record<string, unknown>>;
}

export interface FindingsOptions {
  /** Where results go. */
  readonly folder: string;
  /** 'gpu-train'. */
  readonly name: string;
  readonly stamp: Stamp;
  /** Other folders whose results are gone on with. */
  readonly former: readonly string[];
  /** Nothing that was found before counts. */
  readonly again: boolean;
  /** What was found at another commit counts too. */
  readonly anyCommit: boolean;
}

export class Findings {
  private readonly options: FindingsOptions;
  private readonly entries = new Map<string, Entry>();

  constructor(options: FindingsOptions) {
    this.options = options;
    if (options.again) return;
    const { stamp, anyCommit } = options;
    for (const folder of [...options.former, options.folder]) {
      for (const [id, entry] of newest(folder, options.name)) {
        if (entry.device !== stamp.device || (!anyCommit && entry.commit !== stamp.commit)) continue;
        const known = this.entries.get(id);
        if (known === undefined || known.date <= entry.date) this.entries.set(id, entry);
      }
    }
  }

  /** True where `id` has been measured; what failed is tried again. */
  has(id: string): boolean {
    return this.entries.get(id)?.failed === undefined && this.entries.has(id);
  }

  /** What was found; undefined where nothing was. */
  get<T>(id: string): T | undefined {
    return this.entries.get(id)?.data as T | undefined;
  }

  /** Why `id` failed the last time; undefined where it did not. */
  failure(id: string): string | undefined {
    return this.entries.get(id)?.failed;
  }

  get ids(): readonly string[] {
    return [...this.entries.keys()];
  }

  /** Notes what was found, or why not; both where it was found in part. */
  put(id: string, found: { readonly data?: unknown; readonly failed?: string }, seconds: number): void {
    this.entries.set(id, { ...this.options.stamp, date: new Date().toISOString(), seconds: Math.round(seconds * 10) / 10, ...found });
  }

  /** Writes everything, whole or not at all; returns the file. */
  save(conclusion: Conclusion): string {
    const { folder, name, stamp } = this.options;
    const date = new Date().toISOString();
    const { figure, held, missed, open, data } = conclusion;
    const result = { name, date, machine: machine(), ...stamp, figure, held, missed, open, ...data, entries: Object.fromEntries(this.entries) };
    mkdirSync(folder, { recursive: true });
    const file = join(folder, `${date.slice(0, 10)}-${name}.json`);
    writeFileSync(`${file}.part`, `${JSON.stringify(result, null, 1)}\n`);
    renameSync(`${file}.part`, file);
    return file;
  }
}

/** The newest result of `name` in a folder, parsed; null where there is none. */
export function newestResult(folder: string, name: string): Readonly<Record<string, unknown>> | null {
  if (!existsSync(folder)) return null;
  const file = readdirSync(folder).filter((one) => one.slice(10) === `-${name}.json` && /^\d{4}-\d\d-\d\d/.test(one)).toSorted().at(-1);
  return file === undefined ? null : (JSON.parse(readFileSync(join(folder, file), 'utf8')) as Record<string, unknown>);
}

function newest(folder: string, name: string): [string, Entry][] {
  return Object.entries((newestResult(folder, name)?.['entries'] ?? {}) as Record<string, Entry>);
}
