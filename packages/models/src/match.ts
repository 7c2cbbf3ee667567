// Strict comparison of a checkpoint's tensors with what a model wants: every difference is collected before anything is loaded.
import { LomoError } from '@lomo/tensor';
import type { Checkpoint } from './checkpoint.ts';
import { isRealDiskType } from './safetensors/diskType.ts';
import type { RealDiskType } from './safetensors/diskType.ts';

/** A tensor a model wants. */
export interface WantedTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface MatchOptions {
  /** Names that may be stored a second time under another: tied head -> embedding. Accepted when the bytes are equal. */
  readonly ties?: ReadonlyMap<string, string>;
  /** Types accepted on disk; all three real ones unless given. */
  readonly dtypes?: readonly RealDiskType[];
}

/** One difference between a checkpoint and a model. */
export interface Mismatch {
  readonly kind: 'missing' | 'extra' | 'shape' | 'dtype' | 'tie';
  readonly tensor: string;
  readonly file: string;
  readonly expected: string;
  readonly found: string;
}

// Older transformers stored RoPE's frequencies; they follow from the configuration and nothing reads them.
const derived = /(^|\.)rotary_emb\.inv_freq$/;

/** Throws LomoError 'WeightsMismatch' with all differences in `details.mismatches` and the first ten in the message. */
export async function matchTensors(checkpoint: Checkpoint, wanted: readonly WantedTensor[], options: MatchOptions = {}): Promise<void> {
  const mismatches = await differences(checkpoint, wanted, options);
  if (mismatches.length === 0) return;
  const lines = mismatches.slice(0, 10).map((m) => `  ${m.kind}: ${m.tensor} in ${m.file}: expected ${m.expected}, found ${m.found}`);
  if (mismatches.length > 10) lines.push(`  ... and ${mismatches.length - 10} more`);
  throw new LomoError(
    'WeightsMismatch',
    `${checkpoint.folder}: the weights are not those config.json describes (${mismatches.length} differences); check that both belong together\n${lines.join('\n')}`,
    { folder: checkpoint.folder, mismatches },
  );
}

/** All differences, in the order of `wanted`, extras last. */
export async function differences(checkpoint: Checkpoint, wanted: readonly WantedTensor[], options: MatchOptions = {}): Promise<readonly Mismatch[]> {
  const found: Mismatch[] = [];
  const names = new Set(wanted.map((w) => w.name));
  const dtypes: readonly string[] = options.dtypes ?? ['F32', 'BF16', 'F16'];
  for (const { name: tensor, shape } of wanted) {
    const entry = checkpoint.tensors.get(tensor);
    if (entry === undefined) {
      found.push({ kind: 'missing', tensor, file: checkpoint.folder, expected: `[${shape.join(', ')}]`, found: 'nothing' });
      continue;
    }
    const file = entry.file.path;
    if (entry.shape.length !== shape.length || entry.shape.some((n, i) => n !== shape[i])) {
      found.push({ kind: 'shape', tensor, file, expected: `[${shape.join(', ')}]`, found: `[${entry.shape.join(', ')}]` });
    }
    if (!isRealDiskType(entry.dtype) || !dtypes.includes(entry.dtype)) {
      found.push({ kind: 'dtype', tensor, file, expected: dtypes.join(', '), found: entry.dtype });
    }
  }
  for (const [tensor, entry] of checkpoint.tensors) {
    if (names.has(tensor) || derived.test(tensor)) continue;
    const file = entry.file.path;
    const original = options.ties?.get(tensor);
    if (original === undefined) {
      found.push({ kind: 'extra', tensor, file, expected: 'no such tensor', found: `${entry.dtype} [${entry.shape.join(', ')}]` });
    } else if (!(await equalBytes(checkpoint, tensor, original))) {
      found.push({ kind: 'tie', tensor, file, expected: `the bytes of ${original}, to which config.json ties it`, found: 'others' });
    }
  }
  return found;
}

async function equalBytes(checkpoint: Checkpoint, a: string, b: string): Promise<boolean> {
  const left = checkpoint.tensors.get(a);
  const right = checkpoint.tensors.get(b);
  if (left === undefined || right === undefined || left.dtype !== right.dtype || left.bytes !== right.bytes) return false;
  let at = 0;
  let buffer = new Uint8Array(0);
  for await (const slice of left.file.slices(a)) {
    if (buffer.byteLength < slice.byteLength) buffer = new Uint8Array(slice.byteLength);
    const other = buffer.subarray(0, slice.byteLength);
    await right.file.read(b, other, at);
    if (Buffer.compare(slice, other) !== 0) return false;
    at += slice.byteLength;
  }
  return true;
}
