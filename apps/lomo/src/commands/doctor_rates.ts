// What a device does in a second, measured: matrix products, copies inside its memory, copies from the host and back.
import { Device, matmul } from '@lomo/tensor';
import type { Backend, DType, Memory } from '@lomo/tensor';

/** A measured rate and the size it was measured at. */
export interface Rate {
  /** Floating-point operations, or bytes, in a second. */
  readonly perSecond: number;
  /** Of a square matrix: its side; of a copy: its bytes. */
  readonly size: number;
}

/** Milliseconds one piece of work takes at least before its size is large enough to be measured. */
const longEnough = 3;
/** Milliseconds of work between two looks at the clock. */
const stretch = 20;
const repeats = 5;
const mebibyte = 2 ** 20;

/** Milliseconds of one run: the best of some stretches, each as long as many runs take. The first run, which loads and prepares, is not counted. */
async function best(run: () => void, reached: () => Promise<unknown>): Promise<{ readonly once: number; readonly finely: () => Promise<number> }> {
  const stretchOf = async (n: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < n; i++) run();
    await reached();
    return (performance.now() - start) / n;
  };
  await stretchOf(1);
  const once = await stretchOf(1);
  const finely = async (): Promise<number> => {
    const n = Math.max(1, Math.min(64, Math.round(stretch / once)));
    let least = Infinity;
    for (let i = 0; i < repeats; i++) least = Math.min(least, await stretchOf(n));
    return least;
  };
  return { once, finely };
}

/** The rate of square products of `dtype`, in f32 sums, at the first size that takes long enough; `room`: bytes that may be used. */
export async function productRate(backend: Backend, dtype: DType, { from = 256, to = 8192, room }: { readonly from?: number; readonly to?: number; readonly room: number }): Promise<Rate> {
  for (let side = from; ; side *= 2) {
    const device = new Device(backend, { bytes: 3 * 4 * side * side + 64 * mebibyte });
    try {
      const make = () => device.allocate({ shape: [side, side], dtype }, 'workspace');
      const [a, b, c] = [make(), make(), make()];
      const { once, finely } = await best(() => void matmul(a, b, { tb: true, into: c }), () => device.reached());
      const last = side * 2 > to || 3 * 4 * (2 * side) ** 2 + 64 * mebibyte > room;
      if (once < longEnough && !last) continue;
      return { perSecond: (2000 * side ** 3) / (await finely()), size: side };
    } finally {
      device.free();
    }
  }
}

/** Bytes a second that a copy moves one way between two places; inside the device each byte is read and written, and counts once. */
export async function copyRate(backend: Backend, places: { readonly to: Memory['place']; readonly from: Memory['place'] }, { most, room }: { readonly most: number; readonly room: number }): Promise<Rate> {
  for (let bytes = 4 * mebibyte; ; bytes *= 2) {
    const [to, from] = [backend.memory(places.to, bytes), backend.memory(places.from, bytes)];
    try {
      const region = (memory: Memory) => ({ memory, offset: 0, shape: [bytes], dtype: 'u8' as const });
      const { once, finely } = await best(() => void backend.copy(region(to), region(from), 'compute'), () => backend.read({ ...region(to), shape: [1] }));
      const last = bytes * 2 > most || 4 * bytes > room;
      if (once < longEnough && !last) continue;
      return { perSecond: (1000 * bytes) / (await finely()), size: bytes };
    } finally {
      to.free();
      from.free();
    }
  }
}
