// This package's addon: what it says about itself, and where it is.
import { fileURLToPath } from 'node:url';
import { loadAddon } from '@lomo/tensor/addon';
import type { Library, NativeVerbs } from '@lomo/tensor/addon';

/** What the addon says about itself. */
export interface Facts {
  readonly isa: string;
  readonly threads: number;
  readonly libraries: readonly Library[];
}

export interface NativeBackend extends NativeVerbs {
  facts(): Facts;
}

/** The addon's one export. */
export interface Addon {
  readonly NativeBackend: new (packet: Float64Array, options: { threads: number; isa: string; oneDnn: string }) => NativeBackend;
}

/** Folder of this package, from src/ as from dist/. */
export const packageFolder = fileURLToPath(new URL('..', import.meta.url));

/** Loads the addon: the file at `path`, if given. Throws MissingAddon with every place tried. */
export function loadCpuAddon(path?: string): Addon {
  return loadAddon({ name: '@lomo/cpu', folder: packageFolder, file: 'lomo_cpu.node', advice: 'npx @lomo/cpu build (needs cmake, ninja and a C++20 compiler)', ...(path === undefined ? {} : { path }) });
}
