// What the tests share: one memory, regions laid out in it, and a launch with its workspace.
import { numel, Random, sizeOf, toBf16, fromBf16 } from '@lomo/tensor';
import type { DType, KernelSignature, Memory, Region } from '@lomo/tensor';
import type { CpuBackend, CpuOptions } from '../src/index.ts';

export type Real = 'f32' | 'bf16';

/** LOMO_TEST_ONEDNN=/path/to/libdnnl.so.3 runs the product tests on that library instead of the installed one. */
export const oneDnn: Pick<CpuOptions, 'oneDnn'> = process.env['LOMO_TEST_ONEDNN'] === undefined ? {} : { oneDnn: process.env['LOMO_TEST_ONEDNN'] };

export interface Regions {
  readonly ins?: readonly Region[];
  readonly inouts?: readonly Region[];
  readonly outs?: readonly Region[];
}

/** The dtypes of some regions. */
export function signatureOf({ ins = [], inouts = [], outs = [] }: Regions): KernelSignature {
  const types = (regions: readonly Region[]): readonly DType[] => regions.map((r) => r.dtype);
  return { ins: types(ins), inouts: types(inouts), outs: types(outs) };
}

/** Regions of one memory, one after another; `reset` starts again. */
export class Arena {
  readonly memory: Memory;
  private at = 0;

  constructor(
    readonly backend: CpuBackend,
    bytes: number,
  ) {
    this.memory = backend.memory('device', bytes);
  }

  reset(): void {
    this.at = 0;
  }

  region(shape: readonly number[], dtype: DType = 'f32'): Region {
    const region = { memory: this.memory, offset: this.at, shape, dtype };
    this.at += Math.ceil((numel(shape) * sizeOf(dtype)) / 256) * 256;
    return region;
  }

  put(shape: readonly number[], dtype: DType, data: ArrayBufferView): Region {
    const region = this.region(shape, dtype);
    this.backend.write(region, data);
    return region;
  }

  /** Enqueues a kernel with the workspace it asks for, which lies behind everything placed so far. */
  launch(name: string, regions: Regions, attributes: readonly number[] = []): void {
    const { ins = [], inouts = [], outs = [] } = regions;
    const kernel = this.backend.kernel(name, signatureOf(regions));
    if (kernel === null) throw new Error(`no kernel ${name}`);
    const bytes = this.backend.workspace(kernel, { ins, inouts, outs, workspace: null }, attributes);
    const before = this.at;
    const workspace = bytes === 0 ? null : this.region([bytes], 'u8');
    this.at = before;
    this.backend.launch(kernel, { ins, inouts, outs, workspace }, attributes, 'compute');
  }

  async bytes(region: Region): Promise<Buffer> {
    return Buffer.from(await this.backend.read(region));
  }

  /** The region's numbers. */
  async values(region: Region): Promise<Float64Array> {
    const raw = await this.backend.read(region);
    if (region.dtype === 'f32') return Float64Array.from(new Float32Array(raw));
    return Float64Array.from(new Uint16Array(raw), fromBf16);
  }
}

/** `n` numbers in [-1, 1), as storage of `dtype`, and the values that storage holds. */
export function draw(random: Random, n: number, dtype: Real): { readonly data: Float32Array | Uint16Array; readonly values: Float64Array } {
  let state = random.int(1, 0x7fffffff); // xorshift: these tests draw millions
  const raw = Float32Array.from({ length: n }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state / 2 ** 31;
  });
  if (dtype === 'f32') return { data: raw, values: Float64Array.from(raw) };
  const data = Uint16Array.from(raw, toBf16);
  return { data, values: Float64Array.from(data, fromBf16) };
}
