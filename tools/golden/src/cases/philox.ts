// numbers/philox4x32_10.json: the counter-based random words, and kernels that draw from them under the file's keys.
import { Device, StepTensor, normalFill, philox } from '@lomo/tensor';
import { Dense, Grad } from '@lomo/tensor';
import { Optimizer, lomo } from '@lomo/optim';
import { Comparison } from '../compare.ts';
import type { Engine } from '../engine.ts';
import { referenceBackend } from '../engine.ts';
import { philoxFile, readJson } from '../format.ts';
import { compared, exact } from '../row.ts';
import type { Row } from '../row.ts';
import type { Context, Discover } from '../section.ts';

const file = 'philox4x32_10.json';
const elements = 4096;
/** cos and log in float32: a few units in the last place of values up to 6. */
const normalBar = 2e-6;

/** Where the file is. */
export const philoxWords: Discover = (folder) => (folder.has('numbers', file) ? [{ name: 'numbers/philox4x32_10', rows }] : []);

async function* rows({ folder, engine }: Context): AsyncGenerator<Row> {
  const at = 'numbers/philox4x32_10';
  const cases = await readJson(folder.path('numbers', file), philoxFile);
  yield exact(`${at}/words`, cases.length, cases.flatMap(({ key, counter, output }) => {
    const ours = philox(key, counter);
    return ours.join() === output.join() ? [] : [`key ${key.join(' ')} counter ${counter.join(' ')} is ${ours.join(' ')} here`];
  }));
  if (engine.name === 'reference') return; // its kernels are the definition, which calls the function above
  const keys = [...new Map(cases.map(({ key }) => [key.join(), key])).values()].slice(0, 8);
  const normals = new Comparison();
  const wrong: string[] = [];
  for (const key of keys) {
    normals.add(key.join(' '), { got: await normalsOf(engine, key), want: await normalsOf(null, key) });
    const [ours, theirs] = [await roundedOf(engine, key), await roundedOf(null, key)];
    ours.forEach((bits, i) => {
      if (bits !== theirs[i]) wrong.push(`key ${key.join(' ')}, element ${i}`);
    });
  }
  yield compared(`${at}/normal_fill kernel`, { error: normals.maxAbs, bar: normalBar, measure: 'max_abs', note: `${normals.count} numbers against the definition` });
  yield exact(`${at}/stochastic rounding kernel`, keys.length * elements, wrong);
}

function on<T>(engine: Engine | null, body: (device: Device) => Promise<T>): Promise<T> {
  return engine === null ? body(new Device(referenceBackend(), { bytes: 2 ** 20 })) : engine.onDevice(body);
}

function normalsOf(engine: Engine | null, [seed, key]: readonly [number, number]): Promise<Float64Array> {
  return on(engine, async (device) => {
    const x = device.allocate({ shape: [elements], dtype: 'f32' }, 'io');
    normalFill(x, { seed, key, mean: 0, std: 1 });
    return device.readNumbers(x);
  });
}

/**
 * bf16 weights of 1 moved by k / 65536 of the gap to the next value, k from the element: exact in float32, so that a bit that differs is a
 * random word that differs.
 */
function roundedOf(engine: Engine | null, [low, high]: readonly [number, number]): Promise<number[]> {
  return on(engine, async (device) => {
    const p = device.parameter('model.norm.weight', { shape: [elements], dtype: 'bf16' });
    device.writeNumbers(p, new Float64Array(elements).fill(1));
    const optimizer = new Optimizer(device, [p], { rule: lomo, rounding: 'stochastic' });
    const step = new StepTensor(device);
    step.begin({ step: 3, seed: (high % 2 ** 20) * 2 ** 32 + low, lr: 1, trained: 1 });
    const g = device.allocate({ shape: [elements], dtype: 'f32' }, 'gradient');
    device.writeNumbers(g, Float64Array.from({ length: elements }, (_, i) => -((i * 40503) % 65536) * 2 ** -23));
    const grad = new Grad(device, p.shape, [new Dense(g)]);
    for (const pass of optimizer.passes) {
      pass.settle(p, grad, { step, order: 0 });
      await pass.finish(step);
    }
    grad.release();
    return Array.from(await device.read(p));
  });
}
