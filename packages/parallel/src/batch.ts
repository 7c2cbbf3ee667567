// Micro-batches on the device: fixed capacity, so that every step has the shape of the plan.
import type { Batch, Device, HeadForm, StepTensor, Tensor } from '@lomo/tensor';
import { LomoError } from '@lomo/tensor';

/** One micro-batch on the host: T packed tokens. `starts` are segment starts, padded with T; targets below 0 are masked. */
export interface HostBatch {
  readonly tokens: Int32Array;
  readonly targets: Int32Array;
  readonly positions: Int32Array;
  readonly starts: Int32Array;
}

export interface BatchShape {
  /** Tokens of a micro-batch. */
  readonly tokens: number;
  /** Segments a micro-batch can hold. */
  readonly maxSegments: number;
  /** Longest segment. */
  readonly maxLength: number;
}

/** Device storage for M micro-batches, filled anew every step. */
export class BatchStore {
  readonly batches: readonly Batch[];
  private readonly device: Device;
  private readonly shape: BatchShape;

  constructor(device: Device, shape: BatchShape, options: { readonly microBatches: number; readonly step: StepTensor; readonly headForm: HeadForm }) {
    this.device = device;
    this.shape = shape;
    const { microBatches: count, step, headForm } = options;
    const { tokens: size, maxSegments, maxLength } = shape;
    const io = (length: number, dtype: 'i32' | 'f32'): Tensor => device.allocate({ shape: [count * length], dtype }, 'io');
    const [tokens, targets, positions, starts, tokenLoss] = [io(size, 'i32'), io(size, 'i32'), io(size, 'i32'), io(maxSegments + 1, 'i32'), io(size, 'f32')];
    this.batches = Array.from({ length: count }, (_, m) => {
      const part = (t: Tensor): Tensor => t.rows(m * size, (m + 1) * size);
      return {
        tokens: part(tokens),
        targets: part(targets),
        positions: part(positions),
        starts: starts.rows(m * (maxSegments + 1), (m + 1) * (maxSegments + 1)),
        tokenLoss: part(tokenLoss),
        maxLength,
        start: m * size,
        step,
        headForm,
      };
    });
  }

  /** Writes a host batch into place `m`. Throws BatchShapeError when it has another shape than the plan's. */
  write(m: number, host: HostBatch): void {
    const { tokens, maxSegments } = this.shape;
    const batch = this.batches[m]!;
    const expected = { tokens, targets: tokens, positions: tokens, starts: maxSegments + 1 };
    for (const name of ['tokens', 'targets', 'positions', 'starts'] as const) {
      if (host[name].length !== expected[name]) {
        throw new LomoError('BatchShapeError', `micro-batch ${m}: ${name} has ${host[name].length} elements, the plan has ${expected[name]}`, { microBatch: m, name });
      }
      this.device.write(batch[name], host[name]);
    }
  }
}
