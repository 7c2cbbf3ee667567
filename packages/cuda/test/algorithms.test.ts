// Which algorithm multiplies, on a double that has good ones and bad ones: a row's bits do not depend on how many rows there are, the fastest
// deterministic one is found by measurement, and a record of it gives another backend the same bits.
import { afterEach, expect, test } from 'vitest';
import { isLomoError } from '@lomo/tensor';
import type { DType, Memory, Operands, Region } from '@lomo/tensor';
import type { Algorithms, CudaBackend, CudaOptions } from '../src/index.ts';
import { double } from './double.ts';

const made: CudaBackend[] = [];
afterEach(async () => {
  for (const backend of made.splice(0)) await backend[Symbol.asyncDispose]();
  delete process.env['LOMO_DOUBLE_LT_VERSION'];
});

const [m, n, k] = [600, 24, 200];
const draw = (i: number): number => Math.sin(i * 12.9898) * 3;

/** A backend with room for one product of m rows. */
class Bench {
  readonly backend: CudaBackend;
  readonly memory: Memory;

  constructor(options: CudaOptions = {}) {
    this.backend = double(options);
    made.push(this.backend);
    this.memory = this.backend.memory('device', 16 << 20);
  }

  at(offset: number, shape: readonly number[], dtype: DType = 'f32'): Region {
    return { memory: this.memory, offset, shape, dtype };
  }

  private launch(name: string, operands: Operands, attributes: readonly number[]): void {
    const types = (regions: readonly Region[]): readonly DType[] => regions.map((r) => r.dtype);
    const kernel = this.backend.kernel(name, { ins: types(operands.ins), inouts: types(operands.inouts), outs: types(operands.outs) })!;
    const bytes = this.backend.workspace(kernel, operands, attributes);
    this.backend.launch(kernel, { ...operands, workspace: this.at(4 << 20, [bytes], 'u8') }, attributes, 'compute');
  }

  /** a [m, k] b [k, n], its rows made `rows` at a time. */
  async product(rows = m): Promise<Uint8Array> {
    this.backend.write(this.at(0, [m, k]), Float32Array.from({ length: m * k }, (_, i) => draw(i)));
    this.backend.write(this.at(1 << 20, [k, n]), Float32Array.from({ length: k * n }, (_, i) => draw(i + 5)));
    for (let from = 0; from < m; from += rows) {
      const count = Math.min(rows, m - from);
      this.launch('matmul', { ins: [this.at(4 * from * k, [count, k]), this.at(1 << 20, [k, n])], inouts: [], outs: [this.at((2 << 20) + 4 * from * n, [count, n])], workspace: null }, [0, 0, 1]);
    }
    return new Uint8Array(await this.backend.read(this.at(2 << 20, [m, n])));
  }

  /** Asks for the product's workspace, as a dry step does. */
  expects(): this {
    const kernel = this.backend.kernel('matmul', { ins: ['f32', 'f32'], inouts: [], outs: ['f32'] })!;
    this.backend.workspace(kernel, { ins: [this.at(0, [m, k]), this.at(0, [k, n])], inouts: [], outs: [this.at(0, [m, n])], workspace: null }, [0, 0, 1]);
    return this;
  }

  tune(bytes = 16 << 20): Promise<Algorithms> {
    return this.backend.tune(this.at(0, [bytes], 'u8'));
  }
}

/** The double's own number of an algorithm (native/double/cublaslt.cpp): the second eight bytes. */
const kind = (algorithms: Algorithms): readonly number[] => algorithms.products.map(({ algorithm }) => Number.parseInt(algorithm.slice(16, 18), 16));

test('without a measurement: the first suggestion for a constant number of rows; a row has the same bits among any number of rows, in any run', async () => {
  const bench = new Bench();
  const whole = await bench.product();
  for (const rows of [1, 20, 31, 100, 511]) expect(await bench.product(rows)).toEqual(whole);
  expect(await new Bench().product(7)).toEqual(whole);
  expect(kind(bench.backend.algorithms())).toEqual([11]);
  expect(bench.backend.algorithms()).toMatchObject({ library: 'cuBLASLt 13.0.2', gpu: 'lomo host double, sm_90', products: [{ product: 'n 24 k 200 ldb 24 f32 -> f32 by 16', microseconds: 0, notFor: [] }] });
});

test('measured: the fastest deterministic one, outside steps, without memory of its own; what runs later prepares as little as ever', async () => {
  const bench = new Bench().expects();
  const before = bench.backend.driverMemory().free;
  const tuned = await bench.tune();
  expect(before - bench.backend.driverMemory().free).toBeLessThan(1 << 20); // code that the library loads when it is first wanted
  // Of seven: three split k, one wants too much scratch.
  expect(tuned.products).toMatchObject([{ candidates: 3 }]);
  expect([kind(tuned), tuned.products[0]!.microseconds > 0]).toEqual([[13], true]);
  const whole = await bench.product();
  for (const rows of [3, 400]) expect(await bench.product(rows)).toEqual(whole);
  expect(whole).not.toEqual(await new Bench().product());
  await bench.product();
  const { allocations, waits } = bench.backend.counters();
  await bench.product();
  expect([bench.backend.counters().allocations, bench.backend.counters().waits]).toEqual([allocations, waits]);
});

test('recorded: the bits of the run that measured, before anything is measured; kept for the next run where it was not needed', async () => {
  const first = new Bench().expects();
  const record = JSON.parse(JSON.stringify(await first.tune())) as Algorithms;
  const second = new Bench({ algorithms: record });
  expect(second.backend.discarded).toBe(null);
  expect(second.backend.algorithms().products.map(({ algorithm }) => algorithm)).toEqual(record.products.map(({ algorithm }) => algorithm));
  expect(await second.product()).toEqual(await first.product());
  // What is recorded is not measured again.
  expect((await second.expects().tune()).products[0]!.candidates).toBe(0);
});

test('an algorithm that has been used stays, whatever is measured later', async () => {
  const bench = new Bench();
  const whole = await bench.product();
  expect(kind(await bench.expects().tune())).toEqual([11]);
  expect(await bench.product()).toEqual(whole);
});

test('another library or GPU: the record is discarded with a line that says so; a broken record is refused', async () => {
  const record = await new Bench().expects().tune();
  process.env['LOMO_DOUBLE_LT_VERSION'] = '130103';
  const { backend } = new Bench({ algorithms: record });
  expect(backend.discarded).toMatch(/of cuBLASLt 13\.0\.2 on lomo host double, sm_90, here are cuBLASLt 13\.1\.3 on lomo host double, sm_90: they are chosen anew/);
  expect(backend.algorithms().products).toEqual([]);
  delete process.env['LOMO_DOUBLE_LT_VERSION'];
  let code = '';
  try {
    void new Bench({ algorithms: { ...record, products: [{ ...record.products[0]!, algorithm: 'xyz' }] } });
  } catch (error) {
    if (isLomoError(error)) code = `${error.code}: ${error.message}`;
  }
  expect(code).toMatch(/^BadOption: .*'n 24 k 200 .*hexadecimal digits: leave `algorithms` out/);
});

test('a record of an algorithm that splits k is not followed: those rows have one of their own, and that is said', async () => {
  const record = await new Bench().expects().tune();
  const bad = record.products[0]!.algorithm.slice(0, 16) + '10' + record.products[0]!.algorithm.slice(18); // 16 splits k by atomics
  const bench = new Bench({ algorithms: { ...record, products: [{ ...record.products[0]!, algorithm: bad }] } });
  expect(await bench.product()).toEqual(await bench.product());
  expect(bench.backend.algorithms().products[0]!.notFor).toEqual([m]);
});

test('a scratch too small for the constant number of rows measures fewer; one too small for 64 leaves the class to suggestion', async () => {
  expect(kind(await new Bench().expects().tune(6 << 20))).toEqual([13]);
  const bench = new Bench().expects();
  expect(kind(await bench.tune(1 << 20))).toEqual([]);
  await bench.product();
  expect(kind(bench.backend.algorithms())).toEqual([11]);
});
