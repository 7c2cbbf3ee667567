// Where things lie: a golden folder, and the models and tokenizers beside it, in --models, or in the shared folder beside this repository.
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** Where to look for models and tokenizers besides the folders next to the golden one. */
export interface Elsewhere {
  /** Folders that hold model folders, from --models. */
  readonly models: readonly string[];
  /** The folder beside this repository that holds models/ and tokenizers/, or null. */
  readonly shared: string | null;
}

/** A golden folder. */
export class GoldenFolder {
  readonly root: string;
  private readonly elsewhere: Elsewhere;

  constructor(root: string, elsewhere: Elsewhere) {
    this.root = root;
    this.elsewhere = elsewhere;
  }

  path(...parts: readonly string[]): string {
    return join(this.root, ...parts);
  }

  has(...parts: readonly string[]): boolean {
    return existsSync(this.path(...parts));
  }

  /** Names of the folders in `parts`, sorted; none when it is not there. */
  folders(...parts: readonly string[]): readonly string[] {
    return this.entries(parts).filter((entry) => entry.isDirectory()).map((entry) => entry.name).sort();
  }

  /** Names of the files in `parts`, sorted; none when it is not there. */
  files(...parts: readonly string[]): readonly string[] {
    return this.entries(parts).filter((entry) => entry.isFile()).map((entry) => entry.name).sort();
  }

  /** Where the model (or tokenizer) `name` is that has one of `files`, and where it was looked for. */
  find(name: string, files: readonly string[]): { readonly found: string | null; readonly tried: readonly string[] } {
    const bases = [resolve(this.root, '..', 'models'), resolve(this.root, '..', 'tokenizers'), ...this.elsewhere.models];
    if (this.elsewhere.shared !== null) bases.push(join(this.elsewhere.shared, 'models'), join(this.elsewhere.shared, 'tokenizers'));
    const tried = [...new Set(bases.map((base) => join(base, name)))];
    return { found: tried.find((folder) => files.some((file) => existsSync(join(folder, file)))) ?? null, tried };
  }

  private entries(parts: readonly string[]) {
    const path = this.path(...parts);
    return existsSync(path) ? readdirSync(path, { withFileTypes: true }) : [];
  }
}
