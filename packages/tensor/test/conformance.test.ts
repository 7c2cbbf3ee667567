// The suite over a backend that is right, and the suite itself put to the test: planted faults must be caught, each for its own reason.
import { describe, expect, test } from 'vitest';
import { conformance, formatConformance, registerConformance } from '../conformance/index.ts';
import type { ConformanceRow } from '../conformance/index.ts';
import { addOp, castOp, erase, gateCheckOp, matmulOp, mulOp, ReferenceBackend, rmsNormOp, sampleOp, tensorOps } from '../src/index.ts';
import type { Op, Operands } from '../src/index.ts';
import type { Faults } from './bytes.ts';
import { ByteBackend } from './bytes.ts';

describe('reference in f32', () => {
  registerConformance(test, { backend: () => new ReferenceBackend({ ops: tensorOps, precision: 'f32' }), ops: tensorOps, cases: 6 });
});

describe('a backend on plain bytes', () => {
  registerConformance(test, { backend: () => new ByteBackend(tensorOps), ops: tensorOps, cases: 6, seed: 1000 });
});

async function suite(op: Op, faults: Faults, cases = 8): Promise<readonly ConformanceRow[]> {
  return conformance({ backend: () => new ByteBackend([op], faults), ops: [op], dtypes: ['f32'], cases });
}

const messages = (rows: readonly ConformanceRow[]): string => formatConformance(rows);

/** Writes `value` over f32 element `element` of output 0. */
function spoil(operands: Operands, raw: Uint8Array, at: { readonly element: number; readonly change: (x: number) => number }): void {
  const data = new DataView(raw.buffer);
  const offset = operands.outs[0]!.offset + 4 * at.element;
  data.setFloat32(offset, at.change(data.getFloat32(offset, true)), true);
}

describe('the suite catches', () => {
  test('a wrong value, wherever it lies', async () => {
    const rows = await suite(erase(addOp), { after: (_, operands, raw) => spoil(operands, raw, { element: operands.outs[0]!.shape.reduce((a, b) => a * b, 1) - 1, change: (x) => x + 1e-3 }) });
    expect(rows[0]!.failures).toHaveLength(8);
    expect(messages(rows)).toMatch(/seed 1: output 0, element \d+ of .*the definition says/);
  });

  test('an error of a few units that a float64 definition makes visible', async () => {
    const rows = await suite(erase(mulOp), { after: (_, operands, raw) => spoil(operands, raw, { element: 0, change: (x) => x + 8e-6 }) });
    expect(rows[0]!.failures.length).toBeGreaterThan(0);
  });

  test('a write behind an output', async () => {
    const rows = await suite(erase(addOp), { after: (_, { outs }, raw) => raw.fill(0, outs[0]!.offset + outs[0]!.shape.reduce((a, b) => a * b, 4), outs[0]!.offset + outs[0]!.shape.reduce((a, b) => a * b, 4) + 1) });
    expect(messages(rows)).toMatch(/wrote byte \d+, outside every output \(behind output 0\)/);
    expect(rows[0]!.failures).toHaveLength(8);
  });

  test('a write before an output', async () => {
    const rows = await suite(erase(addOp), { after: (_, { outs }, raw) => raw.fill(0, outs[0]!.offset - 4, outs[0]!.offset) });
    expect(messages(rows)).toMatch(/outside every output/);
  });

  test('more scratch used than asked for', async () => {
    const rows = await suite(erase(addOp), { workspace: 100, after: (_, { workspace }, raw) => raw.fill(0, workspace!.offset, workspace!.offset + 104) });
    expect(messages(rows)).toMatch(/behind the workspace of 100 bytes/);
  });

  test('but not scratch used as asked for', async () => {
    const rows = await suite(erase(addOp), { workspace: 100, after: (_, { workspace }, raw) => raw.fill(0, workspace!.offset, workspace!.offset + 100) });
    expect(messages(rows)).toMatch(/^passed/);
  });

  test('a forgotten output', async () => {
    const rows = await suite(erase(rmsNormOp), { forgets: (_, output) => output === 1 });
    expect(messages(rows)).toMatch(/output 1, element 0 of .*: NaN, the definition says/);
    const ids = await suite(erase(sampleOp), { forgets: () => true });
    expect(ids[0]!.failures).toHaveLength(8);
  });

  test('a changed input', async () => {
    const rows = await suite(erase(matmulOp), { after: (_, { ins }, raw) => raw.fill(0, ins[1]!.offset, ins[1]!.offset + 1) });
    expect(messages(rows)).toMatch(/changed its input 1/);
  });

  test('a gate that stays open before a non-finite gradient', async () => {
    const rows = await suite(erase(gateCheckOp), { after: (_, { inouts }, raw) => new DataView(raw.buffer).setInt32(inouts[0]!.offset + 12, 0, true) }, 20);
    expect(messages(rows)).toMatch(/in-out 0, element 3 of \[8\]: 0, the definition says 1/);
  });

  test('memory that is not given back', async () => {
    const rows = await suite(erase(addOp), { leaks: true }, 2);
    expect(messages(rows)).toMatch(/bytes are still reserved/);
  });

  test('a kernel that throws, and goes on with a new backend', async () => {
    let made = 0;
    const rows = await conformance({
      backend: () => {
        made++;
        return new ByteBackend([erase(addOp)], {
          after: () => {
            throw new Error('planted');
          },
        });
      },
      ops: [erase(addOp)],
      dtypes: ['f32'],
      cases: 3,
    });
    expect(rows[0]!.failures.map((f) => f.message)).toEqual(['threw: planted', 'threw: planted', 'threw: planted']);
    expect(made).toBe(4);
  });
});

test('what has no kernel is listed with the reason', async () => {
  const faults: Faults = { missing: (_, { ins }) => ins[0] === 'f16' };
  const rows = await conformance({ backend: () => new ByteBackend(tensorOps, faults), ops: [erase(castOp)], cases: 12 });
  const skipped = rows.filter((row) => row.skipped !== null);
  expect(skipped.length).toBeGreaterThan(0);
  for (const row of skipped) {
    expect(row.cases).toBe(0);
    expect(row.signature).toMatch(/^f16 \|/);
    expect(row.skipped).toBe('bytes has no kernel for it (has: f32)');
  }
  expect(formatConformance(rows)).toContain('skipped  cast (f16 |  | ');
});

test('a failing seed draws the same case again', async () => {
  const faults: Faults = { after: (_, operands, raw) => spoil(operands, raw, { element: 0, change: (x) => (x > 0 ? x + 1 : x) }) };
  const rows = await suite(erase(addOp), faults);
  const { seed, message } = rows[0]!.failures[0]!;
  const again = await conformance({ backend: () => new ByteBackend([erase(addOp)], faults), ops: [erase(addOp)], dtypes: ['f32'], cases: 1, seed });
  expect(again[0]!.failures).toEqual([{ seed, message }]);
});
