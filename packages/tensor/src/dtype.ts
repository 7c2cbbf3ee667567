// Element types, their sizes, and exact conversions between numbers and 16-bit storage.
export type DType = 'f32' | 'bf16' | 'f16' | 'i32' | 'u8';

/** All dtypes, in the order of `lomo::DType` in native/lomo/kernel.h: the index crosses the language border. */
export const dtypes = ['f32', 'bf16', 'f16', 'i32', 'u8'] as const satisfies readonly DType[];

const sizes = { f32: 4, bf16: 2, f16: 2, i32: 4, u8: 1 } as const satisfies Record<DType, number>;

/** Bytes of one element. */
export function sizeOf(dtype: DType): number {
  return sizes[dtype];
}

/** True for the dtypes that hold fractions. */
export function isReal(dtype: DType): boolean {
  return dtype === 'f32' || dtype === 'bf16' || dtype === 'f16';
}

/**
 * The dtype of activations and of arithmetic beside weights of `dtype`: f16 is storage, so f32 beside f16; otherwise the same.
 */
export function activationOf(dtype: DType): DType {
  return dtype === 'f16' ? 'f32' : dtype;
}

export type TypedArray = Float32Array | Uint16Array | Int32Array | Uint8Array;

/** A typed array over `buffer` that matches `dtype`; bf16 and f16 are their raw 16 bits. */
export function typedArray(dtype: DType, buffer: ArrayBuffer, byteOffset = 0, length?: number): TypedArray {
  const count = length ?? (buffer.byteLength - byteOffset) / sizes[dtype];
  switch (dtype) {
    case 'f32':
      return new Float32Array(buffer, byteOffset, count);
    case 'bf16':
    case 'f16':
      return new Uint16Array(buffer, byteOffset, count);
    case 'i32':
      return new Int32Array(buffer, byteOffset, count);
    case 'u8':
      return new Uint8Array(buffer, byteOffset, count);
    default:
      throw new Error(`dtype ${String(dtype satisfies never)}`);
  }
}

const scratch = new DataView(new ArrayBuffer(8));

function bitsOf(x: number): number {
  scratch.setFloat32(0, x);
  return scratch.getUint32(0);
}

/** Nearest bf16 (ties to even) of the float32 nearest to `x`, as its 16 bits. */
export function toBf16(x: number): number {
  const bits = bitsOf(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40; // keep a NaN a NaN
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The value of 16 bits of bf16. */
export function fromBf16(bits: number): number {
  scratch.setUint32(0, (bits << 16) >>> 0);
  return scratch.getFloat32(0);
}

/** Nearest f16 (ties to even) of the float32 nearest to `x`, as its 16 bits. */
export function toF16(x: number): number {
  const bits = bitsOf(x);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity
  if (magnitude < 0x38800000) {
    // Subnormal: in units of 2^-24, rounded to even by the float64 addition below.
    scratch.setUint32(0, magnitude);
    const units = scratch.getFloat32(0) * 2 ** 24;
    const floor = Math.floor(units);
    const rest = units - floor;
    return sign | (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor);
  }
  const rebased = magnitude - 0x38000000;
  return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
}

/** The value of 16 bits of f16. */
export function fromF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Numbers as the raw elements of `dtype`, rounded to nearest even. */
export function encode(dtype: DType, from: ArrayLike<number>): TypedArray {
  if (dtype === 'bf16' || dtype === 'f16') return Uint16Array.from(from, dtype === 'bf16' ? toBf16 : toF16);
  if (dtype === 'f32') return Float32Array.from(from);
  return dtype === 'i32' ? Int32Array.from(from) : Uint8Array.from(from);
}

/** Raw elements of `dtype` as numbers. */
export function decode(dtype: DType, from: TypedArray): Float64Array {
  if (dtype === 'bf16' || dtype === 'f16') return Float64Array.from(from, dtype === 'bf16' ? fromBf16 : fromF16);
  return Float64Array.from(from);
}

