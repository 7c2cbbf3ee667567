// What the plan chooses for a run: micro-batches that leave the bits alone, the form of the head that a run was begun with, refusals that say what fits.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { builtInFamilies, readConfig } from '@lomo/models';
import { isLomoError, ReferenceBackend, tensorOps } from '@lomo/tensor';
import type { LomoError } from '@lomo/tensor';
import { optimOps } from '@lomo/optim';
import { afterEach, describe, expect, test } from 'vitest';
import type { Nearest, RunInput } from '../src/index.ts';
import { builtInRules, choose, fit, parseRun, Session, settledBytes, shapeWithoutData, Ways } from '../src/index.ts';
import { joinRows } from '../src/rows.ts';
import { open, settings } from './tiny.ts';

const sessions: Session[] = [];
afterEach(async () => {
  for (const session of sessions.splice(0)) await session.close();
});

async function opened(changes: Partial<RunInput>, more: Parameters<typeof open>[1] = {}): Promise<Session> {
  const session = await open(changes, more);
  sessions.push(session);
  return session;
}

/** Ways of a run whose data are laid out one sample a row. */
async function waysOf(changes: Partial<RunInput>): Promise<Ways> {
  const { config } = parseRun(settings(changes));
  const backend = new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' });
  const rule = builtInRules.find(({ name }) => name === config.optim)!;
  return new Ways(backend, { config, json: await readConfig(config.model_name_or_path), families: builtInFamilies, rule, shape: shapeWithoutData(config), generates: { prompt: config.max_seq_length, fresh: 4 }, evaluates: false });
}

async function digest({ assembly: { device, model } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  return hash.digest('hex');
}

async function trained(session: Session): Promise<string> {
  for await (const event of fit(session)) if (event.kind === 'rejected' || event.kind === 'rolled back') throw event.error;
  return digest(session);
}

async function refusal(body: () => Promise<unknown>): Promise<LomoError> {
  const error = await body().then(() => null, (e: unknown) => e);
  if (isLomoError(error)) return error;
  throw error ?? new Error('nothing was refused');
}

const chosen = ({ choices }: Session, name: string): string => choices.filter((c) => c.name === name).map(({ value, reason }) => `${value}: ${reason}`).join();

describe('per_device_train_batch_size: auto', () => {
  const auto = { per_device_train_batch_size: 'auto', gradient_accumulation_steps: undefined, global_batch_size: 4, max_steps: 3, gradient_checkpointing: true, stages: 'resident' } as const;

  /** Chunks of 64 tokens: a row is a whole one, so that micro-batches may add up in a buffer; of 128: two rows are; of 512: none is. */
  test.each([64, 128, 512])('however many rows memory has room for, the bits are those of one row at a time (chunks of %i)', async (chunk) => {
    const { model_name_or_path, datasets } = settings();
    const run = (changes: Partial<RunInput>, memory = 2 ** 30): Promise<Session> =>
      opened({ ...changes, model_name_or_path, datasets }, { memory, backend: new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32', chunk }) });
    const ample = await run(auto);
    expect(chosen(ample, 'micro-batch')).toMatch(/^4 of 4 rows: 1 x 256 tokens; equal bits however a step is split \([\d.]+ [KM]iB, [\d.]+ ms a step; 1 row [\d.]+ [KM]iB, [\d.]+ ms\)$/);
    const digests = new Set([await trained(ample)]);
    const splits: string[] = [];
    for (let { extent } = ample.plan; ; ) {
      const next = await run(auto, extent - 1).catch((error: unknown) => error);
      if (isLomoError(next, 'DoesNotFit')) break;
      if (!(next instanceof Session)) throw next;
      splits.push(chosen(next, 'micro-batch').split(':')[0]!);
      expect(chosen(next, 'micro-batch')).toContain('larger ones do not fit');
      expect(next.plan.extent).toBeLessThan(extent);
      ({ extent } = next.plan);
      digests.add(await trained(next));
    }
    // Kept factors are those of all rows, so that smaller micro-batches hardly need less.
    if (chunk === 64) expect(splits).toEqual(['2 of 4 rows', '1 of 4 rows']);
    const { per_device_train_batch_size: _p, global_batch_size: _g, gradient_accumulation_steps: _a, ...plain } = auto;
    digests.add(await trained(await run({ ...plain, per_device_train_batch_size: 1, gradient_accumulation_steps: 4 })));
    expect(digests.size).toBe(1);
  });

  test('takes rows of a step, not micro-batches', async () => {
    const error = await refusal(() => opened({ per_device_train_batch_size: 'auto', gradient_accumulation_steps: 2 }));
    expect([error.code, error.message]).toEqual(['ConfigError', expect.stringContaining('give global_batch_size')]);
  });

  test('rows are joined in their order, starts moved along, padding at the end', () => {
    const row = (first: number, starts: number[]) => ({ tokens: Int32Array.of(first, 2, 3, 4), targets: Int32Array.of(-100, 1, 1, 1), positions: Int32Array.of(0, 1, 0, 1), starts: Int32Array.from(starts), samples: [first] });
    const [joined] = joinRows([row(7, [0, 2, 4, 4]), row(9, [0, 4, 4, 4])], 2);
    expect([...joined!.tokens]).toEqual([7, 2, 3, 4, 9, 2, 3, 4]);
    expect([...joined!.starts]).toEqual([0, 2, 4, 8, 8, 8, 8]);
    expect(joined!.samples).toEqual([7, 9]);
  });
});

describe('the choice', () => {
  test('names what it has weighed, with the number behind it', async () => {
    const session = await opened({});
    expect(chosen(session, 'activations')).toMatch(/^kept: they fit \(kept [\d.]+ \w+, recomputed [\d.]+ \w+; [\d.]+ ms or [\d.]+ ms a step; free 1\.00 GiB\)$/);
    expect(chosen(session, 'accumulation')).toBe('factors: equal bits for any split into micro-batches');
    expect(chosen(session, 'head')).toBe('tiles: four products; the gradient of the head never exists whole');
    const whole = await opened({ gradient_accumulation_steps: 1 });
    expect(chosen(whole, 'head')).toMatch(/^chunks: three products; the gradient of the head is held in f32 \([\d.]+ [KM]iB, [\d.]+ ms a step; tiles [\d.]+ [KM]iB, [\d.]+ ms\)$/);
  });

  test('runs few ways dry: those that differ from the chosen one in one thing', async () => {
    const ways = await waysOf({ clip_mode: 'none' });
    await choose(ways, 2 ** 30);
    expect(ways.runs).toBeLessThanOrEqual(3);
    const judged = await waysOf({ clip_mode: 'global', gradient_accumulation_steps: 1 });
    await choose(judged, 2 ** 30);
    expect(judged.runs).toBeLessThanOrEqual(7);
  });

  test('a resumed run keeps the form of the head that it was begun with', async () => {
    const first = await opened({ gradient_accumulation_steps: 1, head_form: 'auto', max_steps: 2 });
    expect(chosen(first, 'head')).toMatch(/^chunks/);
    const ways = await waysOf({ gradient_accumulation_steps: 1 });
    const former = new Ways(new ReferenceBackend({ ops: [...tensorOps, ...optimOps], precision: 'f32' }), { ...ways.base, formerHead: 'tiles' });
    expect([ways.headForms, former.headForms]).toEqual([['chunks', 'tiles'], ['tiles', 'chunks']]);
    await trained(first);
    const state = JSON.parse(readFileSync(`${first.root}/step-000002/trainer_state.json`, 'utf8')) as { machine: Record<string, string> };
    expect(state.machine['head_form']).toBe('chunks');
  });
});

describe('what does not fit', () => {
  test('is refused before anything is started, with the table and what would fit', async () => {
    const fixed = { gradient_checkpointing: false, per_device_train_batch_size: 4, gradient_accumulation_steps: 2, stages: 'resident', max_seq_length: 64 } as const;
    const kept = await opened(fixed);
    const memory = kept.plan.extent - 1;
    const error = await refusal(() => opened(fixed, { memory }));
    expect(error.code).toBe('DoesNotFit');
    expect(error.message).toMatch(/^the run needs [\d.]+ \w+, [\d.]+ \w+ are free; nothing has been started\n {2}saved +[\d.]+ [KM]iB\n/);
    const { nearest, needed } = error.details as { readonly nearest: readonly Nearest[]; readonly needed: number };
    expect(needed).toBe(kept.plan.extent);
    expect(nearest[0]!.settings).toEqual({ gradient_checkpointing: true });
    expect(error.message).toContain('\n  gradient_checkpointing: true: ');
    for (const { extent, settings: change, time } of nearest) {
      expect(extent, JSON.stringify(change)).toBeLessThanOrEqual(memory);
      expect(time).toBeGreaterThan(0);
      // What is proposed is what a run with those settings reserves, where the data allow it.
      if (change.max_seq_length === undefined && change.per_device_train_batch_size === undefined) {
        const session = await opened({ ...fixed, ...change } as Partial<RunInput>, { memory });
        expect(session.plan.extent, JSON.stringify(change)).toBe(extent);
      }
    }
    expect(nearest[0]!.time).toBeGreaterThan(1);
  });

  test('weights that alone are too large end the search after one run, and say so', async () => {
    const ways = await waysOf({ stages: 'resident', optim: 'adamw' });
    const { candidate, fits } = await choose(ways, 1000);
    expect(fits).toBe(false);
    const { weights, state } = candidate.plan.byCategory;
    expect(settledBytes(candidate.plan)).toBeGreaterThanOrEqual(weights + state);
    const output_dir = settings().output_dir!;
    const error = await refusal(() => opened({ stages: 'resident', optim: 'adamw', output_dir }, { memory: 1000 }));
    expect(error.message).toContain('weights and optimizer state alone take');
    expect(existsSync(`${output_dir}/metrics.jsonl`)).toBe(false);
  });
});

test('step 1 stops at the first allocation that is not the planned one, and names it', async () => {
  const session = await opened({});
  // Gradient tiles of another size than planned: the first one that shows.
  Object.defineProperty(session.assembly.device, 'tileBytes', { value: 512 });
  const error = await refusal(() => trained(session));
  expect(error.code).toBe('PlanMismatch');
  expect(error.message).toMatch(/^step, allocation \d+: met \d+ bytes of gradient at \d+ for gradient of model\.\S+, in step, pass update, backward of \S+.*, micro-batch \d, settling model\.\S+; planned was \d+ bytes of gradient at \d+ for gradient of model\.\S+\./);
  expect(session.assembly.device.observer).toBeNull();
});
