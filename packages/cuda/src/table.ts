// What plans need of the CUDA backend, on a machine without a GPU: its kernels and their workspaces, which are constants of the addon.
import { LomoError } from '@lomo/tensor';
import type { BackendTraits } from '@lomo/tensor';
import { AddonBackend } from '@lomo/tensor/addon';
import type { NativeVerbs } from '@lomo/tensor/addon';
import { loadCudaAddon } from './native.ts';
import type { Addon } from './native.ts';

function refuse(): never {
  throw new LomoError('NoDevice', 'cuda: this backend only plans: it answers for kernels and workspaces, and has neither a GPU nor memory; cuda() makes one that runs');
}

/** The table as the verbs of an addon: what needs a GPU is refused. */
function planningVerbs(addon: Addon, packet: Float64Array): NativeVerbs {
  const table = new addon.KernelTable(packet);
  return {
    find: (name, dtypes, ins, inouts) => table.find(name, dtypes, ins, inouts),
    attributes: (kernel) => table.attributes(kernel),
    supported: (name) => table.supported(name),
    workspace: () => table.workspace(),
    reserved: () => 0,
    stop: () => {},
    close: () => Promise.resolve(),
    reserve: refuse, release: refuse, view: refuse, launch: refuse, copy: refuse, wait: refuse, reached: refuse, tune: refuse, algorithms: refuse, adopt: refuse, write: refuse, read: refuse, counters: refuse, time: refuse, timed: refuse, drain: refuse,
  };
}

/** Kernels and workspaces as a GPU would have them, nothing else: every other verb throws NoDevice. A plan made with it is the plan of a run. */
export class CudaTable extends AddonBackend<NativeVerbs> {
  readonly name = 'cuda';
  readonly traits: BackendTraits;

  /** Throws MissingAddon. Opens nothing of CUDA. */
  constructor(options: { readonly addon?: string } = {}) {
    const addon = loadCudaAddon(options.addon);
    super((packet) => planningVerbs(addon, packet));
    this.traits = { chunk: addon.chunk };
  }

  wait(): never {
    return refuse();
  }
}

/** The table of this package's addon, or of the one at `addon`. */
export function cudaTable(options: { readonly addon?: string } = {}): CudaTable {
  return new CudaTable(options);
}
