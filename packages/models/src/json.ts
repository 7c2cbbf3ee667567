// A strict JSON parser for files of unknown origin: duplicate keys are refused (JSON.parse keeps the last), depth and size are capped.
import { LomoError } from '@lomo/tensor';

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;

/** An object without a prototype: '__proto__' and 'constructor' are keys like any other. */
export interface JsonObject {
  readonly [key: string]: JsonValue;
}

export interface JsonLimits {
  /** Nesting of arrays and objects; `jsonDepth` unless given. */
  readonly depth?: number;
  /** Values in all; `jsonValues` unless given. */
  readonly values?: number;
  /** Arrays and objects in all, which take a hundred times their two characters of memory; `jsonContainers` unless given. */
  readonly containers?: number;
}

/** Deepest nesting that is read unless a caller says otherwise. */
export const jsonDepth = 32;
/** Most values that are read unless a caller says otherwise. */
export const jsonValues = 10_000_000;
/** Most arrays and objects that are read unless a caller says otherwise. */
export const jsonContainers = 1_000_000;
/** Characters of a key that a message shows. */
const shownKey = 80;

/** True for an object (not an array, not null). */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Parses UTF-8 `bytes` of the file `path`. Bad text, and text over a limit: LomoError 'CorruptJson' with path, line and column. Time is linear in the size. */
export function parseJson(bytes: Uint8Array, path: string, limits: JsonLimits = {}): JsonValue {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new LomoError('CorruptJson', `${path}: not valid UTF-8`, { path }, error);
  }
  return new Parser(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text, path, limits).parse();
}

const escapes: Readonly<Record<string, string>> = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };
const literals: ReadonlyMap<string, readonly [string, null | boolean]> = new Map([
  ['t', ['true', true]],
  ['f', ['false', false]],
  ['n', ['null', null]],
]);

const loneSurrogate = /\p{Surrogate}/u;

class Parser {
  private readonly text: string;
  private readonly path: string;
  private readonly depthLimit: number;
  private readonly valueLimit: number;
  private readonly containerLimit: number;
  private readonly spaces = /[ \t\n\r]*/y;
  private readonly numbers = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
  // eslint-disable-next-line no-control-regex -- JSON forbids raw control characters
  private readonly plain = /[^"\\\u0000-\u001f]*/y;
  private at = 0;
  private values = 0;
  private containers = 0;

  constructor(text: string, path: string, limits: JsonLimits) {
    this.text = text;
    this.path = path;
    this.depthLimit = limits.depth ?? jsonDepth;
    this.valueLimit = limits.values ?? jsonValues;
    this.containerLimit = limits.containers ?? jsonContainers;
  }

  parse(): JsonValue {
    const value = this.value(0);
    this.skip(this.spaces);
    if (this.at < this.text.length) this.fail('the end of the text');
    return value;
  }

  private value(depth: number): JsonValue {
    if (++this.values > this.valueLimit) this.refuse(`more than ${this.valueLimit} values`);
    this.skip(this.spaces);
    const first = this.text[this.at];
    if (first === '{' || first === '[') {
      if (depth >= this.depthLimit) this.refuse(`nested deeper than ${this.depthLimit}`);
      if (++this.containers > this.containerLimit) this.refuse(`more than ${this.containerLimit} arrays and objects`);
      this.at++;
      return first === '{' ? this.object(depth + 1) : this.array(depth + 1);
    }
    if (first === '"') return this.string();
    const literal = first === undefined ? undefined : literals.get(first);
    if (literal !== undefined && this.text.startsWith(literal[0], this.at)) {
      this.at += literal[0].length;
      return literal[1];
    }
    const number = this.skip(this.numbers);
    if (number === '') this.fail('a value');
    return Number(number);
  }

  private object(depth: number): JsonObject {
    const result = Object.create(null) as Record<string, JsonValue>;
    this.skip(this.spaces);
    if (this.take('}')) return result;
    for (;;) {
      this.skip(this.spaces);
      if (this.text[this.at] !== '"') this.fail('a key in double quotes');
      const key = this.string();
      if (key in result) this.refuse(`duplicate key ${JSON.stringify(key.slice(0, shownKey))}`);
      this.skip(this.spaces);
      if (!this.take(':')) this.fail("':'");
      result[key] = this.value(depth);
      this.skip(this.spaces);
      if (this.take('}')) return result;
      if (!this.take(',')) this.fail("',' or '}'");
    }
  }

  private array(depth: number): readonly JsonValue[] {
    const result: JsonValue[] = [];
    this.skip(this.spaces);
    if (this.take(']')) return result;
    for (;;) {
      result.push(this.value(depth));
      this.skip(this.spaces);
      if (this.take(']')) return result;
      if (!this.take(',')) this.fail("',' or ']'");
    }
  }

  private string(): string {
    this.at++;
    const parts: string[] = [];
    for (;;) {
      parts.push(this.skip(this.plain));
      const next = this.text[this.at];
      if (next === '"') {
        this.at++;
        if (parts.length === 1) return parts[0]!;
        const text = parts.join('');
        // Half of a surrogate pair has no UTF-8: two such names would become one when they are written again.
        if (loneSurrogate.test(text)) this.refuse('a lone surrogate, which is no character');
        return text;
      }
      if (next !== '\\') this.fail('the end of a string');
      parts.push(this.escape());
    }
  }

  private escape(): string {
    const letter = this.text[this.at + 1] ?? '';
    if (letter === 'u') {
      const hex = this.text.slice(this.at + 2, this.at + 6);
      if (!/^[0-9a-fA-F]{4}$/.test(hex)) this.fail('four hexadecimal digits');
      this.at += 6;
      return String.fromCharCode(Number.parseInt(hex, 16));
    }
    const escaped = escapes[letter];
    if (escaped === undefined) this.fail('an escape');
    this.at += 2;
    return escaped;
  }

  private take(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at++;
    return true;
  }

  private skip(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0] ?? '';
    this.at += found.length;
    return found;
  }

  private fail(expected: string): never {
    const found = this.at < this.text.length ? JSON.stringify(this.text.slice(this.at, this.at + 16)) : 'the end of the text';
    this.refuse(`expected ${expected}, found ${found}`);
  }

  private refuse(why: string): never {
    let [line, start] = [1, 0];
    for (let end = this.text.indexOf('\n'); end >= 0 && end < this.at; end = this.text.indexOf('\n', start)) {
      line++;
      start = end + 1;
    }
    const column = this.at - start + 1;
    throw new LomoError('CorruptJson', `${this.path}:${line}:${column}: ${why}`, { path: this.path, line, column });
  }
}
