// A device on the float64 reference with exact reads and writes, and one walk over one recorded function: what tape tests share.
import { Device, Ledger, Random, ReferenceBackend, Tape, tensorOps } from '../src/index.ts';
import type { LedgerOptions, Parameter, Tensor } from '../src/index.ts';

export interface Settled {
  readonly path: string;
  readonly gradient: readonly number[];
  readonly order: number;
}

/** One device with what tests do to it; give it back with `free`. */
export class Bench {
  readonly backend = new ReferenceBackend({ ops: tensorOps, chunk: 8 });
  readonly device = new Device(this.backend, { bytes: 4 << 20 });
  readonly random = new Random(11);
  readonly settled: Settled[] = [];
  private readonly owned: Tensor[] = [];

  tensor(shape: readonly number[], values: ArrayLike<number> = this.random.normal(shape.reduce((a, b) => a * b, 1))): Tensor {
    const tensor = this.device.allocate({ shape, dtype: 'f32' }, 'workspace');
    this.backend.writeExact(tensor, values);
    this.owned.push(tensor);
    return tensor;
  }

  parameter(path: string, shape: readonly number[], trainable = true): Parameter {
    const p = this.device.parameter(path, { shape, dtype: 'f32', trainable });
    this.backend.writeExact(p, this.random.normal(shape.reduce((a, b) => a * b, 1)));
    this.owned.push(p);
    return p;
  }

  read(tensor: Tensor): number[] {
    return [...this.backend.readExact(tensor)];
  }

  /** A ledger that writes down what settles; `also` runs at each settle. */
  ledger(options: Partial<LedgerOptions> = {}, also: (p: Parameter) => void = () => {}): Ledger {
    return new Ledger(this.device, {
      microBatches: 1,
      accumulate: 'buffer',
      ...options,
      settle: (p, grad, order) => {
        using value = grad.value();
        this.settled.push({ path: p.path, gradient: this.read(value), order });
        also(p);
      },
    });
  }

  record(ledger: Ledger, arriving: Tensor | null, forward: () => Tensor): { readonly tape: Tape; readonly out: Tensor } {
    const tape = new Tape(this.device, arriving, (p) => ledger.hold(p));
    const out = this.device.under({ category: 'saved', recorder: tape }, () =>
      this.device.own(() => {
        const result = forward();
        return { result, keep: [result] };
      }),
    );
    this.owned.push(out);
    return { tape, out };
  }

  /** Walks back from a gradient of ones, or from `dy`. */
  walk(ledger: Ledger, recorded: { readonly tape: Tape; readonly out: Tensor }, options: { readonly dy?: ArrayLike<number>; readonly microBatch?: number } = {}): number[] | null {
    const { tape, out } = recorded;
    const dy = this.device.allocate({ shape: out.shape, dtype: 'f32' }, 'workspace');
    this.backend.writeExact(dy, options.dy ?? new Float64Array(out.shape.reduce((a, b) => a * b, 1)).fill(1));
    using dx = tape.walk(out, dy, { ledger, microBatch: options.microBatch ?? 0, stage: 'stage', stores: ledger.factorStores('stage') });
    return dx === null ? null : this.read(dx);
  }

  /** Gives everything the bench made back; returns the bytes that somebody else forgot. */
  free(): number {
    for (const tensor of this.owned.splice(0)) tensor.dispose();
    const { live } = this.device.arena;
    this.device.free();
    return live;
  }
}

/** a b^T for row-major a [m, k] and b [n, k]. */
export function timesTransposed(a: readonly number[], b: readonly number[], k: number): number[] {
  const [m, n] = [a.length / k, b.length / k];
  return Array.from({ length: m * n }, (_, at) => {
    let sum = 0;
    for (let j = 0; j < k; j++) sum += a[Math.floor(at / n) * k + j]! * b[(at % n) * k + j]!;
    return sum;
  });
}

/** The transpose of row-major a [m, n]. */
export function transposed(a: readonly number[], n: number): number[] {
  const m = a.length / n;
  return Array.from({ length: m * n }, (_, at) => a[(at % m) * n + Math.floor(at / m)]!);
}
