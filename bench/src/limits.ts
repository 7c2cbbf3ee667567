// What this machine can do at best, measured in the run that is judged by it: products a second, bytes a second.
import type { Backend, Tensor } from '@lomo/tensor';
import { Device, matmulOp, scaleOp } from '@lomo/tensor';

export interface Limits {
  /** Floating-point operations a millisecond, of the best product met. */
  readonly flops: number;
  /** Bytes a millisecond, read and written together, of the best of a copy and a kernel that only scales. */
  readonly bytes: number;
}

const mebibyte = 2 ** 20;

/** Large square products, and two passes over memory that no cache holds. `dtype` is what products multiply. */
export async function measureLimits(backend: Backend, dtype: 'f32' | 'bf16'): Promise<Limits> {
  const device = new Device(backend, { bytes: 3 * 160 * mebibyte });
  const rates: number[] = [];
  for (const n of [1024, 2048]) {
    const [a, b, c] = [0, 1, 2].map(() => device.allocate({ shape: [n, n], dtype }, 'workspace')) as [Tensor, Tensor, Tensor];
    for (const x of [a, b]) device.writeNumbers(x, Float64Array.from({ length: n * n }, (_, i) => (i % 17) / 17));
    for (const tb of [0, 1]) rates.push((2 * n ** 3) / (await least(device, c, () => void device.run(matmulOp, { ins: [a, b], outs: [c] }, { ta: 0, tb, alpha: 1 }))));
    for (const x of [a, b, c]) x.dispose();
  }
  const [from, to] = [0, 1].map(() => device.allocate({ shape: [32 * mebibyte], dtype: 'f32' }, 'workspace')) as [Tensor, Tensor];
  const scaled = await least(device, to, () => void device.run(scaleOp, { ins: [from], outs: [to] }, { factor: 1 }));
  const copied = await least(device, to, () => void device.copy(to, from));
  const bytes = (from.bytes + to.bytes) / Math.min(scaled, copied);
  device.free();
  return { flops: Math.max(...rates), bytes };
}

/** `limits`, or the best rate of the `timed` products where one of them was better: no product may be said to beat the best. */
export function raised(limits: Limits, timed: readonly { readonly op: string; readonly flops: number; readonly milliseconds: number }[]): Limits {
  const rates = timed.filter(({ op, milliseconds }) => milliseconds > 0.1 && (op.startsWith('matmul') || op.startsWith('weight_grad'))).map(({ flops, milliseconds }) => flops / milliseconds);
  return { ...limits, flops: Math.max(limits.flops, ...rates) };
}

/** Least milliseconds of five runs. */
async function least(device: Device, result: Tensor, run: () => void): Promise<number> {
  const one = result.reshape([result.bytes / (result.dtype === 'bf16' ? 2 : 4)]).rows(0, 1);
  let best = Infinity;
  for (let i = 0; i < 6; i++) {
    const start = performance.now();
    run();
    await device.read(one);
    if (i > 0) best = Math.min(best, performance.now() - start);
  }
  return best;
}
