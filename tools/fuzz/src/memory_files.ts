// A file layer of one folder in memory, for readers that open files: as fast as a call, and nothing can be opened but what is in it.
import { basename, dirname } from 'node:path';
import { LomoError } from '@lomo/tensor';
import type { Files, OpenFile } from '@lomo/models';

/** A file of which only the front has been made; the rest up to `size` reads as zeros. */
export interface MemoryFile {
  readonly front: Uint8Array;
  readonly size: number;
}

/** The folder '/model' with these files, the n-th of which is inode n. A path outside is a LomoError 'FileError' with errno 'ENOENT'. */
export function memoryFiles(files: ReadonlyMap<string, MemoryFile>): Files {
  const absent = (verb: string, path: string): LomoError => new LomoError('FileError', `${verb} ${path}: ENOENT`, { verb, path, errno: 'ENOENT' });
  const at = (path: string): MemoryFile | undefined => (dirname(path) === '/model' ? files.get(basename(path)) : undefined);
  const inode = (path: string): number => 1 + [...files.keys()].indexOf(basename(path));
  const never = (verb: string) => (path: string): Promise<never> => Promise.reject(absent(verb, path));
  return {
    open: async (path) => {
      const file = at(path);
      if (file === undefined) throw absent('open', path);
      return openFile(path, file, inode(path));
    },
    facts: async (path) => {
      if (path === '/model') return { kind: 'folder', size: 0, device: 0, inode: 0 };
      const file = at(path);
      return file === undefined ? null : { kind: 'file', size: file.size, device: 0, inode: inode(path) };
    },
    resolve: async (path) => {
      if (path !== '/model' && at(path) === undefined) throw absent('realpath', path);
      return path;
    },
    list: async () => [...files.keys()],
    makeFolder: never('mkdir'),
    rename: never('rename'),
    remove: never('rm'),
    syncFolder: never('fsync'),
    freeBytes: never('statfs'),
  };
}

function openFile(path: string, { front, size }: MemoryFile, inode: number): OpenFile {
  const refuse = (): Promise<never> => Promise.reject(new LomoError('FileError', `write ${path}: EROFS`, { path, errno: 'EROFS' }));
  return {
    path,
    read: async (into, position) => {
      const n = Math.max(0, Math.min(into.byteLength, size - position));
      into.fill(0, 0, n);
      into.set(front.subarray(Math.min(position, front.byteLength), Math.min(position + n, front.byteLength)));
      return n;
    },
    write: refuse,
    facts: async () => ({ kind: 'file', size, device: 0, inode }),
    sync: refuse,
    close: async () => {},
  };
}
