// The backend without data: what it reads are zeros, and planning a large run leaves no heap of them behind.
import { expect, test } from 'vitest';
import { Device, DryBackend, ReferenceBackend, tensorOps } from '../src/index.ts';

test('a read gives zeros of its size; large ones take no memory twice', async () => {
  const device = new Device(new DryBackend(new ReferenceBackend({ ops: tensorOps })), { bytes: Infinity });
  const [small, large] = [device.allocate({ shape: [3], dtype: 'f32' }, 'io'), device.allocate({ shape: [2 ** 20], dtype: 'f32' }, 'io')];
  expect(await device.read(small)).toEqual(new Float32Array(3));
  const first = await device.read(large);
  expect([first.length, first.every((x) => x === 0)]).toEqual([2 ** 20, true]);
  expect((await device.read(large)).buffer).toBe(first.buffer);
  expect((await device.read(small)).buffer).not.toBe((await device.read(small)).buffer);
});
