import { test, expect } from 'vitest';
import { Device, ReferenceBackend, tensorOps, Tape, Ledger } from '@lomo/tensor';
import { Program } from '../src/index.ts';
import { Toy, toyBatches, joined } from './toy.ts';
test('central differences', async () => {
  const backend = new ReferenceBackend({ ops: tensorOps });
  for (const tied of [false, true]) for (const headForm of ['chunks', 'tiles'] as const) for (const M of [1, 4]) for (const accumulate of ['buffer','factors'] as const) for (const keep of [false,true]) {
  const device = new Device(backend, { bytes: 8 << 20 });
  const toy = new Toy(device, { tied });
  const base = toyBatches({ count: 4, tokens: 16, length: 8 });
  const batches = M === 1 ? [joined(base)] : base;
  const program = new Program(device, toy, { microBatches: M, tokens: 64 / M, maxSegments: 8 / M, maxLength: 8, headForm, accumulate, keeps: () => keep });
  const live = device.arena.live;
  const grads = new Map<string, Float64Array>();
  const r = await program.run({ batches, step: 1, seed: 1, lr: 0, passes: [{ name: 'take', settle: (p, g) => { using v = g.value(); grads.set(p.path, backend.readExact(v)); }, finish() {} }] });
  expect(device.arena.live).toBe(live);
  const loss = async () => {
    const e = await (M === 1 ? program.evaluate(batches) : program.evaluate(base)); return e.loss;
  };
  expect(await loss()).toBeCloseTo(r.loss, 6);
  const params = toy.stages.flatMap((s) => s.parameters());
  let worst = 0;
  if (M === 1) for (const p of new Set(params)) {
    const g = grads.get(p.path)!; const w = backend.readExact(p);
    for (const i of [0, 7 % w.length]) {
      const l: number[] = [];
      for (const d of [1e-4, -1e-4]) { const x = w.slice(); x[i]! += d; backend.writeExact(p, x); l.push((await (async () => { program.step; return program.evaluate(batches); })()).lossSum); }
      backend.writeExact(p, w);
      const num = (l[0]! - l[1]!) / 2e-4 / r.trained;
      worst = Math.max(worst, Math.abs(num - g[i]!));
    }
  }
  console.log(tied, headForm, M, accumulate, keep, r.loss, worst, [...grads.values()].reduce((a, g) => a + g.reduce((x, y) => x + y * y, 0), 0));
  device.free();
  }
});
