// Plugins: modules named in a run's configuration that bring optimizers, models and ops nobody here wrote.
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { ModelFamily } from '@lomo/models';
import type { Rule } from '@lomo/optim';
import { LomoError } from '@lomo/tensor';
import type { Op } from '@lomo/tensor';

/** What a plugin module may export. */
export interface Plugin {
  readonly rules?: readonly Rule[];
  readonly families?: readonly ModelFamily[];
  /** Ops of its models, for the reference backend; those of its rules are known from the rules. */
  readonly ops?: readonly Op[];
}

/** What is imported for `name`: a path, a package as the working folder sees it, else one installed beside lomo. */
function urlOf(name: string): string {
  if (/^[./]/.test(name)) return pathToFileURL(resolve(name)).href;
  try {
    return pathToFileURL(createRequire(join(process.cwd(), 'run.yaml')).resolve(name)).href;
  } catch {
    return name;
  }
}

/** Imports `names` (paths beginning with '.' or '/', else packages). Throws PluginError naming the module. */
export async function loadPlugins(names: readonly string[]): Promise<Required<Plugin>> {
  const loaded = await Promise.all(
    names.map(async (name) => {
      try {
        return (await import(urlOf(name))) as Plugin;
      } catch (error) {
        throw new LomoError('PluginError', `plugin '${name}': ${error instanceof Error ? error.message : String(error)}`, { name }, error);
      }
    }),
  );
  const rules = loaded.flatMap((p) => p.rules ?? []);
  return { rules, families: loaded.flatMap((p) => p.families ?? []), ops: [...loaded.flatMap((p) => p.ops ?? []), ...rules.flatMap((rule) => rule.ops)] };
}
