// A disk in memory that a power loss treats as real ones may: what was not synced is dropped, torn or kept in any combination.
//
// Bytes of a file survive a crash if the file was synced after they were written; a name (made, moved, removed) survives if its folder was
// synced after that. Of everything else each piece survives or not by a draw: sectors of 512 bytes, sizes, single changes of a folder. One
// rename is whole or not at all, as every journal has it.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { FileFacts, Files, OpenFile } from '../../packages/models/src/files.ts';
import { Draw } from './draw.ts';

interface FileNode {
  readonly kind: 'file';
  readonly id: number;
  bytes: Uint8Array;
  durable: Uint8Array;
  /** What was written since the last sync; null: everything was cut off. */
  pending: ({ readonly at: number; readonly bytes: Uint8Array } | null)[];
}

interface FolderNode {
  readonly kind: 'folder';
  readonly id: number;
  entries: Map<string, Node>;
  durable: Map<string, Node>;
  pending: Change[];
}

type Node = FileNode | FolderNode;

/** Names that appear and go together. */
interface Change {
  readonly order: number;
  readonly added: { readonly folder: FolderNode; readonly name: string; readonly node: Node } | null;
  readonly removed: { readonly folder: FolderNode; readonly name: string; readonly node: Node } | null;
  isDurable: boolean;
}

const sector = 512;

export class Disk {
  private readonly root: FolderNode;
  private ids = 0;
  private order = 0;

  constructor() {
    this.root = this.newFolder();
  }

  /** Puts the files of a real folder there, durably, under the same path. */
  import(folder: string): void {
    const node = this.makeFolders(resolve(folder));
    for (const name of readdirSync(folder)) {
      const bytes = new Uint8Array(readFileSync(join(folder, name)));
      node.entries.set(name, { kind: 'file', id: ++this.ids, bytes, durable: bytes.slice(), pending: [] });
    }
    for (let at = resolve(folder); ; at = dirname(at)) {
      syncNames(this.folder(at));
      if (dirname(at) === at) return;
    }
  }

  /** The file layer; errors carry the system's codes. */
  get files(): Files {
    const now = <T>(body: () => T): Promise<T> => new Promise((done, fail) => {
      try {
        done(body());
      } catch (error) {
        fail(error instanceof Error ? error : new Error(String(error)));
      }
    });
    return {
      open: (path, mode) => now(() => this.open(path, mode)),
      facts: (path) => now(() => {
        const node = this.find(path);
        return node === null ? null : factsOf(node);
      }),
      resolve: (path) => now(() => (this.find(path) === null ? fail('ENOENT', path) : resolve(path))),
      list: (folder) => now(() => [...this.folder(folder).entries.keys()].toSorted()),
      makeFolder: (folder) => now(() => void this.makeFolders(resolve(folder))),
      rename: (from, to) => now(() => this.rename(resolve(from), resolve(to))),
      remove: (path) => now(() => this.remove(resolve(path))),
      syncFolder: (folder) => now(() => syncNames(this.folder(folder))),
      freeBytes: () => Promise.resolve(2 ** 40),
    };
  }

  /** The disk after a power loss. */
  afterPowerLoss(draw: Draw): Disk {
    const changes = new Set<Change>();
    const names = new Map<FolderNode, Map<string, Node>>();
    const visit = (folder: FolderNode): void => {
      if (names.has(folder)) return;
      names.set(folder, new Map(folder.durable));
      for (const change of folder.pending) changes.add(change);
      for (const node of [...folder.durable.values(), ...folder.entries.values(), ...folder.pending.flatMap(({ added }) => (added === null ? [] : [added.node]))]) if (node.kind === 'folder') visit(node);
    };
    visit(this.root);
    const chance = draw.of([0, 0.2, 0.5, 0.8, 1]);
    for (const change of [...changes].filter(({ isDurable }) => !isDurable).toSorted((a, b) => a.order - b.order)) {
      if (draw.next() < chance) apply(change, (folder) => names.get(folder)!);
    }
    const disk = new Disk();
    const copies = new Map<Node, Node>();
    const copy = (node: Node): Node => {
      const known = copies.get(node);
      if (known !== undefined) return known;
      if (node.kind === 'file') {
        const bytes = survived(node, draw);
        const made: FileNode = { kind: 'file', id: ++disk.ids, bytes, durable: bytes.slice(), pending: [] };
        copies.set(node, made);
        return made;
      }
      const made = disk.newFolder();
      copies.set(node, made);
      for (const [name, inner] of names.get(node)!) made.entries.set(name, copy(inner));
      made.durable = new Map(made.entries);
      return made;
    };
    disk.root.entries = (copy(this.root) as FolderNode).entries;
    disk.root.durable = new Map(disk.root.entries);
    return disk;
  }

  private newFolder(): FolderNode {
    return { kind: 'folder', id: ++this.ids, entries: new Map(), durable: new Map(), pending: [] };
  }

  private find(path: string): Node | null {
    let node: Node = this.root;
    for (const name of resolve(path).split('/').filter((part) => part !== '')) {
      const inner: Node | undefined = node.kind === 'folder' ? node.entries.get(name) : undefined;
      if (inner === undefined) return null;
      node = inner;
    }
    return node;
  }

  private folder(path: string): FolderNode {
    const node = this.find(path);
    if (node === null) return fail('ENOENT', path);
    return node.kind === 'folder' ? node : fail('ENOTDIR', path);
  }

  private makeFolders(path: string): FolderNode {
    const found = this.find(path);
    if (found !== null) return found.kind === 'folder' ? found : fail('EEXIST', path);
    const parent = this.makeFolders(dirname(path));
    const node = this.newFolder();
    this.change({ added: { folder: parent, name: nameOf(path), node }, removed: null });
    return node;
  }

  private open(path: string, mode: 'read' | 'write' | 'create'): OpenFile {
    const found = this.find(path);
    if (found?.kind === 'folder') return fail('EISDIR', path);
    if (found === null && mode === 'read') return fail('ENOENT', path);
    if (found !== null && mode === 'create') return fail('EEXIST', path);
    const node: FileNode = found ?? { kind: 'file', id: ++this.ids, bytes: new Uint8Array(), durable: new Uint8Array(), pending: [] };
    if (found === null) this.change({ added: { folder: this.folder(dirname(resolve(path))), name: nameOf(path), node }, removed: null });
    else if (mode === 'write') {
      node.bytes = new Uint8Array();
      node.pending.push(null);
    }
    return {
      path,
      read: (into, position) => {
        const part = node.bytes.subarray(position, position + into.byteLength);
        into.set(part);
        return Promise.resolve(part.byteLength);
      },
      write: (from, position) => {
        node.bytes = written(node.bytes, from, position);
        node.pending.push({ at: position, bytes: from.slice() });
        return Promise.resolve(from.byteLength);
      },
      facts: () => Promise.resolve(factsOf(node)),
      sync: () => {
        node.durable = node.bytes.slice();
        node.pending = [];
        return Promise.resolve();
      },
      close: () => Promise.resolve(),
    };
  }

  private rename(from: string, to: string): void {
    const node = this.find(from);
    if (node === null) return fail('ENOENT', from);
    const over = this.find(to);
    if (over?.kind === 'folder' && (node.kind !== 'folder' || over.entries.size > 0)) return fail(node.kind === 'folder' ? 'ENOTEMPTY' : 'EISDIR', to);
    if (over?.kind === 'file' && node.kind === 'folder') return fail('ENOTDIR', to);
    this.change({ added: { folder: this.folder(dirname(to)), name: nameOf(to), node }, removed: { folder: this.folder(dirname(from)), name: nameOf(from), node } });
  }

  private remove(path: string): void {
    const node = this.find(path);
    if (node === null) return;
    if (node.kind === 'folder') for (const name of node.entries.keys()) this.remove(join(path, name));
    this.change({ added: null, removed: { folder: this.folder(dirname(path)), name: nameOf(path), node } });
  }

  private change(parts: Pick<Change, 'added' | 'removed'>): void {
    const change: Change = { ...parts, order: ++this.order, isDurable: false };
    apply(change, (folder) => folder.entries);
    for (const folder of new Set([change.added?.folder, change.removed?.folder])) folder?.pending.push(change);
  }
}

function syncNames(folder: FolderNode): void {
  // Of a move between two folders the other half becomes durable as well: it is one entry of the journal.
  for (const change of folder.pending.splice(0)) {
    if (!change.isDurable) apply(change, ({ durable }) => durable);
    change.isDurable = true;
  }
  folder.durable = new Map(folder.entries);
}

function apply({ added, removed }: Change, names: (folder: FolderNode) => Map<string, Node>): void {
  if (removed !== null && names(removed.folder).get(removed.name) === removed.node) names(removed.folder).delete(removed.name);
  if (added === null) return;
  // A folder has one name, also where an earlier move of it was dropped.
  if (removed !== null) for (const [name, node] of names(removed.folder)) if (node === added.node) names(removed.folder).delete(name);
  names(added.folder).set(added.name, added.node);
}

/** What a power loss leaves of a file. */
function survived(file: FileNode, draw: Draw): Uint8Array {
  let bytes = file.durable;
  const chance = draw.of([0, 0.3, 0.7, 1]);
  for (const write of file.pending) {
    if (write === null) {
      if (draw.next() < chance) bytes = new Uint8Array();
      continue;
    }
    for (let at = 0; at < write.bytes.byteLength; at += sector) {
      const part = write.bytes.subarray(at, at + sector);
      // The size without the bytes, the bytes, or neither.
      if (draw.next() < chance) bytes = written(bytes, part, write.at + at);
      else if (draw.next() < 0.2) bytes = written(bytes, new Uint8Array(), write.at + at + part.byteLength);
    }
  }
  return bytes.slice();
}

function written(bytes: Uint8Array, from: Uint8Array, position: number): Uint8Array {
  const grown = new Uint8Array(Math.max(bytes.byteLength, position + from.byteLength));
  grown.set(bytes);
  grown.set(from, position);
  return grown;
}

function factsOf(node: Node): FileFacts {
  return { kind: node.kind, size: node.kind === 'file' ? node.bytes.byteLength : 0, device: 1, inode: node.id };
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

function fail(code: string, path: string): never {
  throw Object.assign(new Error(`${code}: ${path}`), { code });
}
