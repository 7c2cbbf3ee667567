// Elements of any safetensors type as numbers: what tensors of different types are compared by.
import { fromF16 } from '@lomo/tensor';
import type { DiskType } from './diskType.ts';
import { convert, diskTypeBytes, isRealDiskType } from './diskType.ts';

/**
 * `bytes` (whole elements of `dtype`, aligned to them) as numbers: f32 where the type is one of the three real ones, else f64. 64-bit integers
 * beyond 2^53 lose their last digits. `room`, where given, takes the result of the real ones and is overwritten by the next; twice the bytes are enough.
 */
export function numbersOf(bytes: Uint8Array, dtype: DiskType, room?: ArrayBuffer): Float32Array | Float64Array {
  if (isRealDiskType(dtype)) {
    const wide = convert(bytes, dtype, 'F32', room === undefined ? {} : { room });
    return new Float32Array(wide.buffer, wide.byteOffset, wide.byteLength / 4);
  }
  const { buffer, byteOffset } = bytes;
  const count = bytes.byteLength / diskTypeBytes[dtype];
  switch (dtype) {
    case 'F64': return new Float64Array(buffer, byteOffset, count);
    case 'I64': return Float64Array.from(new BigInt64Array(buffer, byteOffset, count), Number);
    case 'U64': return Float64Array.from(new BigUint64Array(buffer, byteOffset, count), Number);
    case 'I32': return Float64Array.from(new Int32Array(buffer, byteOffset, count));
    case 'U32': return Float64Array.from(new Uint32Array(buffer, byteOffset, count));
    case 'I16': return Float64Array.from(new Int16Array(buffer, byteOffset, count));
    case 'U16': return Float64Array.from(new Uint16Array(buffer, byteOffset, count));
    case 'I8': return Float64Array.from(new Int8Array(buffer, byteOffset, count));
    case 'U8':
    case 'BOOL': return Float64Array.from(bytes);
    // The upper half of an f16.
    case 'F8_E5M2': return Float64Array.from(bytes, (bits) => fromF16(bits << 8));
    case 'F8_E4M3': return Float64Array.from(bytes, e4m3);
    default: return dtype satisfies never;
  }
}

/** Four bits of exponent (bias 7), three of fraction, no infinity; all ones is no number. */
function e4m3(bits: number): number {
  const sign = bits & 0x80 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 3) & 15, bits & 7];
  if (exponent === 15 && fraction === 7) return NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -9 : (1 + fraction / 8) * 2 ** (exponent - 7));
}
