// The one place where this package (and the trainer's checkpoints) touch the file system, so that a test can fail the k-th call.
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { LomoError } from '@lomo/tensor';

/** What a path is. `size` is in bytes; `device` is the same number for everything on one file system, on which `inode` tells two files apart. */
export interface FileFacts {
  readonly kind: 'file' | 'folder' | 'other';
  readonly size: number;
  readonly device: number;
  readonly inode: number;
}

/** An open file; positions are absolute, in bytes. Reads and writes may be short, as the system's are. */
export interface OpenFile {
  readonly path: string;
  /** Bytes read into the front of `into`; 0 at the end of the file. */
  read(into: Uint8Array, position: number): Promise<number>;
  /** Bytes of `from` written. */
  write(from: Uint8Array, position: number): Promise<number>;
  facts(): Promise<FileFacts>;
  /** Returns when the bytes would survive a power loss. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** The file system. Every failure is a LomoError 'FileError' with `details { verb, path, errno }`. */
export interface Files {
  /** 'read' an existing file; 'write' creates or truncates; 'create' refuses an existing one. */
  open(path: string, mode: 'read' | 'write' | 'create'): Promise<OpenFile>;
  /** Facts of what the path leads to (links followed), or null where nothing is. */
  facts(path: string): Promise<FileFacts | null>;
  /** The absolute path with every link resolved. */
  resolve(path: string): Promise<string>;
  /** Names in a folder, sorted. */
  list(folder: string): Promise<readonly string[]>;
  makeFolder(folder: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file, or a folder with everything in it; nothing there is not an error. */
  remove(path: string): Promise<void>;
  /** Makes the names in a folder durable: renames and creations in it survive a power loss. */
  syncFolder(folder: string): Promise<void>;
  /** Bytes an unprivileged writer could still add under this folder. */
  freeBytes(folder: string): Promise<number>;
}

/** A call of the file layer, as `observeFiles` reports it. `count` numbers the calls of all verbs from 1. */
export interface FileCall {
  readonly verb: string;
  readonly path: string;
  readonly count: number;
}

const flags = { read: 'r', write: 'w+', create: 'wx+' } as const;

/** Node's file system. */
export const nodeFiles: Files = {
  open: (path, mode) =>
    named('open', path, async () => {
      // Without O_NONBLOCK, opening a fifo that a hostile folder contains would wait for ever.
      const handle = await fs.open(path, mode === 'read' ? constants.O_RDONLY | constants.O_NONBLOCK : flags[mode]);
      return openFile(path, handle);
    }),
  facts: (path) =>
    named('stat', path, async () => {
      try {
        return factsOf(await fs.stat(path));
      } catch (error) {
        if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return null;
        throw error;
      }
    }),
  resolve: (path) => named('realpath', path, () => fs.realpath(path)),
  list: (folder) => named('readdir', folder, async () => (await fs.readdir(folder)).sort()),
  makeFolder: (folder) =>
    named('mkdir', folder, async () => {
      await makeFolders(folder);
    }),
  rename: (from, to) => named('rename', from, () => fs.rename(from, to)),
  remove: (path) => named('rm', path, () => fs.rm(path, { recursive: true, force: true })),
  syncFolder: (folder) =>
    named('fsync', folder, async () => {
      const handle = await fs.open(folder, 'r');
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    }),
  freeBytes: (folder) =>
    named('statfs', folder, async () => {
      const { bavail, bsize } = await fs.statfs(folder);
      return bavail * bsize;
    }),
};

/** `files` with `before` called ahead of every verb, those of open files included; an error it throws takes the verb's place. */
export function observeFiles(files: Files, before: (call: FileCall) => void): Files {
  let count = 0;
  const observed = <T>(verb: string, path: string, body: () => Promise<T>): Promise<T> =>
    named(verb, path, async () => {
      before({ verb, path, count: ++count });
      return body();
    });
  const wrap = (file: OpenFile): OpenFile => ({
    path: file.path,
    read: (into, position) => observed('read', file.path, () => file.read(into, position)),
    write: (from, position) => observed('write', file.path, () => file.write(from, position)),
    facts: () => observed('fstat', file.path, () => file.facts()),
    sync: () => observed('fsync', file.path, () => file.sync()),
    // Closing first keeps a test that fails this call from leaking the descriptor.
    close: async () => {
      await file.close();
      await observed('close', file.path, () => Promise.resolve());
    },
  });
  return {
    open: (path, mode) => observed('open', path, async () => wrap(await files.open(path, mode))),
    facts: (path) => observed('stat', path, () => files.facts(path)),
    resolve: (path) => observed('realpath', path, () => files.resolve(path)),
    list: (folder) => observed('readdir', folder, () => files.list(folder)),
    makeFolder: (folder) => observed('mkdir', folder, () => files.makeFolder(folder)),
    rename: (from, to) => observed('rename', from, () => files.rename(from, to)),
    remove: (path) => observed('rm', path, () => files.remove(path)),
    syncFolder: (folder) => observed('fsync', folder, () => files.syncFolder(folder)),
    freeBytes: (folder) => observed('statfs', folder, () => files.freeBytes(folder)),
  };
}

/** Fills as much of `into` as the file has from `position` on, over short reads; returns the bytes read. */
export async function readFully(file: OpenFile, into: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < into.byteLength) {
    const n = await file.read(into.subarray(done), position + done);
    if (n === 0) break;
    done += n;
  }
  return done;
}

/** Writes all of `from` at `position`, over short writes. */
export async function writeFully(file: OpenFile, from: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < from.byteLength) {
    const n = await file.write(from.subarray(done), position + done);
    if (n === 0) throw fileError('write', file.path, Object.assign(new Error('wrote 0 bytes'), { code: 'EIO' }));
    done += n;
  }
}

/** What `body` makes of something open, which is closed then. Where both fail, what `body` threw is thrown: it came first. */
export async function closing<R extends { close(): Promise<void> }, T>(opened: R, body: (opened: R) => Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await body(opened);
  } catch (error) {
    await opened.close().catch(() => {});
    throw error;
  }
  await opened.close();
  return result;
}

/** The whole of a small regular file. More than `limit` bytes: LomoError 'TooLarge'. */
export async function readWhole(files: Files, path: string, limit: number): Promise<Uint8Array> {
  return closing(await files.open(path, 'read'), async (file) => {
    const { kind, size } = await file.facts();
    if (kind !== 'file') throw new LomoError('NotAFile', `${path} is not a regular file`, { path });
    if (size > limit) throw new LomoError('TooLarge', `${path} has ${size} bytes; at most ${limit} are read for a file of this kind`, { path, size, limit });
    const bytes = new Uint8Array(size);
    const found = await readFully(file, bytes, 0);
    return bytes.subarray(0, found);
  });
}

/** Writes a whole file and makes its bytes durable. */
export async function writeWhole(files: Files, path: string, bytes: Uint8Array): Promise<void> {
  await closing(await files.open(path, 'write'), async (file) => {
    await writeFully(file, bytes, 0);
    await file.sync();
  });
}

/** What a file system says to syncing a folder that is not ours: no right to open it, or no such call there. */
const notOurs: readonly string[] = ['EACCES', 'EPERM', 'EROFS', 'EINVAL', 'ENOTSUP', 'ENOSYS'];

/** `folder` and those around it that are not there, outermost first. */
export async function missingFolders(files: Files, folder: string): Promise<readonly string[]> {
  const missing: string[] = [];
  for (let at = resolve(folder); (await files.facts(at)) === null && dirname(at) !== at; at = dirname(at)) missing.unshift(at);
  return missing;
}

/** Makes a folder, those around it included, and their names durable: what is made durable inside is found after a power loss. */
export async function ensureFolder(files: Files, folder: string): Promise<void> {
  const path = resolve(folder);
  const missing = await missingFolders(files, path);
  await files.makeFolder(path);
  // All that are around it, not only those made now: one that was killed here may have made the others.
  for (let at = path; dirname(at) !== at; at = dirname(at)) {
    try {
      await files.syncFolder(dirname(at));
    } catch (error) {
      const errno = error instanceof LomoError ? String(error.details['errno']) : '';
      if (at === path || missing.includes(at) || !notOurs.includes(errno)) throw error;
    }
  }
}

/** Removes those of `folders` (outermost first, as `missingFolders` returned them) that are there now and empty. */
export async function removeEmpty(files: Files, folders: readonly string[]): Promise<void> {
  for (const folder of folders.toReversed()) {
    if ((await files.facts(folder)) === null) continue;
    if ((await files.list(folder)).length > 0) return;
    await files.remove(folder);
  }
}

/** Node's own recursive mkdir never returns where a file system answers ENOENT under a folder that is there, as /proc does. */
async function makeFolders(folder: string): Promise<void> {
  try {
    await fs.mkdir(folder);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' && dirname(folder) !== folder) {
      // There by now: another call made it, or the file system answers so in any case.
      const there = factsOf(await fs.stat(dirname(folder)).catch(() => nothing)).kind === 'folder';
      if (!there) await makeFolders(dirname(folder));
      return makeFolder(folder);
    }
    await throwUnlessFolder(folder, error);
  }
}

/** In a folder that is there. */
async function makeFolder(folder: string): Promise<void> {
  try {
    await fs.mkdir(folder);
  } catch (error) {
    await throwUnlessFolder(folder, error);
  }
}

/** A folder on a read-only file system is told by EROFS, not by EEXIST. */
async function throwUnlessFolder(folder: string, error: unknown): Promise<void> {
  if (factsOf(await fs.stat(folder).catch(() => nothing)).kind !== 'folder') throw error;
}

const nothing = { isFile: () => false, isDirectory: () => false, size: 0, dev: 0, ino: 0 };

function openFile(path: string, handle: fs.FileHandle): OpenFile {
  return {
    path,
    read: (into, position) => named('read', path, async () => (await handle.read(into, 0, into.byteLength, position)).bytesRead),
    write: (from, position) => named('write', path, async () => (await handle.write(from, 0, from.byteLength, position)).bytesWritten),
    facts: () => named('fstat', path, async () => factsOf(await handle.stat())),
    sync: () => named('fsync', path, () => handle.sync()),
    close: () => named('close', path, () => handle.close()),
  };
}

function factsOf(stat: { isFile(): boolean; isDirectory(): boolean; size: number; dev: number; ino: number }): FileFacts {
  return { kind: stat.isFile() ? 'file' : stat.isDirectory() ? 'folder' : 'other', size: stat.size, device: stat.dev, inode: stat.ino };
}

function errnoOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : 'unknown';
}

const advice: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full: free space or choose another folder',
  EDQUOT: 'the disk quota is used up: free space or choose another folder',
  EROFS: 'the file system is read-only: choose another folder',
  EACCES: 'permission denied: check the owner and mode of the path',
  ENOENT: 'nothing is there: check the path',
  EMFILE: 'too many open files: raise `ulimit -n`',
};

function fileError(verb: string, path: string, cause: unknown): LomoError {
  const errno = errnoOf(cause);
  const why = advice[errno] ?? (cause instanceof Error ? cause.message : String(cause));
  return new LomoError('FileError', `${verb} ${path}: ${errno}, ${why}`, { verb, path, errno }, cause);
}

async function named<T>(verb: string, path: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw error instanceof LomoError ? error : fileError(verb, path, error);
  }
}
