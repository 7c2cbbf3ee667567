// The examples of the pages run, and every file that a page names is there.
import { existsSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runReadme } from '../../readme/run.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const pages = ['adding-an-op', 'adding-a-model', 'adding-an-optimizer', 'adding-a-backend', 'performance'];

// Examples run from a folder of this package, since docs/ is none and could import nothing.
let scratch = '';
beforeAll(async () => {
  scratch = await mkdtemp(join(import.meta.dirname, 'scratch-'));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

describe.each(pages)('docs/%s.md', (page) => {
  const path = join(root, 'docs', `${page}.md`);

  test('its example runs', async () => {
    const folder = join(scratch, page);
    await mkdir(folder);
    await copyFile(path, join(folder, 'README.md'));
    await runReadme(pathToFileURL(join(folder, 'README.md')));
  });

  test('the files it names are there', () => {
    const text = readFileSync(path, 'utf8').replaceAll(/```[\s\S]*?```/g, '');
    const named = [...text.matchAll(/`((?:packages|apps|examples|docs|tools)\/[\w./-]+\w)`/g)].map(([, file]) => file!);
    const linked = [...text.matchAll(/\]\(([\w./-]+)\)/g)].map(([, file]) => join('docs', file!));
    expect(named.length + linked.length).toBeGreaterThan(3);
    expect([...named, ...linked].filter((file) => !existsSync(join(root, file)))).toEqual([]);
  });
});
