// Which kernel of a backend an op runs with: found by its name and its operands' dtypes, once for every combination.
import type { Backend, Kernel } from './backend.ts';
import { dtypes } from './dtype.ts';
import type { DType } from './dtype.ts';
import { LomoError } from './errors.ts';
import type { Attributes, Op } from './op.ts';
import type { Spec } from './shape.ts';

/** Operands of a launch, of which only dtypes matter here. */
interface Typed {
  readonly ins: readonly Spec[];
  readonly inouts: readonly Spec[];
  readonly outs: readonly Spec[];
}

/** The kernels of one backend that have been asked for. */
export class Kernels {
  private readonly backend: Backend;
  private readonly known = new Map<string, Map<number, Kernel>>();

  constructor(backend: Backend) {
    this.backend = backend;
  }

  /** Throws MissingKernel where the backend has none for these dtypes, AttributeMismatch where it takes other attributes than the op gives. */
  of<A extends Attributes>(op: Op<A>, { ins, inouts, outs }: Typed): Kernel {
    let key = 0;
    for (const t of ins) key = key * 7 + code(t.dtype);
    key = key * 7 + 6;
    for (const t of inouts) key = key * 7 + code(t.dtype);
    key = key * 7 + 6;
    for (const t of outs) key = key * 7 + code(t.dtype);
    let known = this.known.get(op.name);
    if (known === undefined) this.known.set(op.name, (known = new Map()));
    const found = known.get(key);
    if (found !== undefined) return found;
    const signature = { ins: ins.map((t) => t.dtype), inouts: inouts.map((t) => t.dtype), outs: outs.map((t) => t.dtype) };
    const kernel = this.backend.kernel(op.name, signature);
    if (kernel === null) {
      const has = this.backend.supported(op.name);
      const wanted = [signature.ins, signature.inouts, signature.outs].map((s) => s.join(', ')).join(' | ');
      throw new LomoError(
        'MissingKernel',
        `'${op.name}' has no kernel for ${wanted} on ${this.backend.name} (has: ${has.length === 0 ? 'none' : has.join('; ')})`,
        { op: op.name, signature, has },
      );
    }
    if (kernel.attributes.join() !== op.attributes.map(snakeCase).join()) {
      throw new LomoError('AttributeMismatch', `'${op.name}' on ${this.backend.name} takes (${kernel.attributes.join(', ')}), the op gives (${op.attributes.join(', ')})`);
    }
    known.set(key, kernel);
    return kernel;
  }
}

/** Kernels spell attributes in snake_case: 'maxQ' is their 'max_q'. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** From 1: a 0 would make one operand more look like none. */
function code(dtype: DType): number {
  return dtypes.indexOf(dtype) + 1;
}
