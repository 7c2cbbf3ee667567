// Opens a backend by name. The only place that knows which packages they are; each is imported when it is asked for.
import { optimOps } from '@lomo/optim';
import type { Backend, Op } from '@lomo/tensor';
import { ReferenceBackend, tensorOps } from '@lomo/tensor';

export interface OpenedBackend {
  readonly backend: Backend;
  /** What equal bits need beside equal settings. */
  readonly machine: Readonly<Record<string, string>>;
  /** One line for a person. */
  readonly description: string;
}

/** Throws what the backend throws: a missing library names the package that brings it. `ops` are plugins' own, which the reference can run. */
export async function openBackend(name: 'cpu' | 'reference', options: { readonly threads?: number | undefined; readonly ops?: readonly Op[] } = {}): Promise<OpenedBackend> {
  if (name === 'reference') {
    const backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps, ...(options.ops ?? [])], precision: 'f32' });
    return { backend, machine: { backend: 'reference', node: process.version }, description: 'reference (float64 loops: the definition, slow)' };
  }
  const { cpu } = await import('@lomo/cpu');
  const backend = cpu(options.threads === undefined ? {} : { threads: options.threads });
  const libraries = backend.libraries.map((library) => `${library.name} ${library.version}`).join(', ');
  return {
    backend,
    machine: { backend: 'cpu', isa: backend.isa, libraries, chunk: String(backend.traits.chunk) },
    description: `cpu, ${backend.threads} ${backend.threads === 1 ? 'thread' : 'threads'}, ${backend.isa}, ${libraries}`,
  };
}

/** Bytes this process may still take, cgroup limits included. */
export function freeMemory(): number {
  return process.availableMemory();
}
