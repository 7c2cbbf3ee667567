// A file that a run keeps bytes in while it goes on. It has no name from the moment it is open, so that no crash leaves it behind.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Files, OpenFile } from '@lomo/models';
import { readFully, writeFully } from '@lomo/models';
import type { ByteStore } from '@lomo/parallel';
import { isLomoError, LomoError } from '@lomo/tensor';
import { bytes as said } from './quantity.ts';

/** What a scratch file is for. */
export interface ScratchUse {
  /** Part of its short-lived name: 'spill'. */
  readonly name: string;
  /** What needs the room: 'a step puts gradients aside'. */
  readonly what: string;
  /** The next step where it fails: which setting names another folder. */
  readonly advice: string;
}

export interface ScratchOptions {
  readonly files: Files;
  /** Most it will hold. */
  readonly bytes: number;
}

export class ScratchFile implements ByteStore, AsyncDisposable {
  private readonly file: OpenFile;
  private readonly use: ScratchUse;

  private constructor(file: OpenFile, use: ScratchUse) {
    this.file = file;
    this.use = use;
  }

  /**
   * Opens a nameless file in `folder`, which is made if need be. Throws FileError with path and errno, or DiskFull where fewer than `bytes`
   * are free.
   */
  static async openFor(use: ScratchUse, folder: string, { files, bytes }: ScratchOptions): Promise<ScratchFile> {
    return advised(use, async () => {
      await files.makeFolder(folder);
      const free = await files.freeBytes(folder);
      if (free < bytes) throw new LomoError('DiskFull', `${folder}: ${use.what}, ${said(bytes)}; ${said(free)} are free`, { path: folder, needed: bytes, free });
      const path = join(folder, `.${use.name}-${randomUUID()}`);
      const file = await files.open(path, 'create');
      try {
        await files.remove(path);
      } catch (error) {
        await file.close();
        throw error;
      }
      return new ScratchFile(file, use);
    });
  }

  write(from: Uint8Array, position: number): Promise<void> {
    return advised(this.use, () => writeFully(this.file, from, position));
  }

  read(into: Uint8Array, position: number): Promise<void> {
    return advised(this.use, async () => {
      const found = await readFully(this.file, into, position);
      if (found === into.byteLength) return;
      throw new LomoError('FileError', `read ${this.file.path}: the file ends at ${position + found}, ${into.byteLength} bytes were written at ${position}`, { verb: 'read', path: this.file.path, errno: 'EIO' });
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.file.close();
  }
}

async function advised<T>({ advice }: ScratchUse, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (!isLomoError(error)) throw error;
    throw new LomoError(error.code, `${error.message}. ${advice}`, error.details, error);
  }
}
