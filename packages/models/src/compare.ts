// Two sets of tensors compared one by one, slice by slice: bytes first, numbers only where bytes differ. What `lomo diff` shows.
import type { CheckpointTensor } from './checkpoint.ts';
import type { DiskType } from './safetensors/diskType.ts';
import { diskTypeBytes } from './safetensors/diskType.ts';
import { numbersOf } from './safetensors/numbers.ts';

/** Elements of a slice; both tensors' slices and their numbers are all that is held. */
const sliceElements = 2 ** 19;

/** What a tensor is in one of the two sets. */
export interface TensorKind {
  readonly dtype: DiskType;
  readonly shape: readonly number[];
}

/**
 * One tensor of two sets. 'equal': the same type and bytes; 'different': the same shape, other bytes or another type; 'shape': other sizes;
 * 'missing': only in the first, 'extra': only in the second. The numbers are 0 for all but 'different'.
 */
export interface TensorComparison {
  readonly name: string;
  readonly kind: 'equal' | 'different' | 'shape' | 'missing' | 'extra';
  readonly a: TensorKind | null;
  readonly b: TensorKind | null;
  /** Of the first, or of the second where there is no first. */
  readonly elements: number;
  /** Elements with other bits, or, between two types, of another value. */
  readonly changed: number;
  /** Largest |b - a| of the finite ones. */
  readonly maxAbsolute: number;
  /** Largest |b - a| / max(|a|, |b|) of the finite ones; 2 is a change of sign. */
  readonly maxRelative: number;
  /** Elements that are infinite or no number on one side and something else on the other. */
  readonly unordered: number;
  /** Sum of squares of a, and of b - a, over the finite ones. */
  readonly squares: number;
  readonly changeSquares: number;
}

/** Compares tensors by name, in the order of `a`, then those that only `b` has. Memory: some 10 MiB, whatever the tensors. */
export async function* compareTensors(a: ReadonlyMap<string, CheckpointTensor>, b: ReadonlyMap<string, CheckpointTensor>): AsyncGenerator<TensorComparison, void, void> {
  const rooms = [new Room(), new Room()] as const;
  for (const [name, left] of a) {
    const right = b.get(name);
    if (right === undefined) yield { ...untouched, name, kind: 'missing', a: kindOf(left), b: null, elements: elementsOf(left) };
    else if (left.shape.length !== right.shape.length || left.shape.some((n, i) => n !== right.shape[i])) yield { ...untouched, name, kind: 'shape', a: kindOf(left), b: kindOf(right), elements: elementsOf(left) };
    else yield await compareOne(left, right, rooms);
  }
  for (const [name, right] of b) if (!a.has(name)) yield { ...untouched, name, kind: 'extra', a: null, b: kindOf(right), elements: elementsOf(right) };
}

const untouched = { changed: 0, maxAbsolute: 0, maxRelative: 0, unordered: 0, squares: 0, changeSquares: 0 };

/** What one side is read into, whatever its type: 8 bytes an element, and the same again for its numbers. */
class Room {
  readonly bytes = new Uint8Array(8 * sliceElements);
  readonly numbers = new ArrayBuffer(8 * sliceElements);
}

async function compareOne(left: CheckpointTensor, right: CheckpointTensor, [mine, theirs]: readonly [Room, Room]): Promise<TensorComparison> {
  const elements = elementsOf(left);
  const isSameType = left.dtype === right.dtype;
  const sums = { ...untouched };
  let isEqual = isSameType;
  for (let at = 0; at < elements; at += sliceElements) {
    const count = Math.min(sliceElements, elements - at);
    const [x, y] = await Promise.all([slice(left, { at, count, room: mine }), slice(right, { at, count, room: theirs })]);
    if (isSameType && Buffer.compare(x, y) === 0) {
      if (!isEqual) sums.squares += squaresOf(numbersOf(x, left.dtype, mine.numbers));
      continue;
    }
    if (isSameType) sums.changed += otherBits(x, y, diskTypeBytes[left.dtype]);
    addNumbers(sums, { a: numbersOf(x, left.dtype, mine.numbers), b: numbersOf(y, right.dtype, theirs.numbers), counts: !isSameType });
    // What was equal so far was not looked at as numbers, and belongs to the norm that the change is measured by.
    for (let before = 0; isEqual && before < at; before += sliceElements) sums.squares += squaresOf(numbersOf(await slice(left, { at: before, count: sliceElements, room: mine }), left.dtype, mine.numbers));
    isEqual = false;
  }
  return { ...(isEqual ? untouched : sums), name: left.name, kind: isEqual ? 'equal' : 'different', a: kindOf(left), b: kindOf(right), elements };
}

async function slice(tensor: CheckpointTensor, part: { readonly at: number; readonly count: number; readonly room: Room }): Promise<Uint8Array> {
  const width = diskTypeBytes[tensor.dtype];
  const into = part.room.bytes.subarray(0, part.count * width);
  await tensor.file.read(tensor.name, into, part.at * width);
  return into;
}

/** Elements of `width` bytes that differ in some bit. */
function otherBits(x: Uint8Array, y: Uint8Array, width: number): number {
  const words = (bytes: Uint8Array) => (width === 1 ? bytes : width === 2 ? new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2) : new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4));
  const [a, b] = [words(x), words(y)];
  let count = 0;
  if (width === 8) for (let i = 0; i < a.length; i += 2) count += a[i] !== b[i] || a[i + 1] !== b[i + 1] ? 1 : 0;
  else for (let i = 0; i < a.length; i++) count += a[i] !== b[i] ? 1 : 0;
  return count;
}

type Sums = { -readonly [K in keyof typeof untouched]: number };

function addNumbers(sums: Sums, { a, b, counts }: { readonly a: Float32Array | Float64Array; readonly b: Float32Array | Float64Array; readonly counts: boolean }): void {
  let { changed, maxAbsolute, maxRelative, unordered, squares, changeSquares } = sums;
  for (let i = 0; i < a.length; i++) {
    const x = a[i]!;
    const y = b[i]!;
    const change = y - x;
    if (change === 0) {
      squares += x * x;
      continue;
    }
    const size = Math.abs(change);
    if (size < Infinity) {
      if (counts) changed++;
      squares += x * x;
      changeSquares += change * change;
      if (size > maxAbsolute) maxAbsolute = size;
      const relative = size / Math.max(Math.abs(x), Math.abs(y));
      if (relative > maxRelative) maxRelative = relative;
    } else if (!Object.is(x, y)) {
      // Infinity against a number, or something that is none; two equal infinities subtract to NaN and are the same.
      if (counts) changed++;
      unordered++;
    }
  }
  Object.assign(sums, { changed, maxAbsolute, maxRelative, unordered, squares, changeSquares });
}

function squaresOf(values: Float32Array | Float64Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    const square = values[i]! * values[i]!;
    if (square < Infinity) sum += square;
  }
  return sum;
}

function kindOf({ dtype, shape }: CheckpointTensor): TensorKind {
  return { dtype, shape };
}

function elementsOf({ bytes, dtype }: CheckpointTensor): number {
  return bytes / diskTypeBytes[dtype];
}
