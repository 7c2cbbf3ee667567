// A folder out of which nothing is opened: links are followed only inside it, and what was checked is what is read.
import { createHash } from 'node:crypto';
import { basename, dirname, join, sep } from 'node:path';
import { LomoError } from '@lomo/tensor';
import type { FileFacts, Files, OpenFile } from './files.ts';
import { closing, nodeFiles, readFully } from './files.ts';

/** SHA-256 in hexadecimal of files in a folder, by name: what a checkpoint's manifest says of them. */
export type Sums = ReadonlyMap<string, string>;

/** A LomoError 'CorruptFile': the file at `path` is not the one that the manifest describes. */
export function wrongSum(path: string, sums: { readonly expected: string; readonly found: string }): LomoError {
  return new LomoError('CorruptFile', `${path}: its SHA-256 is ${sums.found}, the checkpoint's manifest says ${sums.expected}; use another checkpoint or fetch the file again (a file changed on purpose: remove trainer_state.json, and the folder is a plain model)`, { path, ...sums });
}

/** A model's folder. Every method names the files in it by their plain names. */
export class ConfinedFolder {
  readonly path: string;
  readonly files: Files;
  /** Where links may lead, links resolved: the folder itself, and the `blobs` beside the snapshots of a Hugging Face cache. */
  private readonly roots: readonly string[];
  private readonly sums: Sums | null;

  private constructor(path: string, place: { readonly files: Files; readonly roots: readonly string[]; readonly sums: Sums | null }) {
    this.path = path;
    this.files = place.files;
    this.roots = place.roots;
    this.sums = place.sums;
  }

  /** Throws LomoError 'NotAFolder'. With `sums`, only the files listed there are opened, and each must be what its sum says. */
  static async open(path: string, options: { readonly files?: Files; readonly sums?: Sums } = {}): Promise<ConfinedFolder> {
    const files = options.files ?? nodeFiles;
    if ((await files.facts(path))?.kind !== 'folder') throw new LomoError('NotAFolder', `${path} is not a folder; expected a Hugging Face model folder`, { path });
    const root = await files.resolve(path);
    const roots = [root];
    // The hub's cache: models--org--name/snapshots/REVISION links to models--org--name/blobs, the same model's folder.
    if (basename(dirname(root)) === 'snapshots') {
      const blobs = join(dirname(dirname(root)), 'blobs');
      if ((await files.facts(blobs))?.kind === 'folder' && (await files.resolve(blobs)) === blobs) roots.push(blobs);
    }
    return new ConfinedFolder(path, { files, roots, sums: options.sums ?? null });
  }

  /** Where `name` really lies. LomoError 'OutsideFolder' where that is outside, 'NotAFile' where it is no regular file. Nothing is opened. */
  async locate(name: string): Promise<string> {
    return (await this.located(name)).real;
  }

  /** True where something of that name is in the folder. */
  async has(name: string): Promise<boolean> {
    return (await this.files.facts(join(this.path, name))) !== null;
  }

  /** What the manifest says of `name`, or undefined without a manifest. A name it does not list: LomoError 'CorruptFile'. */
  expected(name: string): string | undefined {
    if (this.sums === null) return undefined;
    const sum = this.sums.get(name);
    if (sum !== undefined) return sum;
    const path = join(this.path, name);
    throw new LomoError('CorruptFile', `${path} is not among the files that the checkpoint was saved with; remove it, or use another checkpoint`, { path });
  }

  /**
   * Opens `name` for reading. What is open is compared with what was checked, so that a link put there in between opens nothing that is
   * read. LomoError 'OutsideFolder', 'NotAFile', 'FileError'.
   */
  async open(name: string): Promise<OpenFile> {
    const path = join(this.path, name);
    const before = await this.located(name);
    const file = await this.files.open(before.real, 'read');
    try {
      const facts = await file.facts();
      const isSame = facts.kind === 'file' && facts.device === before.facts.device && facts.inode === before.facts.inode && (await this.files.resolve(before.real)) === before.real;
      if (!isSame) throw new LomoError('OutsideFolder', `${path} was replaced while it was opened; nothing of it is read`, { path });
      // Under the name it was asked by: that is what a message should say.
      return { path, read: (into, at) => file.read(into, at), write: (from, at) => file.write(from, at), facts: () => file.facts(), sync: () => file.sync(), close: () => file.close() };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The whole of a small file, its sum checked where there is one. More than `limit` bytes: LomoError 'TooLarge'. */
  async read(name: string, limit: number): Promise<Uint8Array> {
    const expected = this.expected(name);
    return closing(await this.open(name), async (file) => {
      const { size } = await file.facts();
      if (size > limit) throw new LomoError('TooLarge', `${file.path} has ${size} bytes; at most ${limit} are read for a file of this kind`, { path: file.path, size, limit });
      const bytes = new Uint8Array(size);
      const whole = bytes.subarray(0, await readFully(file, bytes, 0));
      if (expected !== undefined) {
        const found = createHash('sha256').update(whole).digest('hex');
        if (found !== expected) throw wrongSum(file.path, { expected, found });
      }
      return whole;
    });
  }

  private async located(name: string): Promise<{ readonly real: string; readonly facts: FileFacts }> {
    const path = join(this.path, name);
    const real = await this.files.resolve(path);
    if (!this.roots.some((root) => real.startsWith(root.endsWith(sep) ? root : root + sep))) {
      throw new LomoError('OutsideFolder', `${path} leads to ${real}, outside the model's folder; copy the file into the folder`, { path, real });
    }
    const facts = await this.files.facts(real);
    if (facts?.kind !== 'file') throw new LomoError('NotAFile', `${path} is not a regular file`, { path });
    return { real, facts };
  }
}
