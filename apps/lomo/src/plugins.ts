// Plugins: modules named in a run's configuration that bring optimizers and models nobody here wrote.
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { ModelFamily } from '@lomo/models';
import type { Rule } from '@lomo/optim';
import { LomoError } from '@lomo/tensor';

/** What a plugin module may export. */
export interface Plugin {
  readonly rules?: readonly Rule[];
  readonly families?: readonly ModelFamily[];
}

/** Imports `names` (paths beginning with '.' or '/', else packages). Throws PluginError naming the module. */
export async function loadPlugins(names: readonly string[]): Promise<Required<Plugin>> {
  const loaded = await Promise.all(
    names.map(async (name) => {
      const url = /^[./]/.test(name) ? pathToFileURL(resolve(name)).href : name;
      try {
        return (await import(url)) as Plugin;
      } catch (error) {
        throw new LomoError('PluginError', `plugin '${name}': ${error instanceof Error ? error.message : String(error)}`, { name }, error);
      }
    }),
  );
  return { rules: loaded.flatMap((p) => p.rules ?? []), families: loaded.flatMap((p) => p.families ?? []) };
}
