// What a terminal shows: long lines broken where words end, a live line that says less instead of being cut.
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { percent, screen, wrapped } from '../src/screen.ts';

/** A screen of that many columns (null: no terminal) and what was written to it. */
function terminal(columns: number | null): { readonly screen: ReturnType<typeof screen>; written(): string } {
  let text = '';
  const stream = Object.assign(new PassThrough(), columns === null ? {} : { isTTY: true, columns });
  stream.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return { screen: screen(stream as unknown as NodeJS.WriteStream), written: () => text };
}

test('a line is broken at spaces and indented; without a terminal, or in one too narrow, it is not', () => {
  const text = '  clip         memory: the cheapest of three ways';
  expect(wrapped(text, { columns: 34, indent: 15 })).toBe(`  clip         memory: the\n${' '.repeat(15)}cheapest of three\n${' '.repeat(15)}ways`);
  for (const columns of [null, 20, 200]) expect(wrapped(text, { columns, indent: 15 })).toBe(text);
  expect(wrapped(`  clip         ${'x'.repeat(60)}`, { columns: 40, indent: 15 })).toBe(`  clip         ${'x'.repeat(60)}`);
});

test('the live line is the longest that fits', () => {
  for (const [columns, shown] of [[80, 'step 1  loss 2  memory 3'], [20, 'step 1  loss 2'], [null, 'step 1  loss 2  memory 3']] as const) {
    const { screen: here, written } = terminal(columns);
    expect(here.columns).toBe(columns);
    here.live('step 1  loss 2  memory 3', 'step 1  loss 2');
    here.settle();
    expect(written().replace('\r\x1b[2K', '')).toBe(`${shown}\n`);
  }
  const { screen: narrow, written } = terminal(21);
  narrow.live('x'.repeat(40), 'y'.repeat(30));
  expect(written()).toBe(`\r\x1b[2K${'y'.repeat(20)}`);
});

test('shares', () => expect([0.5, -0.0001, -0.031, 0].map(percent)).toEqual(['50.0 %', '0.0 %', '-3.1 %', '0.0 %']));
