// The README runner itself: it runs what it should, refuses what proves nothing, and reports where an example fails.
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runReadme } from './run.ts';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(import.meta.dirname, 'scratch-'));
});
afterEach(() => rm(folder, { recursive: true }));

async function run(...blocks: readonly string[]): Promise<void> {
  const file = join(folder, 'README.md');
  await writeFile(file, ['# t', ...blocks.map((block) => `\`\`\`ts\n${block}\n\`\`\``)].join('\n\n'));
  await runReadme(pathToFileURL(file));
}

test('runs each marked block once, as TypeScript with top-level await', async () => {
  const log: string[] = [];
  Reflect.set(globalThis, 'readmeLog', log);
  const block = (text: string): string =>
    `// example\nimport assert from 'node:assert/strict';\nconst n: number = await Promise.resolve(1);\nassert.equal(n, 1);\nReflect.get(globalThis, 'readmeLog').push('${text}');`;
  await run(block('a'), 'not marked: never run(', block('b'));
  Reflect.deleteProperty(globalThis, 'readmeLog');
  expect(log).toEqual(['a', 'b']);
  expect(await readdir(join(folder, 'test'))).toEqual([]);
});

test('an example that throws fails, naming file and line', async () => {
  await expect(run(`// example\nimport assert from 'node:assert/strict';\nassert.equal(1 + 1, 3);`)).rejects.toThrow(/README\.md:4 fails: /);
  expect(await readdir(join(folder, 'test'))).toEqual([]);
});

test('an example that asserts nothing and a README without example are refused', async () => {
  await expect(run(`// example\nconsole.log(1);`)).rejects.toThrow(/asserts nothing/);
  await expect(run(`const x = 1;`)).rejects.toThrow(/has no example/);
});
