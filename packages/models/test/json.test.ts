// The strict JSON parser: equal to JSON.parse on what both accept, and refusals with a place.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseJson } from '../src/index.ts';

const parse = (text: string, limits = {}) => parseJson(new TextEncoder().encode(text), 'x.json', limits);

describe('parseJson', () => {
  it('agrees with JSON.parse on anything JSON.stringify writes', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 6 }), (text) => {
        expect(JSON.stringify(parse(text))).toBe(JSON.stringify(JSON.parse(text)));
      }),
    );
  });

  it('reads a pair of surrogates that is written as two escapes', () => {
    expect(parse('"\\ud83d\\udca5"')).toBe('💥');
  });

  it('keeps keys such as __proto__ as plain keys', () => {
    const value = parse('{"__proto__": {"polluted": 1}, "constructor": 2}') as Record<string, unknown>;
    expect(Object.keys(value)).toEqual(['__proto__', 'constructor']);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it.each([
    ['{"a": 1, "a": 2}', /x\.json:1:\d+: duplicate key "a"/],
    ['{"a": 1, "\\u0061": 2}', /duplicate key "a"/],
    ['{"__proto__": 1, "__proto__": 2}', /duplicate key/],
    ['{"a": 1,}', /expected a key/],
    ['[1 2]', /expected ',' or '\]'/],
    ['{"a" 1}', /expected ':'/],
    ['nul', /expected a value/],
    ['01', /end of the text/],
    ['1 x', /end of the text/],
    ['"a\nb"', /end of a string/],
    ['"\\x"', /an escape/],
    ['"\\u12"', /four hexadecimal/],
    ['{"a": NaN}', /expected a value/],
    ['{\n\n  "a": ?}', /x\.json:3:8/],
    ['', /expected a value/],
    ['"\\ud83d"', /lone surrogate/],
    ['{"a\\udc00": 1}', /lone surrogate/],
    [`{"${'k'.repeat(5000)}": 1, "${'k'.repeat(5000)}": 2}`, /duplicate key "k{80}"$/],
  ])('refuses %j', (text, message) => {
    expect(() => parse(text)).toThrow(message);
  });

  it('caps depth and values, and refuses bad UTF-8', () => {
    expect(() => parse('['.repeat(100_000))).toThrow(/nested deeper than 32/);
    expect(() => parse('[1,2,3]', { values: 3 })).toThrow(/more than 3 values/);
    expect(() => parse('[[],{},[]]', { containers: 3 })).toThrow(/x\.json:1:8: more than 3 arrays and objects/);
    expect(parse('[[],{},1]', { containers: 3, depth: 2, values: 4 })).toEqual([[], {}, 1]);
    expect(() => parseJson(Uint8Array.of(0x22, 0xff, 0x22), 'x.json')).toThrow(/not valid UTF-8/);
  });
});
