// Element types of safetensors files, and conversion of the real ones to and from a device's dtypes.
import type { DType } from '@lomo/tensor';
import { LomoError, fromF16, toBf16, toF16 } from '@lomo/tensor';

/** Bytes of one element of every type the format names in whole bytes. */
export const diskTypeBytes = {
  BOOL: 1, U8: 1, I8: 1, F8_E5M2: 1, F8_E4M3: 1, I16: 2, U16: 2, F16: 2, BF16: 2, I32: 4, U32: 4, F32: 4, F64: 8, I64: 8, U64: 8,
} as const;

export type DiskType = keyof typeof diskTypeBytes;

/** The types a weight may have on disk. */
export type RealDiskType = 'F32' | 'BF16' | 'F16';

const realOf = { f32: 'F32', bf16: 'BF16', f16: 'F16' } as const;

export function isDiskType(name: string): name is DiskType {
  return Object.hasOwn(diskTypeBytes, name);
}

export function isRealDiskType(type: DiskType): type is RealDiskType {
  return type === 'F32' || type === 'BF16' || type === 'F16';
}

/** The name on disk of a real dtype. Throws LomoError 'DTypeError' for the others. */
export function diskTypeOf(dtype: DType): RealDiskType {
  if (dtype === 'i32' || dtype === 'u8') throw new LomoError('DTypeError', `a weight cannot be ${dtype}; use f32, bf16 or f16`, { dtype });
  return realOf[dtype];
}

/** The device dtype of a real type on disk. */
export function dtypeOf(type: RealDiskType): DType {
  return type === 'F32' ? 'f32' : type === 'BF16' ? 'bf16' : 'f16';
}

/** The largest finite f16. */
export const largestHalf = 65504;

/** True when some element of `halves` (raw f16) is infinite or NaN: a number above `largestHalf` became that. */
export function overflowedHalf(halves: Uint16Array): boolean {
  return halves.some((bits) => (bits & 0x7c00) === 0x7c00);
}

/**
 * `bytes` (whole elements of `from`) as elements of `to`, rounded to nearest, ties to even. Returns a fresh array, or `bytes` itself
 * when the types are equal. `bytes` must start at a multiple of the element size of its buffer. `room`, where given, takes the result and is
 * overwritten by the next: twice the bytes are enough for any types.
 */
export function convert(bytes: Uint8Array, from: RealDiskType, to: RealDiskType, { room }: { readonly room?: ArrayBuffer } = {}): Uint8Array {
  if (from === to) return bytes;
  const count = bytes.byteLength / diskTypeBytes[from];
  if (from === 'F32') {
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, count);
    const out = new Uint16Array(room ?? new ArrayBuffer(2 * count), 0, count);
    if (to === 'BF16') narrow(bytes, out);
    else narrowToHalf(values, out);
    return new Uint8Array(out.buffer, 0, out.byteLength);
  }
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, count);
  if (to === 'F32') {
    const out = new Uint32Array(room ?? new ArrayBuffer(4 * count), 0, count);
    if (from === 'BF16') for (let i = 0; i < count; i++) out[i] = halves[i]! << 16;
    else widen(halves, new Float32Array(out.buffer, 0, count));
    return new Uint8Array(out.buffer, 0, out.byteLength);
  }
  const out = new Uint16Array(room ?? new ArrayBuffer(2 * count), 0, count);
  if (from === 'F16') for (let i = 0; i < count; i++) out[i] = toBf16(fromF16(halves[i]!));
  else {
    const value = new Float32Array(1);
    const bits = new Uint32Array(value.buffer);
    for (let i = 0; i < count; i++) {
      bits[0] = halves[i]! << 16;
      out[i] = toF16(value[0]!);
    }
  }
  return new Uint8Array(out.buffer, 0, out.byteLength);
}

function widen(halves: Uint16Array, out: Float32Array): void {
  const table = Float32Array.from({ length: 65536 }, (_, bits) => fromF16(bits));
  for (let i = 0; i < halves.length; i++) out[i] = table[halves[i]!]!;
}

// Most weights are normal f16 numbers and pass without a call.
function narrowToHalf(values: Float32Array, out: Uint16Array): void {
  const bits = new Uint32Array(values.buffer, values.byteOffset, out.length);
  for (let i = 0; i < out.length; i++) {
    const magnitude = bits[i]! & 0x7fffffff;
    const rebased = magnitude - 0x38000000;
    const normal = magnitude >= 0x38800000 && magnitude < 0x477ff000;
    out[i] = normal ? ((bits[i]! >>> 16) & 0x8000) | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13) : toF16(values[i]!);
  }
}

// The loop of toBf16 without its calls: a 7B checkpoint passes through here element by element.
function narrow(bytes: Uint8Array, out: Uint16Array): void {
  const bits = new Uint32Array(bytes.buffer, bytes.byteOffset, out.length);
  for (let i = 0; i < out.length; i++) {
    const b = bits[i]!;
    out[i] = (b & 0x7fffffff) > 0x7f800000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
}
