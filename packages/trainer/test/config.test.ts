// Settings: aliases, defaults, batch arithmetic, and complaints that name the place and what was meant.
import { describe, expect, test } from 'vitest';
import { learningRateOf, microBatchesOf, parseRun, runSchema } from '../src/index.ts';

const minimal = { model_name_or_path: 'm', datasets: [{ path: 'd.jsonl' }] };

test('aliases become canonical names, and are told', () => {
  const { config, renamed } = parseRun({ base_model: 'm', train_file: 'd.jsonl', cutoff_len: 64, lr: 0.1, mask_prompt: false });
  expect(config).toMatchObject({ model_name_or_path: 'm', datasets: [{ path: 'd.jsonl' }], max_seq_length: 64, learning_rate: 0.1, train_on_inputs: true });
  expect(renamed).toContain('cutoff_len -> max_seq_length');
});

test('an unknown key names its place and what was probably meant', () => {
  const locate = (path: readonly (string | number)[]) => `run.yaml:${path.length + 6}`;
  expect(() => parseRun({ ...minimal, lerning_rate: 1 }, locate)).toThrow("run.yaml:7: unknown key 'lerning_rate'; did you mean 'learning_rate'?");
  expect(() => parseRun({ ...minimal, datasets: [{ path: 'd', tmplate: {} }] }, locate)).toThrow(/unknown key 'datasets\.0\.tmplate'; did you mean 'template'/);
  expect(() => parseRun({ ...minimal, zzzzzz: 1 })).toThrow(/unknown key 'zzzzzz'$/);
});

test('all wrong values are told at once', () => {
  expect(() => parseRun({ ...minimal, max_steps: -1, dtype: 'f8' })).toThrow(/max_steps: .*\n.*dtype: /s);
});

test('a wrong value says what was expected, what was found and what was probably meant', () => {
  const said = (more: object): string => {
    try {
      parseRun({ ...minimal, ...more });
    } catch (error) {
      return (error as Error).message;
    }
    return 'accepted';
  };
  expect(said({ clip_by: 'two_pass' })).toBe(`config: clip_by: expected auto, two-pass, memory, file; found "two_pass"; did you mean 'two-pass'?`);
  expect(said({ clip_by: 'disk' })).toBe('config: clip_by: expected auto, two-pass, memory, file; found "disk"');
  expect(said({ dtype: 'fp8' })).toBe('config: dtype: expected f32, bf16, f16; found "fp8"');
  expect(said({ dtype: 'bf61' })).toMatch(/did you mean 'bf16'\?$/);
  expect(said({ rounding: 'stochasitc' })).toMatch(/did you mean 'stochastic'\?$/);
  expect(said({ loss_scale: 'dynamc' })).toMatch(/found "dynamc"; did you mean 'dynamic'\?$/);
  expect(said({ loss_scale: 1000 })).toMatch(/power of two .*; found 1000$/);
  expect(said({ atomic: 'yes' })).toBe('config: atomic: expected boolean; found "yes"');
  expect(said({ gradient_checkpointing: 'yes' })).toBe('config: gradient_checkpointing: expected auto, true, false; found "yes"');
  expect(said({ datasets: [{}] })).toBe('config: datasets.0.path: is missing');
  expect(said({ max_steps: 0 })).toMatch(/max_steps: .*; found 0$/);
});

test('a dtype may be spelled as elsewhere, or switched on', () => {
  const dtypeOf = (more: object) => parseRun({ ...minimal, ...more }).config.dtype;
  for (const name of ['f16', 'float16', 'fp16', 'FP16', 'half']) expect(dtypeOf({ dtype: name })).toBe('f16');
  expect([dtypeOf({ precision: 'bfloat16' }), dtypeOf({ dtype: 'float32' }), dtypeOf({ bf16: true }), dtypeOf({ fp16: true, bf16: false }), dtypeOf({ fp16: false })]).toEqual(['bf16', 'f32', 'bf16', 'f16', 'f32']);
  expect(parseRun({ ...minimal, fp16: true }).renamed).toEqual(['fp16 -> dtype']);
  expect(() => dtypeOf({ fp16: true, bf16: true })).toThrow(/both mean dtype, and disagree/);
  expect(() => dtypeOf({ dtype: 'float8' })).toThrow(/dtype: /);
});

test('two aliases that disagree are refused', () => {
  expect(() => parseRun({ ...minimal, lr: 0.1, learning_rate: 0.2 })).toThrow("'learning_rate' and 'lr' both mean learning_rate, and disagree");
  expect(parseRun({ ...minimal, lr: 0.1, learning_rate: 0.1 }).config.learning_rate).toBe(0.1);
});

describe('batch arithmetic', () => {
  const m = (more: object): number => microBatchesOf(parseRun({ ...minimal, ...more }).config);
  test('16 sequences unless told otherwise', () => expect(m({ per_device_train_batch_size: 4 })).toBe(4));
  test('what does not come out even is refused', () => expect(() => m({ per_device_train_batch_size: 3, global_batch_size: 16 })).toThrow(/not a multiple/));
  test('three that contradict are refused', () => {
    expect(() => m({ per_device_train_batch_size: 2, gradient_accumulation_steps: 2, global_batch_size: 8 })).toThrow(/give two of the three/);
  });
});

test('rates: each rule has its own, and a rate of another kind of optimizer is noticed', () => {
  expect(learningRateOf(parseRun({ ...minimal, optim: 'lomo' }).config)).toBe(3e-2);
  expect(() => learningRateOf(parseRun({ ...minimal, optim: 'mine' }).config)).toThrow(/no default rate/);
  expect(parseRun({ ...minimal, optim: 'lomo', learning_rate: 2e-5 }).warnings).toEqual(['learning_rate 0.00002 looks like one for adamw; lomo usually takes about 0.03']);
});

test('every setting has a type in the schema, so that help and editors know it', () => {
  expect(Object.keys(runSchema.shape).length).toBeGreaterThan(35);
});
