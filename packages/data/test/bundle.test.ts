// The built package: its workers start from the bundle, and agree with the sources.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadTokenizer } from '../src/index.ts';
import { byteTokenizer } from './byte-tokenizer.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
let built = '';

beforeAll(() => {
  // Inside node_modules, so that the bundle finds its dependency as an installed package would; never dist, which others may be reading.
  built = mkdtempSync(join(root, 'node_modules/bundle-test-'));
  const tsup = join(dirname(createRequire(import.meta.url).resolve('tsup/package.json')), 'dist/cli-default.js');
  execFileSync(process.execPath, [tsup, '--no-dts', '--out-dir', built, '--silent'], { cwd: root });
});

afterAll(() => rmSync(built, { recursive: true, force: true }));

it('encodes and decodes in workers and ends with the script', async () => {
  const folder = byteTokenizer();
  const script = `
    const { openTokenizer } = await import(${JSON.stringify(join(built, 'index.js'))});
    const pooled = await openTokenizer(${JSON.stringify(folder)}, { inProcessBytes: 0 });
    const local = await openTokenizer(${JSON.stringify(folder)});
    const ids = await pooled.encode('caf\\u00e9');
    console.log(JSON.stringify([[...ids], [...await local.encode('caf\\u00e9')], await pooled.decode(ids)]));`;
  const printed = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8', timeout: 30_000 });
  const ids = [...(await loadTokenizer(folder)).encode('caf\u00e9')];
  expect(JSON.parse(printed)).toEqual([ids, ids, '<s>caf\u00e9']);
});
