// Two real processes and one output folder: one trains, the other is told who does; after a kill -9 the next takes the lock over; readers take none.
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { cli, lomo, runFile, start } from '../../../tools/tiny/command.ts';
import { dataFile } from '../../../tools/tiny/folder.ts';

beforeAll(() => {
  if (!existsSync(cli)) throw new Error(`${cli} is not there: build first (pnpm turbo run build --filter=lomo...)`);
});

const root = (folder: string): string => join(folder, 'runs/run');
const locks = (folder: string): string[] => (existsSync(root(folder)) ? readdirSync(root(folder)).filter((name) => name.startsWith('.lock')) : []);
const lines = (folder: string): number => (existsSync(join(root(folder), 'metrics.jsonl')) ? readFileSync(join(root(folder), 'metrics.jsonl'), 'utf8').split('\n').length : 0);
const endless = { max_steps: 100_000, lr_scheduler_type: 'constant', save_steps: 50 };

test('two at once: one trains to its end, the other changes nothing and says why', async () => {
  const { folder, path } = runFile({ max_steps: 300, save_steps: 100 });
  const [a, b] = await Promise.all([lomo(['train', path], { cwd: folder }), lomo(['train', path], { cwd: folder })]);
  const [done, refused] = a.code === 0 ? [a, b] : [b, a];
  expect([done.code, refused.code], `${a.out}${a.err}${b.out}${b.err}`).toEqual([0, 1]);
  expect(refused.err).toMatch(/^\nlomo: runs\/run is in use by process \d+ on \S+, since \S+: two runs would remove each other's checkpoints\. Let it end, stop it \(kill \d+: it saves first\), or choose another output_dir\n$/);
  expect(refused.out).toBe('');
  expect(done.out).toContain('done, the model is runs/run/step-000300');
  expect(locks(folder)).toEqual([]);
});

describe('while one trains', () => {
  test('others read; killed, it is gone on with, and that is said', async () => {
    const { folder, path } = runFile(endless);
    const run = start(['train', path], { cwd: folder });
    expect(await run.until(() => readdirSync(folder).includes('runs') && existsSync(root(folder)) && readdirSync(root(folder)).includes('step-000050')), run.out).toBe(true);
    const model = join(root(folder), 'step-000050');
    const others = await Promise.all([
      lomo(['resume', path, model], { cwd: folder }),
      lomo(['eval', model, '--data', dataFile(5), '--max-seq-length', '16', '--samples', '0', '--threads', '1'], { cwd: folder }),
      lomo(['plan', path], { cwd: folder }),
      lomo(['diff', model, model], { cwd: folder }),
    ]);
    // The newest two are kept: the one that is read may be gone by now.
    expect(others[0]!.err).toContain('is in use by process');
    expect(others[2]!.code, others[2]!.err).toBe(0);
    for (const { err } of others.slice(1)) expect(err).not.toContain('in use');
    expect(locks(folder)).toEqual(['.lock']);
    run.kill('SIGKILL');
    await run.ended;
    expect(locks(folder)).toEqual(['.lock']);
    const next = start(['train', path], { cwd: folder });
    const before = lines(folder);
    expect(await next.until(() => lines(folder) > before + 2), next.out).toBe(true);
    expect(next.out).toMatch(/^ {2}runs\/run\/\.lock was left by process \d+ on \S+, which has ended: taken over\n/);
    next.kill('SIGTERM');
    expect((await next.ended).code).toBe(143);
    expect(locks(folder)).toEqual([]);
  });
});

test('stopped before there is anything to save, or refused: no lock is left, no folder that was made for it', async () => {
  const { folder, path } = runFile({ ...endless, datasets: [{ path: dataFile(150_000) }] });
  const run = start(['train', path], { cwd: folder });
  expect(await run.until(() => run.out.includes('tokenizing ...') && locks(folder).length > 0), run.out).toBe(true);
  run.kill('SIGINT');
  expect(await run.ended).toMatchObject({ code: 130, err: '' });
  expect(existsSync(join(folder, 'runs'))).toBe(false);
  mkdirSync(join(folder, 'runs'));
  expect((await lomo(['train', path, '--stages', 'resident', '--hidden', '1'], { cwd: folder })).code).toBe(1);
  expect(readdirSync(join(folder, 'runs'))).toEqual([]);
});
