// Headers of safetensors files: valid ones that must be accepted, and the same with one or more lies in them.
import { SafetensorsFile, defaultLimits, headerLength, parseHeader } from '@lomo/models';
import type { Header } from '@lomo/models';
import type { Dice } from './dice.ts';
import { memoryFiles } from './memory_files.ts';
import type { Case, Outcome, Target } from './target.ts';
import { laterOutcomeOf, outcomeOf, promise } from './target.ts';
import { anything, damage, Fields, oddNames, oddNumbers, print, Raw } from './texts.ts';
import type { Printable } from './texts.ts';

/** Bytes of an element, written down once more here: the reader's own table is what is tested. */
const widths: Readonly<Record<string, number>> = { BOOL: 1, U8: 1, I8: 1, F8_E5M2: 1, F8_E4M3: 1, I16: 2, U16: 2, F16: 2, BF16: 2, I32: 4, U32: 4, F32: 4, F64: 8, I64: 8, U64: 8 };
const dtypes = Object.keys(widths);
const path = '/model/model.safetensors';
const codes = ['CorruptFile', 'CorruptJson'];

interface Tensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/** What a case must come to. 'open': either, but whatever is accepted must be consistent. */
type Verdict = 'accept' | 'refuse' | 'open';

interface Draft {
  readonly tensors: readonly Tensor[];
  readonly fields: Fields;
  readonly dataBytes: number;
}

/** The header alone: length and JSON, as the reader's two functions take them, and every eighth as a whole file. */
export const headers: Target = {
  name: 'safetensors',
  make: (dice) => {
    const draft = drafted(dice);
    let verdict: Verdict = 'accept';
    if (!dice.oneIn(4)) for (let n = dice.oneIn(4) ? 2 : 1; n > 0; n--) verdict = worse(verdict, lie(draft, dice));
    let json = encoder.encode(print(draft.fields, dice));
    if (dice.oneIn(3)) {
      for (let n = dice.oneIn(3) ? 3 : 1; n > 0; n--) json = damage(json, dice) as Uint8Array<ArrayBuffer>;
      verdict = 'open';
    }
    return laidOut(draft, { json, verdict, dice });
  },
};

const encoder = new TextEncoder();

/** A valid header: tensors back to back, in any order of names. */
function drafted(dice: Dice): Draft {
  const tensors: Tensor[] = [];
  let at = 0;
  const count = dice.size(40);
  for (let i = 0; i < count; i++) {
    const dtype = dice.pick(dtypes);
    const shape = Array.from({ length: dice.oneIn(20) ? dice.below(17) : dice.below(4) }, () => (dice.oneIn(12) ? 0 : 1 + dice.below(dice.oneIn(4) ? 300 : 3)));
    const size = shape.reduce((n, s) => n * s, widths[dtype]!);
    const fits = at + size < 2 ** 50;
    const odd = dice.pick(oddNames);
    const name = dice.oneIn(10) && odd !== '__metadata__' ? `${odd}${i > 0 ? i : ''}` : `model.layers.${i}.weight`;
    tensors.push({ name: name === '__metadata__' ? 'm' : name, dtype, shape: fits ? shape : [0], begin: at, end: fits ? at + size : at });
    at += fits ? size : 0;
  }
  const list = tensors.map(({ name, dtype, shape, begin, end }): [string, Printable] => [
    name,
    new Fields(dice.shuffle<[string, Printable]>([['dtype', dtype], ['shape', shape], ['data_offsets', [begin, end]]])),
  ]);
  if (dice.oneIn(2)) list.push(['__metadata__', new Fields(dice.oneIn(2) ? [['format', 'pt']] : dice.pick([[], [['a', ''], ['__proto__', 'x'], ['constructor', 'y']]]))]);
  return { tensors, fields: new Fields(dice.shuffle(list)), dataBytes: at };
}

/** Puts one lie into the header, in place. */
function lie({ fields }: Draft, dice: Dice): Verdict {
  const at = fields.list.findIndex(([key, value]) => key !== '__metadata__' && value instanceof Fields);
  if (at < 0 || dice.oneIn(12)) return lieOfWhole(fields, dice);
  const chosen = dice.pick(fields.list.filter(([key, value]) => key !== '__metadata__' && value instanceof Fields));
  const entry = chosen[1] as Fields;
  const put = (key: string, value: Printable): void => {
    const slot = entry.list.find(([k]) => k === key);
    if (slot === undefined) entry.list.push([key, value]);
    else slot[1] = value;
  };
  const wrong = (): Printable => (dice.oneIn(2) ? new Raw(dice.pick(oddNumbers)) : anything(dice, 2));
  const offsets = entry.list.find(([key]) => key === 'data_offsets')?.[1];
  const [begin, end] = Array.isArray(offsets) ? (offsets as number[]) : [0, 0];
  const by = dice.pick([1, -1, 2, -2, 8, -8, 4096, 2 ** 31, 2 ** 32, 2 ** 53]);
  switch (dice.below(14)) {
    case 0: put('data_offsets', [begin! + by, end! + by]); return 'open';
    case 1: put('data_offsets', [begin!, end! + by]); return 'open';
    case 2: put('data_offsets', [end!, begin!]); return begin === end ? 'open' : 'refuse';
    case 3: put('data_offsets', dice.oneIn(2) ? [wrong(), end!] : [begin!, wrong()]); return 'open';
    case 4: put('data_offsets', dice.pick([[], [0], [begin!, end!, end!], null, '0,8', new Fields([])])); return 'refuse';
    case 5: put('shape', [2 ** 40, 2 ** 40]); return 'refuse';
    case 6: put('shape', dice.pick([[2 ** 32, 2 ** 32, 4], [-1], [1.5], new Raw('[1e309]'), new Raw('[-0]'), [[1]], ['1'], null, 3, Array.from({ length: 17 }, () => 1), new Fields([['0', 1], ['length', 1]])])); return 'refuse';
    case 7: put('shape', [wrong(), 1]); return 'open';
    case 8: put('dtype', dice.pick(['F99', 'f32', 'FLOAT', '', 'toString', '__proto__', 'F32 ', 'F4', null, 0, ['F32'], new Fields([])])); return 'refuse';
    case 9: put('dtype', dice.pick(dtypes)); return 'open';
    case 10: entry.list.splice(dice.below(Math.max(1, entry.list.length)), 1); return entry.list.length >= 3 ? 'open' : 'refuse';
    case 11: entry.list.push([dice.pick(['x', 'strides', '__proto__', 'Dtype', 'dtype\u0000']), wrong()]); return 'refuse';
    case 12: entry.list.push([dice.pick(['dtype', 'shape', 'data_offsets']), dice.pick([[0, 8], 'F32', null])]); return 'open';
    default: chosen[1] = dice.oneIn(3) ? wrong() : dice.pick([null, 0, 'x', [], [[0, 8]], true]); return 'open';
  }
}

function lieOfWhole(fields: Fields, dice: Dice): Verdict {
  switch (dice.below(6)) {
    case 0: {
      const twin = fields.list[dice.below(fields.list.length)];
      if (twin === undefined) return 'accept';
      fields.list.push([...twin]);
      return 'refuse';
    }
    case 1: fields.list.push(['__metadata__', dice.pick([null, 1, 'x', [], new Fields([['a', 1]]), new Fields([['a', null]]), new Fields([['a', ['b']]]), new Fields([['a', 'x'], ['a', 'y']])])]); return 'refuse';
    case 2: fields.list.push(['name '.repeat(dice.oneIn(10) ? 1000 : 820), new Fields([['dtype', 'U8'], ['shape', [0]], ['data_offsets', [0, 0]]])]); return 'refuse';
    case 3: fields.list.push([dice.pick(oddNames), anything(dice, 6)]); return 'open';
    case 4: fields.list.splice(dice.below(Math.max(1, fields.list.length)), 1); return 'open';
    default: fields.list.push([dice.pick(oddNames), new Fields([['dtype', 'U8'], ['shape', [0]], ['data_offsets', [0, 0]]])]); return 'open';
  }
}

function worse(a: Verdict, b: Verdict): Verdict {
  // A second lie may take back a first one.
  return a === 'accept' ? b : b === 'accept' ? a : 'open';
}

function laidOut(draft: Draft, made: { readonly json: Uint8Array; readonly verdict: Verdict; readonly dice: Dice }): Case {
  const { dice } = made;
  let { json, verdict } = made;
  let fileBytes = 8 + json.byteLength + draft.dataBytes;
  let length = BigInt(json.byteLength);
  if (dice.oneIn(8)) {
    fileBytes = Math.max(0, dice.pick([fileBytes + 1, fileBytes - 1, fileBytes + dice.below(100), dice.below(fileBytes + 1), 8, 7, 0, 2 ** 40]));
    if (verdict !== 'refuse') verdict = 'open';
  }
  if (dice.oneIn(12)) {
    length = BigInt.asUintN(64, dice.pick([0n, 1n, length - 1n, length + 1n, length + 8n, 100_000_000n, 100_000_001n, 2n ** 31n, 2n ** 32n + length, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 8n]));
    verdict = 'open';
  }
  const prefix = new Uint8Array(dice.oneIn(60) ? dice.below(8) : 8);
  if (prefix.byteLength === 8) new DataView(prefix.buffer).setBigUint64(0, length, true);
  else verdict = 'refuse';
  const bytes = new Uint8Array(prefix.byteLength + json.byteLength);
  bytes.set(prefix);
  bytes.set(json, prefix.byteLength);
  const expected = { bytes, fileBytes, verdict, tensors: draft.tensors };
  const readable = length <= BigInt(defaultLimits.headerBytes) && Number(length) + 8 <= fileBytes ? Number(length) + 8 : 0;
  return { bytes, readable, run: dice.oneIn(8) ? () => asFile(expected) : () => asFunctions(expected) };
}

interface Expected {
  readonly bytes: Uint8Array;
  readonly fileBytes: number;
  readonly verdict: Verdict;
  readonly tensors: readonly Tensor[];
}

/** The two pure functions, given what a file of `fileBytes` bytes that begins with `bytes` would give them. */
function asFunctions(expected: Expected): Outcome {
  const { bytes, fileBytes } = expected;
  const outcome = outcomeOf(() => {
    const length = headerLength(bytes.subarray(0, 8), path, { fileBytes, limits: defaultLimits });
    const json = new Uint8Array(length);
    json.set(bytes.subarray(8, 8 + length));
    consistent(parseHeader(json, path, { fileBytes, limits: defaultLimits }), { json, fileBytes });
  }, codes);
  return judged(outcome, expected);
}

/** The same through an open file. */
async function asFile(expected: Expected): Promise<Outcome> {
  const { bytes, fileBytes } = expected;
  const front = bytes.subarray(0, fileBytes);
  const outcome = await laterOutcomeOf(async () => {
    await using file = await SafetensorsFile.open(path, { files: memoryFiles(new Map([['model.safetensors', { front, size: fileBytes }]])) });
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const json = new Uint8Array(length);
    json.set(front.subarray(8, 8 + length));
    consistent({ entries: [...file.entries.values()], metadata: file.metadata }, { json, fileBytes });
  }, codes);
  return judged(outcome, expected);
}

function judged(outcome: Outcome, { verdict, tensors }: Expected): Outcome {
  promise(verdict !== 'accept' || outcome === 'accepted', () => `a valid header of ${tensors.length} tensors was refused`);
  promise(verdict !== 'refuse' || outcome === 'refused', () => 'a header that lies was accepted');
  return outcome;
}

/** What must hold of everything accepted, worked out anew from the text: every tensor inside the file, none over another, no byte left over. */
function consistent({ entries, metadata }: Header, file: { readonly json: Uint8Array; readonly fileBytes: number }): void {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(file.json);
  const said = JSON.parse(text) as Readonly<Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>>;
  const names = Object.keys(said).filter((name) => name !== '__metadata__');
  promise(names.length === entries.length && new Set(entries.map(({ name }) => name)).size === names.length, () => `${entries.length} entries of ${names.length} tensors`);
  const start = 8 + file.json.byteLength;
  let end = start;
  for (const { name, dtype, shape, offset, bytes } of entries) {
    const found = said[name];
    promise(found !== undefined && Object.hasOwn(said, name), () => `an entry ${JSON.stringify(name)} that the text has not`);
    promise(found!.dtype === dtype && JSON.stringify(found!.shape) === JSON.stringify(shape), () => `${name}: ${dtype} [${shape.join()}] is not what the text says`);
    promise(offset === start + found!.data_offsets[0] && offset + bytes === start + found!.data_offsets[1], () => `${name}: bytes ${offset} + ${bytes} are not what the text says`);
    promise(BigInt(bytes) === shape.reduce((n, s) => n * BigInt(s), BigInt(widths[dtype] ?? -1)), () => `${name}: ${bytes} bytes are not ${dtype} [${shape.join()}]`);
    promise(Number.isSafeInteger(offset + bytes) && offset === end, () => `${name} begins at ${offset}, the one before it ends at ${end}`);
    end = offset + bytes;
  }
  promise(end === file.fileBytes, () => `the last tensor ends at ${end}, the file at ${file.fileBytes}`);
  for (const value of Object.values(metadata)) promise(typeof value === 'string', () => 'metadata that is no text');
}
