// Strict reading of config.json: every field is handled, known to be harmless, or an error. Nothing that changes the maths is skipped.
import { LomoError } from '@lomo/tensor';
import type { JsonObject, JsonValue } from '../json.ts';
import { isJsonObject } from '../json.ts';

/** A LomoError 'UnsupportedConfig' that names the field and its value. */
export function unsupported(field: string, value: unknown, why: string): LomoError {
  const shown = value === undefined ? 'missing' : JSON.stringify(value)?.slice(0, 200);
  return new LomoError('UnsupportedConfig', `config: ${printable(field)} = ${shown}: ${why}`, { field, value });
}

/** A name as it is where it is a plain one; else quoted and cut, since a hostile file chooses it. */
function printable(field: string): string {
  return /^[\w.'-]{1,200}$/.test(field) ? field : JSON.stringify(field.slice(0, 200));
}

/** Reads one JSON object field by field and remembers which; `finish` refuses the rest. A null counts as absent, as in transformers. */
export class Fields {
  private readonly object: JsonObject;
  private readonly prefix: string;
  private readonly seen = new Set<string>();

  constructor(object: JsonObject, prefix = '') {
    this.object = object;
    this.prefix = prefix;
  }

  has(name: string): boolean {
    return (this.object[name] ?? null) !== null;
  }

  /** The value as it is; marks the field as handled. */
  raw(name: string): JsonValue | undefined {
    this.seen.add(name);
    return this.object[name] ?? undefined;
  }

  refuse(name: string, why: string): LomoError {
    return unsupported(this.prefix + name, this.object[name], why);
  }

  /** A positive integer. */
  size(name: string, fallback?: number): number {
    const value = this.raw(name) ?? fallback;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0 && value < 2 ** 31) return value;
    throw this.refuse(name, 'expected a positive integer');
  }

  /** A finite number in (more than) `above`. */
  number(name: string, range: { readonly above: number; readonly fallback?: number }): number {
    const value = this.raw(name) ?? range.fallback;
    if (typeof value === 'number' && Number.isFinite(value) && value > range.above) return value;
    throw this.refuse(name, `expected a finite number above ${range.above}`);
  }

  flag(name: string, fallback: boolean): boolean {
    const value = this.raw(name) ?? fallback;
    if (typeof value === 'boolean') return value;
    throw this.refuse(name, 'expected true or false');
  }

  text(name: string): string | undefined {
    const value = this.raw(name);
    if (value === undefined || typeof value === 'string') return value;
    throw this.refuse(name, 'expected a string');
  }

  section(name: string): JsonObject | undefined {
    const value = this.raw(name);
    if (value === undefined || isJsonObject(value)) return value;
    throw this.refuse(name, 'expected an object');
  }

  list(name: string): readonly JsonValue[] | undefined {
    const value = this.raw(name);
    if (value === undefined || Array.isArray(value)) return value as readonly JsonValue[] | undefined;
    throw this.refuse(name, 'expected a list');
  }

  /** A token id, several, or none. */
  ids(name: string): readonly number[] {
    const value = this.raw(name);
    const list: readonly JsonValue[] = value === undefined ? [] : Array.isArray(value) ? (value as readonly JsonValue[]) : [value as JsonValue];
    return list.map((id) => {
      if (typeof id === 'number' && Number.isSafeInteger(id)) return id;
      throw this.refuse(name, 'expected a token id or a list of them');
    });
  }

  /** Fields that must hold the one value under which they change nothing (or be absent); `why` says what another value would mean. */
  only(rules: Readonly<Record<string, readonly [value: JsonValue, why: string]>>): void {
    for (const [name, [value, why]] of Object.entries(rules)) {
      const found = this.raw(name);
      if (found !== undefined && JSON.stringify(found) !== JSON.stringify(value)) throw this.refuse(name, `${why}; only ${JSON.stringify(value)} is supported`);
    }
  }

  /** Fields without influence on logits or gradients; the reasons are documentation. */
  harmless(reasons: Readonly<Record<string, string>>): void {
    for (const name of Object.keys(reasons)) this.seen.add(name);
  }

  /** Throws for the first field nobody asked for. */
  finish(): void {
    for (const name of Object.keys(this.object)) {
      if (!this.seen.has(name) && this.object[name] !== null) throw this.refuse(name, 'unknown field; it may change the maths, so the model is refused');
    }
  }
}
