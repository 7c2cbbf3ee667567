// Runs the examples of a README as ES modules inside vitest, so that documentation that does not work fails the tests.
// A package's test/readme.test.ts is three lines:
//
//   import { test } from 'vitest';
//   import { runReadme } from '../../../tools/readme/run.ts';
//   test('README examples run', () => runReadme(new URL('../README.md', import.meta.url)));
//
// An example is a fenced ```ts block whose first line starts with `// example`. It may import the package by its own name and
// anything the package depends on, and it must assert something (`import assert from 'node:assert/strict'`).
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { examplesOf } from './examples.ts';

/**
 * Imports every example of the README at `readme`, in order, with vitest's resolution (the '@lomo/source' condition: no build needed).
 * Rejects when there is no example, when one asserts nothing, or with the example's own error under a line saying where it stands.
 */
export async function runReadme(readme: URL): Promise<void> {
  const path = fileURLToPath(readme);
  const examples = examplesOf(await readFile(readme, 'utf8'), path);
  // Inside test/ because node_modules would be loaded without vitest's transforms, and elsewhere bare imports would not resolve.
  const folder = new URL('./test/', readme);
  await mkdir(folder, { recursive: true });
  for (const [index, example] of examples.entries()) {
    const file = new URL(`./readme-example-${index + 1}.${process.pid}.gen.ts`, folder);
    await writeFile(file, example.code);
    try {
      await import(/* @vite-ignore */ pathToFileURL(fileURLToPath(file)).href);
    } catch (error) {
      throw new Error(`the example at ${path}:${example.line} fails: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    } finally {
      await rm(file, { force: true });
    }
  }
}
