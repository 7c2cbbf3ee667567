// The checker itself: one wrong number fails and is named, parts of a folder work, other counts work, nothing is left out silently.
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { copyOf, edit, hasGolden, misses, run, spoil, temporary } from './command.ts';
import { makeFolder } from './makeFolder.ts';

const onReference = ['--backend', 'reference'];

describe.skipIf(!hasGolden)('copies of the shared golden values (skipped where ../shared/golden is absent)', () => {
  test('one family alone: held, and what is absent is said', async () => {
    const folder = await copyOf('models/llama');
    const ran = await run([folder, ...onReference]);
    expect(misses(ran)).toEqual([]);
    expect(ran.status).toBe(0);
    expect(ran.lines.filter((line) => line.startsWith('skip')).map((line) => line.split(/\s+/)[1])).toEqual(['rules', 'numbers', 'tokenizers', 'runs']);
  });

  test('the CPU backend gives the same errors on two threads as on one', async () => {
    const folder = await copyOf('models/llama', 'models/qwen3', 'rules');
    const [one, two] = [await run([folder, '--threads', '1']), await run([folder, '--threads', '2'])];
    expect(one.status).toBe(0);
    expect(one.lines.length).toBeGreaterThan(50);
    expect(two.lines.slice(0, -1)).toEqual(one.lines.slice(0, -1));
  });

  test('one wrong loss, logit or gradient: status 1, and the case is named', async () => {
    const folder = await copyOf('models/llama', 'models/qwen2');
    await edit(join(folder, 'models', 'llama', 'golden.json'), (json: { loss: number }) => (json.loss += 1e-5));
    await spoil(join(folder, 'models', 'qwen2', 'golden.safetensors'), 3);
    const ran = await run([folder, ...onReference]);
    expect(ran.status).toBe(1);
    const names = misses(ran).map((line) => line.split(/\s+/)[1]);
    expect(names).toContain('models/llama/loss');
    expect(names.filter((name) => !/^models\/(llama\/loss|qwen2\/(logits|gradients))/.test(name!))).toEqual([]);
    expect(names.some((name) => name!.startsWith('models/qwen2/'))).toBe(true);
    expect(ran.lines.at(-1)).toMatch(/, [34] missed, /);
  });

  test('wrong rules, ids, bits, words and rates', async () => {
    const folder = await copyOf('rules', 'numbers', 'tokenizers');
    const numbers = join(folder, 'numbers');
    await edit(join(folder, 'rules', 'rules.json'), (json: { runs: Record<string, { lr: number }> }) => (json.runs['adamw']!.lr *= 1.001));
    await edit(join(folder, 'tokenizers', 'stories260k.json'), (json: { ids: number[] }[]) => json[20]!.ids.push(7));
    await edit(join(numbers, 'f16.json'), (json: [number, number][]) => (json[40]![1] ^= 1));
    await edit(join(numbers, 'philox4x32_10.json'), (json: { output: number[] }[]) => (json[5]!.output[2] = (json[5]!.output[2]! + 1) % 2 ** 32));
    await edit(join(numbers, 'schedules.json'), (json: Record<string, { rates: number[] }>) => (json['wsd']!.rates[90]! += 1e-14));
    const ran = await run([folder, ...onReference, '--json']);
    expect(ran.status).toBe(1);
    const { folders, summary } = JSON.parse(ran.lines.join('\n')) as { folders: { rows: { name: string; status: string; error: number | null; bar: number | null }[] }[]; summary: { missed: number } };
    const missed = folders[0]!.rows.filter((row) => row.status === 'missed');
    expect(summary.missed).toBe(missed.length);
    const sections = new Set(missed.map((row) => row.name.split('/').slice(0, row.name.startsWith('numbers/schedules') ? 3 : 2).join('/')));
    expect([...sections].sort()).toEqual(['numbers/f16', 'numbers/philox4x32_10', 'numbers/schedules/wsd', 'rules/adamw', 'tokenizers/stories260k']);
    expect(missed.filter((row) => !(row.error! > row.bar!))).toEqual([]);
  });

  test('a damaged file and an unknown rule miss with their reason', async () => {
    const folder = await copyOf('models/mistral', 'rules');
    await rm(join(folder, 'models', 'mistral', 'golden.safetensors'));
    await edit(join(folder, 'models', 'mistral', 'golden.json'), (json: { token_losses: unknown }) => (json.token_losses = 'none'));
    await edit(join(folder, 'rules', 'rules.json'), (json: { runs: Record<string, { rule: string }> }) => (json.runs['lomo']!.rule = 'lion'));
    const ran = await run([folder, ...onReference]);
    expect(ran.status).toBe(1);
    expect(misses(ran)).toEqual([expect.stringMatching(/models\/mistral\/error .*token_losses/), expect.stringMatching(/rules\/error .*'lion' is none of lomo/)]);
  });

  test('a missing file of a case is a skipped row', async () => {
    const folder = await copyOf('models/mistral');
    await rm(join(folder, 'models', 'mistral', 'golden.safetensors'));
    const ran = await run([folder, ...onReference]);
    expect(ran.status).toBe(0);
    expect(ran.lines).toContainEqual(expect.stringMatching(/^skip models\/mistral\/logits and gradients .*golden\.safetensors is not in the folder/));
  });
});

describe('a folder with other families, runs, steps and counts', () => {
  test('holds on both backends, and its model is found beside it or in --models', async () => {
    const parent = await temporary();
    await makeFolder(parent);
    for (const backend of ['reference', 'cpu']) {
      const ran = await run(['golden', '--backend', backend, '--steps', '5'], parent);
      expect(misses(ran)).toEqual([]);
      expect(ran.status).toBe(0);
      const held = ran.lines.filter((line) => line.startsWith('ok')).map((line) => line.slice(5).split(/ {2,}/)[0]);
      for (const name of ['models/wide/gradients', 'run/trajectories/mine/weights after 2', 'run/trajectories/mine/weights after 5, sampled', 'run/trajectories/tight/clip coefficients', 'run/trajectories/tight/weights after 4, sampled, all as one']) {
        expect(held).toContain(name);
      }
      expect(ran.lines).toContainEqual(expect.stringMatching(/^skip run\/forward .*forward\.json is not in the folder/));
    }
  });

  test('one wrong number of a run is named; a model that is nowhere is a skipped row', async () => {
    const parent = await temporary();
    const folder = await makeFolder(parent);
    const story = join(folder, 'run', 'trajectories.json');
    await edit(story, (json: { runs: Record<string, { loss: number[] }> }) => (json.runs['tight']!.loss[3]! += 1e-5));
    await spoil(join(folder, 'run', 'weights', 'mine.step2.safetensors'), 0);
    const ran = await run([folder, ...onReference, '--steps', '5']);
    expect(ran.status).toBe(1);
    expect(misses(ran)).toEqual([expect.stringMatching(/run\/trajectories\/mine\/weights after 2 /), expect.stringMatching(/run\/trajectories\/tight\/losses .* element 3 of 5/)]);

    await rm(join(parent, 'models'), { recursive: true });
    const alone = await run([folder, ...onReference]);
    expect(alone.status).toBe(0);
    expect(alone.lines).toContainEqual(expect.stringMatching(/^skip run\/trajectories .*no model run: looked for .*--models/));
  });
});

describe('the command line', () => {
  test('says what it does not understand, with status 2', async () => {
    for (const [argv, message] of [
      [['--backend', 'tpu'], /--backend tpu: expected cpu or reference/],
      [['/nowhere/at/all'], /no folder \/nowhere\/at\/all/],
      [['--steps', '0', '.'], /--steps 0: expected a whole number/],
      [['--threads', 'two'], /--threads two: expected a whole number/],
      [['--fast'], /--fast/],
      [[await temporary(), '--backend', 'reference'], /nothing to check/],
    ] as const) {
      const ran = await run(argv);
      expect(ran.status).toBe(2);
      expect(ran.errors).toMatch(message);
    }
    expect((await run(['--help'])).lines[0]).toMatch(/^pnpm golden \[FOLDER\.\.\.\]/);
  });
});
