// JSON as text with everything the grammar allows and much that it does not: what all generators of hostile files are made of.
import type { Dice } from './dice.ts';

/** A value to print; `Raw` goes into the text as it is. */
export type Printable = null | boolean | number | string | Raw | readonly Printable[] | Fields;

/** Text that is printed without quotes or escapes: numbers no double holds, broken literals, whole subtrees. */
export class Raw {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** An object as a list, so that keys may come twice and in any order. */
export class Fields {
  readonly list: [key: string, value: Printable][];
  constructor(list: [string, Printable][]) {
    this.list = list;
  }
}

/** `value` as JSON. With `dice`, blanks are strewn in and characters of strings now and then written as escapes: the meaning stays. */
export function print(value: Printable, dice: Dice | null = null): string {
  if (value instanceof Raw) return value.text;
  if (typeof value === 'string') return quoted(value, dice);
  if (value instanceof Fields) return `{${value.list.map(([key, inner]) => `${blank(dice)}${quoted(key, dice)}${blank(dice)}:${blank(dice)}${print(inner, dice)}${blank(dice)}`).join(',')}}`;
  if (value === null || typeof value !== 'object') return String(value);
  return `[${value.map((inner) => blank(dice) + print(inner, dice) + blank(dice)).join(',')}]`;
}

function blank(dice: Dice | null): string {
  return dice !== null && dice.oneIn(12) ? dice.pick([' ', '\n', '\t', '\r\n', '    ']) : '';
}

function quoted(text: string, dice: Dice | null): string {
  if (dice === null || !dice.oneIn(6)) return JSON.stringify(text);
  return `"${Array.from(text).map((c) => (c.length === 1 && dice.oneIn(3) ? `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}` : JSON.stringify(c).slice(1, -1))).join('')}"`;
}

/** Numbers at which readers go wrong, as text. */
export const oddNumbers: readonly string[] = [
  '-1', '-0', '0.5', '1.0', '1e0', '1e1', '1E+2', '-1e3', '1e308', '1e309', '1e-400', '4294967295', '4294967296', '2147483648', '9007199254740991', '9007199254740992', '9007199254740993',
  '9223372036854775807', '9223372036854775808', '18446744073709551615', '18446744073709551616', '340282366920938463463374607431768211456', '01', '+1', '.5', '1.', '0x10', '1n', 'NaN', 'Infinity', '-', '1e', '1_0', '٣',
];

/** Names at which readers go wrong. */
export const oddNames: readonly string[] = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '__metadata__', '', ' ', '0', '4294967294', '-1', 'a\u0000b', '\u202e', '\ufeff', 'é', 'é', '💥', '../x', '/etc/passwd', 'x'.repeat(300)];

/** Any JSON value, nested at most `depth`. */
export function anything(dice: Dice, depth: number): Printable {
  const kind = dice.below(depth > 0 ? 9 : 6);
  switch (kind) {
    case 0: return null;
    case 1: return dice.oneIn(2);
    case 2: return dice.below(1000) - 200;
    case 3: return dice.pick([0.1, -0, 1e300, 5e-324, 2 ** 53, 1 / 3]);
    case 4: return dice.pick(oddNames);
    case 5: return word(dice);
    case 6: return Array.from({ length: dice.size(20) }, () => anything(dice, depth - 1));
    default: return new Fields(Array.from({ length: dice.size(20) }, (_, i) => [dice.oneIn(4) ? dice.pick(oddNames) + i : word(dice) + i, anything(dice, depth - 1)]));
  }
}

function word(dice: Dice): string {
  return Array.from({ length: dice.below(9) }, () => String.fromCharCode(97 + dice.below(26))).join('');
}

const badBytes: readonly (readonly number[])[] = [
  [0xff], [0xfe, 0xff], [0xc0, 0x80], [0xc3, 0x28], [0xe2, 0x82], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xf8, 0x88, 0x80, 0x80, 0x80], [0x80], [0], [0xef, 0xbb, 0xbf], [0x7f], [0x1f],
];

const badTexts: readonly string[] = [
  '"\\ud800"', '\\ud800\\u0041', '\\udc00', '\\uD83D\\uDCA5', '\\u00', '\\x41', '\\', '"', '{', '}', '[', ']', ',', ':', ',,', 'null', 'tru', '/*c*/', '//c\n', "'", '\u2028', '-', 'e', '.', '{"a":1,"a":1}', '[]', '{}',
];

/** Damages `bytes` once: bits, bytes, pieces of text, cuts, doublings, deep nests. May return the same array, changed. */
export function damage(bytes: Uint8Array, dice: Dice): Uint8Array {
  const at = dice.below(bytes.byteLength + 1);
  switch (dice.below(10)) {
    case 0:
    case 1: {
      if (bytes.byteLength > 0) bytes[at % bytes.byteLength]! ^= 1 << dice.below(8);
      return bytes;
    }
    case 2: {
      if (bytes.byteLength > 0) bytes[at % bytes.byteLength] = dice.below(256);
      return bytes;
    }
    case 3: return bytes.slice(0, at);
    case 4: return joined(bytes, at, Uint8Array.from(dice.pick(badBytes)));
    case 5:
    case 6: return joined(bytes, at, encoder.encode(dice.pick(badTexts)));
    case 7: {
      const end = Math.min(bytes.byteLength, at + 1 + dice.below(24));
      return dice.oneIn(2) ? joined(bytes, at, bytes.slice(at, end)) : joined(bytes.slice(0, at), at, bytes.slice(end));
    }
    case 8: return joined(bytes, at, encoder.encode(dice.pick(oddNumbers)));
    default: {
      const depth = dice.oneIn(200) ? dice.below(8000) : dice.below(45);
      const [open, close] = dice.pick([['[', ']'], ['{"a":', '}'], ['[{"a":', '}]']] as const);
      return joined(bytes, at, encoder.encode(open.repeat(depth) + (dice.oneIn(2) ? `0${close.repeat(depth)}` : '')));
    }
  }
}

const encoder = new TextEncoder();

function joined(bytes: Uint8Array, at: number, more: Uint8Array): Uint8Array {
  const result = new Uint8Array(bytes.byteLength + more.byteLength);
  result.set(bytes.subarray(0, at));
  result.set(more, at);
  result.set(bytes.subarray(at), at + more.byteLength);
  return result;
}
