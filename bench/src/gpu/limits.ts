// What this GPU can do at best, measured in the process that asks: bursts with one wait at their end, on numbers that are no zeros.
import type { Tensor } from '@lomo/tensor';
import { Device, matmulOp, normalFill, scaleOp } from '@lomo/tensor';
import type { CudaBackend } from '@lomo/cuda';

/** Operations and bytes a second. */
export interface GpuLimits {
  /** Of the best bf16 product. */
  readonly products: number;
  /** That product's size. */
  readonly size: number;
  /** Bytes read and written by the better of a copy and a kernel that only scales. */
  readonly bytes: number;
}

export interface LimitSizes {
  /** Edges of square products. */
  readonly edges: readonly number[];
  /** Bytes copied at once. */
  readonly copied: number;
  /** Milliseconds of a burst. */
  readonly burst: number;
}

/** Larger than any cache, and long enough that a launch is nothing. */
export const gpuSizes: LimitSizes = { edges: [4096, 8192], copied: 2 ** 30, burst: 150 };
/** For the double. */
export const tinySizes: LimitSizes = { edges: [32, 64], copied: 2 ** 16, burst: 1 };

/** Measures both limits. Throws what the backend throws. */
export async function measureGpuLimits(backend: CudaBackend, { edges, copied, burst }: LimitSizes): Promise<GpuLimits> {
  const largest = Math.max(...edges);
  const device = new Device(backend, { bytes: Math.max(3 * 2 * largest ** 2 + 2 ** 26, 2 * copied) + 2 ** 20 });
  try {
    let [products, size] = [0, 0];
    for (const edge of edges) {
      const [a, b, c] = [1, 2, 3].map(() => device.allocate({ shape: [edge, edge], dtype: 'bf16' }, 'workspace')) as [Tensor, Tensor, Tensor];
      for (const [key, x] of [a, b].entries()) normalFill(x, { key, seed: 1, mean: 0, std: 1 });
      for (const tb of [0, 1]) {
        const rate = (2 * edge ** 3) / (await secondsOf(device, c, { burst, run: () => void device.run(matmulOp, { ins: [a, b], outs: [c] }, { ta: 0, tb, alpha: 1 }) }));
        if (rate > products) [products, size] = [rate, edge];
      }
      for (const x of [a, b, c]) x.dispose();
    }
    const [from, to] = [1, 2].map(() => device.allocate({ shape: [copied / 4], dtype: 'f32' }, 'workspace')) as [Tensor, Tensor];
    normalFill(from, { key: 3, seed: 1, mean: 0, std: 1 });
    const scaled = await secondsOf(device, to, { burst, run: () => void device.run(scaleOp, { ins: [from], outs: [to] }, { factor: 1 }) });
    const moved = await secondsOf(device, to, { burst, run: () => void device.copy(to, from) });
    return { products, size, bytes: (2 * copied) / Math.min(scaled, moved) };
  } finally {
    device.free();
  }
}

/** Seconds of one run, of the best of three bursts of at least `burst` milliseconds. */
async function secondsOf(device: Device, result: Tensor, { burst, run }: { readonly burst: number; readonly run: () => void }): Promise<number> {
  const one = result.reshape([result.bytes / (result.dtype === 'bf16' ? 2 : 4)]).rows(0, 1);
  const time = async (count: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < count; i++) run();
    await device.read(one);
    return (performance.now() - start) / count / 1000;
  };
  await time(1);
  const count = Math.max(1, Math.ceil(burst / 1000 / (await time(2))));
  return Math.min(await time(count), await time(count), await time(count));
}
