// Gradients of every differentiable op and composition against central differences of the float64 definition, element by element.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  addOp, attentionOp, castOp, Device, embeddingOp, erase, Ledger, linear, linearCrossEntropy, mulOp, Parameter, Random, ReferenceBackend,
  rmsNormOp, ropeOp, scaleOp, siluMulOp, StepTensor, Tape, tensorOps,
} from '../src/index.ts';
import type { HeadForm, Op, SampleTensor, Tensor } from '../src/index.ts';

/** Elements looked at of one input; all of smaller ones. */
const looked = 48;
const backend = new ReferenceBackend({ ops: tensorOps, chunk: 8 });
const fresh = (): Device => new Device(backend, { bytes: 16 << 20 });
let device = fresh();
beforeEach(() => {
  device = fresh();
});
afterEach(() => {
  expect(device.arena.live).toBe(0);
  device.free();
});

/** One function of activations and parameters under test. */
interface Subject {
  readonly arriving: Tensor | null;
  readonly parameters: readonly Parameter[];
  /** The result, or null where the loss goes to the step tensor. */
  forward(): Tensor | null;
  /** For losses: the number whose gradient is taken. */
  loss?(): number;
}

function exact(shape: readonly number[], values: ArrayLike<number>, into?: Tensor): Tensor {
  const tensor = into ?? device.allocate({ shape, dtype: 'f32' }, 'workspace');
  backend.writeExact(tensor, values);
  return tensor;
}

function parameter(path: string, shape: readonly number[], values: ArrayLike<number>): Parameter {
  const p = device.parameter(path, { shape, dtype: 'f32' });
  exact(shape, values, p);
  return p;
}

/** Runs forward and back once, then compares every looked-at element with (f(x + e) - f(x - e)) / 2e. Disposes of what the subject owns. */
function check(subject: Subject, random: Random): number {
  const { arriving, parameters } = subject;
  const gradients = new Map<Tensor, Float64Array>();
  const ledger = new Ledger(device, {
    microBatches: 1,
    accumulate: 'buffer',
    settle: (p, grad) => {
      using value = grad.value();
      gradients.set(p, backend.readExact(value));
    },
  });
  for (const p of parameters) ledger.hold(p);
  const tape = new Tape(device, arriving, (p) => ledger.hold(p));
  const out = device.under({ category: 'workspace', recorder: tape }, () => device.own(() => {
    const result = subject.forward();
    return { result, keep: result === null ? [] : [result] };
  }));
  const weights = out === null ? null : random.normal(out.shape.reduce((a, b) => a * b, 1));
  const dy = out === null ? null : exact(out.shape, weights!);
  for (const p of parameters) ledger.release(p);
  using dx = tape.walk(out, dy, { ledger, microBatch: 0, stage: 'stage', stores: ledger.factorStores('stage') });
  ledger.closeStores('stage');
  ledger.finish();
  out?.dispose();
  if (arriving !== null) gradients.set(arriving, backend.readExact(dx!));

  const value = (): number => {
    if (subject.loss !== undefined) return subject.loss();
    using result = device.own(() => {
      const y = subject.forward()!;
      return { result: y, keep: [y] };
    });
    return backend.readExact(result).reduce((sum, y, i) => sum + y * weights![i]!, 0);
  };
  let compared = 0;
  for (const input of [...(arriving === null ? [] : [arriving]), ...parameters]) {
    const x = backend.readExact(input);
    const gradient = gradients.get(input)!;
    const scale = Math.max(1e-3, ...gradient.map(Math.abs));
    const stride = Math.max(1, Math.floor(x.length / looked));
    for (let i = 0; i < x.length; i += stride) {
      const e = 1e-5 * Math.max(1, Math.abs(x[i]!));
      const [up, down] = [e, -e].map((d) => {
        const moved = x.slice();
        moved[i]! += d;
        backend.writeExact(input, moved);
        return value();
      });
      backend.writeExact(input, x);
      const slope = (up! - down!) / (2 * e);
      // Central differences err by e^2 f''' / 6 and by rounding of f over e: both below 1e-7 of the scale here.
      expect(Math.abs(slope - gradient[i]!) / scale, `element ${i} of [${input.shape.join(', ')}]: ${gradient[i]}, differences say ${slope}`).toBeLessThan(2e-7);
      compared++;
    }
  }
  for (const p of parameters) p.dispose();
  arriving?.dispose();
  return compared;
}

function place(tensor: SampleTensor): Tensor {
  if (tensor.dtype === 'i32') {
    const ids = device.allocate({ shape: tensor.shape, dtype: 'i32' }, 'io');
    device.writeNumbers(ids, tensor.values);
    return ids;
  }
  return exact(tensor.shape, tensor.values);
}

/** Which inputs of an op are weights: their gradient is a Grad or a running sum, not a tensor. */
const weightsOf: Readonly<Record<string, number>> = { embedding: 1, rms_norm: 1 };

describe('ops', () => {
  const subjects: readonly Op[] = [erase(addOp), erase(attentionOp), erase(castOp), erase(embeddingOp), erase(mulOp), erase(rmsNormOp), erase(ropeOp), erase(scaleOp), erase(siluMulOp)];

  test('are all of those with a gradient', () => {
    expect(subjects.map((op) => op.name).toSorted()).toEqual(tensorOps.filter((op) => op.backward !== undefined).map((op) => op.name).toSorted());
  });

  for (const op of subjects) {
    test(op.name, () => {
      let compared = 0;
      for (let seed = 1; seed <= 4; seed++) {
        const sample = op.sample(new Random(seed));
        const weight = weightsOf[op.name];
        sample.ins.forEach((input, subject) => {
          if ((input.dtype !== 'real' && input.dtype !== 'activation') || subject === weight) return;
          const ins = sample.ins.map((t, i) => (i === weight ? parameter('w', t.shape, t.values) : place(t)));
          compared += check({
            arriving: ins[subject]!,
            parameters: ins.filter((t): t is Parameter => t instanceof Parameter),
            forward: () => device.apply(op, ins, sample.attributes)[0]!,
          }, new Random(seed + 100));
          ins.forEach((t, i) => i === subject || t.dispose());
        });
        if (op.name === 'embedding') {
          const ids = place(sample.ins[0]!);
          const w = parameter('w', sample.ins[1]!.shape, sample.ins[1]!.values);
          compared += check({ arriving: null, parameters: [w], forward: () => device.apply(op, [ids, w], {})[0]! }, new Random(seed + 100));
          ids.dispose();
        }
      }
      expect(compared).toBeGreaterThan(20);
    });
  }

  test('an input used by two ops, once through a reshape', () => {
    const random = new Random(9);
    const x = exact([4, 6], random.normal(24));
    check({
      arriving: x,
      parameters: [],
      forward: () => {
        const [a] = device.apply(mulOp, [x, x], {});
        const [b] = device.apply(scaleOp, [x.reshape([24])], { factor: 3 });
        return device.apply(addOp, [a!, b!.reshape([4, 6])], {})[0]!;
      },
    }, random);
  });
});

describe('linear', () => {
  for (const [name, withBias] of [['without bias', false], ['with bias', true]] as const) {
    test(name, () => {
      const random = new Random(withBias ? 3 : 4);
      const [tokens, k, n] = [19, 7, 5];
      const x = exact([tokens, k], random.normal(tokens * k));
      const w = parameter('w', [n, k], random.normal(n * k));
      const bias = withBias ? parameter('b', [n], random.normal(n)) : null;
      check({ arriving: x, parameters: bias === null ? [w] : [w, bias], forward: () => linear(x, w, bias) }, random);
    });
  }

  test('three layers on one input add into one gradient', () => {
    const random = new Random(6);
    const x = exact([9, 4], random.normal(36));
    const weights = [0, 1, 2].map((i) => parameter(`w${i}`, [4, 4], random.normal(16)));
    check({
      arriving: x,
      parameters: weights,
      forward: () => {
        const [a, b, c] = weights.map((w) => linear(x, w));
        const [ab] = device.apply(mulOp, [a!, b!], {});
        return device.apply(addOp, [ab!, c!], {})[0]!;
      },
    }, random);
  });
});

describe('linear_cross_entropy', () => {
  const cases: readonly (readonly [HeadForm, number])[] = [['chunks', 37], ['tiles', 37], ['tiles', 1100]];
  for (const [form, vocabulary] of cases) {
    test(`${form}, vocabulary of ${vocabulary}`, () => {
      const random = new Random(vocabulary);
      const [tokens, h] = [19, 6];
      const step = new StepTensor(device);
      step.begin({ step: 1, seed: 1, lr: 0, trained: 16 });
      const x = exact([tokens, h], random.normal(tokens * h));
      const w = parameter('w', [vocabulary, h], random.normal(vocabulary * h, 0.5));
      const targets = device.allocate({ shape: [tokens], dtype: 'i32' }, 'io');
      device.writeNumbers(targets, Array.from({ length: tokens }, (_, t) => (t % 6 === 5 ? -100 : random.int(0, vocabulary - 1))));
      const tokenLoss = device.allocate({ shape: [tokens], dtype: 'f32' }, 'io');
      const forward = (): null => {
        step.clearLoss();
        linearCrossEntropy(x, w, { targets, step, tokenLoss, start: 0, form });
        return null;
      };
      const loss = (): number => {
        forward();
        // The step divides by its 16 trained tokens, held as the f32 1 / 16.
        return backend.readExact(step.loss).reduce((a, b) => a + b, 0) / 16;
      };
      expect(check({ arriving: x, parameters: [w], forward, loss }, random)).toBeGreaterThan(60);
      for (const t of [targets, tokenLoss, step.scalars, step.counters, step.loss, step.norm]) t.dispose();
    });
  }
});
