// The file that gradients wait in with clip_by: file. It has no name from the moment it is open, so that no crash leaves it behind.
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Files, OpenFile } from '@lomo/models';
import { readFully, writeFully } from '@lomo/models';
import type { SpillStore } from '@lomo/optim';
import { isLomoError, LomoError } from '@lomo/tensor';

export class SpillFile implements SpillStore, AsyncDisposable {
  private readonly file: OpenFile;

  private constructor(file: OpenFile) {
    this.file = file;
  }

  /**
   * Opens a nameless file in `folder`, which is made if need be. Throws FileError with path and errno, or DiskFull where fewer than `bytes`
   * are free.
   */
  static async open(folder: string, { files, bytes }: { readonly files: Files; readonly bytes: number }): Promise<SpillFile> {
    return advised(async () => {
      await files.makeFolder(folder);
      const free = await files.freeBytes(folder);
      if (free < bytes) throw new LomoError('DiskFull', `${folder}: a step puts ${bytes} bytes of gradients aside, ${free} are free`, { path: folder, needed: bytes, free });
      const path = join(folder, `.spill-${randomUUID()}`);
      const file = await files.open(path, 'create');
      try {
        await files.remove(path);
      } catch (error) {
        await file.close();
        throw error;
      }
      return new SpillFile(file);
    });
  }

  write(from: Uint8Array, position: number): Promise<void> {
    return advised(() => writeFully(this.file, from, position));
  }

  read(into: Uint8Array, position: number): Promise<void> {
    return advised(async () => {
      const found = await readFully(this.file, into, position);
      if (found === into.byteLength) return;
      throw new LomoError('FileError', `read ${this.file.path}: the file ends at ${position + found}, ${into.byteLength} bytes were written at ${position}`, { verb: 'read', path: this.file.path, errno: 'EIO' });
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.file.close();
  }
}

async function advised<T>(body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    if (!isLomoError(error)) throw error;
    throw new LomoError(error.code, `${error.message}. Gradients are put aside there: name another folder in spill_dir, or set clip_by: two-pass, which needs none`, error.details, error);
  }
}
