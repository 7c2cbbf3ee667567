// The workshop's own promises: counts that miss nothing, phases that explain themselves, stamps that notice every change.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { PhaseFailed, childEnvironment, mustRun, root, runLogged } from './phase.mjs';
import { hashOf } from './stamp.mjs';

let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(import.meta.dirname, 'scratch-'));
});
afterEach(() => rm(folder, { recursive: true }));

describe('the tally of a vitest run', () => {
  async function tally(text: string): Promise<{ passed: number; failures: { name: string; message: string }[]; skips: { name: string; reason: string | null }[] }> {
    await mkdir(join(folder, 'test'));
    await writeFile(join(folder, 'test', 'planted.test.ts'), `import { beforeAll, describe, expect, test } from 'vitest';\n${text}`);
    await writeFile(join(folder, 'vitest.config.ts'), 'export default {};\n');
    const report = join(folder, 'tally.json');
    await runLogged('planted vitest', [process.execPath, join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', `--reporter=${join(root, 'tools', 'setup', 'tally-reporter.mjs')}`], { cwd: folder, env: { LOMO_TALLY: report } });
    return JSON.parse(await readFile(report, 'utf8')) as Awaited<ReturnType<typeof tally>>;
  }

  test('counts passed, failed and skipped cases, with messages and reasons', async () => {
    const found = await tally(`
      test('good', () => { expect(1).toBe(1); });
      test('bad', () => { expect(1).toBe(2); });
      test('noted', (context) => { context.skip('no GPU here'); });
      test.skipIf(true)('golden (needs shared/golden)', () => {});
      test.skip('bare', () => {});
      test.todo('later');
    `);
    expect(found.passed).toBe(1);
    expect(found.failures).toHaveLength(1);
    expect(found.failures[0]?.name).toBe('test/planted.test.ts > bad');
    expect(found.failures[0]?.message).toMatch(/expected 1 to be 2[\s\S]*planted\.test\.ts:4/);
    expect(found.skips.map((one) => one.reason)).toEqual(['no GPU here', 'needs shared/golden', null, null]);
  });

  test('a hook that throws, a rejection nobody awaited and a file that cannot be loaded are failures', async () => {
    const found = await tally(`
      describe('group', () => {
        beforeAll(() => { throw new Error('hook broke'); });
        test('never runs', () => {});
      });
      test('leaves a rejection behind', () => { void Promise.reject(new Error('nobody awaited')); });
    `);
    const messages = found.failures.map((one) => one.message).join('\n');
    expect(messages).toContain('hook broke');
    expect(messages).toContain('nobody awaited');
    expect(found.skips).toEqual([{ name: 'test/planted.test.ts > group > never runs', reason: 'the set-up of its group failed' }]);
    await rm(join(folder, 'test'), { recursive: true });
    expect((await tally("import './absent.ts';")).failures).toHaveLength(1);
  });
});

test('a failed command names itself and leaves its whole output in the log', async () => {
  const failed = await mustRun('planted failure', [process.execPath, '-e', 'console.log("before"); console.error("the reason"); process.exit(3)']).catch((error: unknown) => error);
  expect(failed).toBeInstanceOf(PhaseFailed);
  expect((failed as PhaseFailed).message).toMatch(/ended with status 3/);
  expect(await readFile((failed as PhaseFailed).log, 'utf8')).toBe('before\nthe reason\n');
});

test('a program that does not exist is a failure, not a crash', async () => {
  expect((await runLogged('planted absence', ['no-such-program'])).status).toBe(127);
});

test('children do not inherit what an outer npm run set', () => {
  process.env['npm_package_name'] = 'outer';
  try {
    expect(childEnvironment()).not.toHaveProperty('npm_package_name');
  } finally {
    delete process.env['npm_package_name'];
  }
  expect(childEnvironment()).toHaveProperty('PATH');
});

test('a stamp changes with a byte, a new file, a removed one and an extra word, and with nothing else', async () => {
  const at = relative(root, folder);
  await mkdir(join(folder, 'native'));
  await mkdir(join(folder, 'dist'));
  await writeFile(join(folder, 'native', 'a.cpp'), 'one');
  const hashes = [hashOf([at])];
  expect(hashOf([at])).toBe(hashes[0]);
  await writeFile(join(folder, 'dist', 'out.js'), 'output');
  expect(hashOf([at])).toBe(hashes[0]);
  await writeFile(join(folder, 'native', 'a.cpp'), 'two');
  hashes.push(hashOf([at]));
  await writeFile(join(folder, 'native', 'b.cpp'), '');
  hashes.push(hashOf([at]), hashOf([at], ['x64']));
  await rm(join(folder, 'native'), { recursive: true });
  hashes.push(hashOf([at]), hashOf([`${at}/native`]));
  expect(new Set(hashes).size).toBe(hashes.length);
});
