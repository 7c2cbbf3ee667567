// The double as a finder of wrong orders between queues. Planted mistakes in a relay through pinned memory are each caught; and on random
// programs, of every two operations that nothing orders, one runs first under some schedule and the other under another.
import { Random } from '@lomo/tensor';
import type { DType, Event, Memory, Queue, Region } from '@lomo/tensor';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { CudaBackend } from '../src/index.ts';
import { double } from './double.ts';

let backend: CudaBackend;
let memory: Memory;
let pinned: Memory;
beforeAll(() => {
  backend = double();
  memory = backend.memory('device', 1 << 16);
  pinned = backend.memory('pinned', 1 << 14);
});
afterAll(() => backend[Symbol.asyncDispose]());
afterEach(() => {
  delete process.env['LOMO_DOUBLE_EAGER'];
});

const queues = ['compute', 'receive', 'send', 'offload'] as const satisfies readonly Queue[];
const at = (index: number, elements = 1, place = memory): Region => ({ memory: place, offset: 256 * index, shape: [elements], dtype: 'f32' });
function launch(name: string, operands: { readonly ins?: readonly Region[]; readonly inouts?: readonly Region[]; readonly outs?: readonly Region[] }, options: { readonly attributes?: readonly number[]; readonly queue?: Queue } = {}): Event {
  const { ins = [], inouts = [], outs = [] } = operands;
  const types = (list: readonly Region[]): DType[] => list.map(({ dtype }) => dtype);
  const kernel = backend.kernel(name, { ins: types(ins), inouts: types(inouts), outs: types(outs) })!;
  return backend.launch(kernel, { ins, inouts, outs, workspace: null }, options.attributes ?? [], options.queue ?? 'compute');
}

/** Runs `body` under each of the sixteen schedules: which queues work at once, the others as late as they may. */
async function underAll<T>(body: () => Promise<T>): Promise<readonly T[]> {
  const seen: T[] = [];
  for (let eager = 0; eager < 16; eager++) {
    process.env['LOMO_DOUBLE_EAGER'] = String(eager);
    seen.push(await body());
  }
  return seen;
}

describe('a relay of six boundaries: made on compute in two buffers, sent to pinned memory, received again, added up', () => {
  const mistakes = ['none', 'sends before it is made', 'makes again before it is sent', 'receives before it is sent', 'reads before it is received', 'receives again before it is read'] as const;
  async function relay(mistake: (typeof mistakes)[number]): Promise<number> {
    const [total, made, back] = [at(0, 16), [at(1, 16), at(2, 16)], [at(3, 16), at(4, 16)]] as const;
    for (const region of [total, ...made, ...back]) launch('fill', { inouts: [region] }, { attributes: [0] });
    for (let m = 0; m < 6; m++) backend.copy(at(m, 16, pinned), total, 'compute');
    await backend.read(total);
    const sent: Event[] = [];
    for (let m = 0; m < 6; m++) {
      if (m >= 2 && mistake !== 'makes again before it is sent') backend.wait('compute', sent[m - 2]!);
      const done = launch('fill', { inouts: [made[m % 2]!] }, { attributes: [10 ** m] });
      if (mistake !== 'sends before it is made') backend.wait('send', done);
      sent.push(backend.copy(at(m, 16, pinned), made[m % 2]!, 'send'));
    }
    // The way back takes them last first.
    const read: Event[] = [];
    for (let n = 0; n < 6; n++) {
      const m = 5 - n;
      if (mistake !== 'receives before it is sent') backend.wait('receive', sent[m]!);
      if (n >= 2 && mistake !== 'receives again before it is read') backend.wait('receive', read[n - 2]!);
      const came = backend.copy(back[m % 2]!, at(m, 16, pinned), 'receive');
      if (mistake !== 'reads before it is received') backend.wait('compute', came);
      read.push(launch('add_into', { ins: [back[m % 2]!], inouts: [total] }));
    }
    const result = new Float32Array(await backend.read(total))[7]!;
    // What nobody waited for is not left to the next relay.
    for (const queue of queues.slice(1)) backend.wait('compute', backend.copy(at(20), at(21), queue));
    await backend.read(total);
    return result;
  }

  test.each(mistakes)('%s', async (mistake) => {
    const wrong = (await underAll(() => relay(mistake))).filter((sum) => sum !== 111_111).length;
    process.stdout.write(`${mistake}: another sum under ${wrong} of 16 schedules\n`);
    if (mistake === 'none') expect(wrong).toBe(0);
    else expect(wrong).toBeGreaterThan(0);
  });
});

/** Highest operation of each queue that is known to have come before. */
type Clock = readonly number[];
const never: Clock = queues.map(() => -1);
const merged = (a: Clock, b: Clock): Clock => a.map((x, q) => Math.max(x, b[q]!));

test('operations that nothing orders run in both orders, those that a wait orders in one: on 40 random programs', async () => {
  const [operations, programs] = [12, 40];
  let [free, bound] = [0, 0];
  const onlyOne: string[] = [];
  const reversed: string[] = [];
  for (let seed = 1; seed <= programs; seed++) {
    const random = new Random(seed);
    const plan = Array.from({ length: operations }, (_, i) => ({
      queue: random.int(0, 3),
      waits: Array.from({ length: i === 0 ? 0 : random.int(0, 2) }, () => random.int(0, i - 1)).filter(() => random.int(0, 2) > 0),
    }));
    // What waits order at least, by the verbs; and at most, since a backend may wait for more of a queue than was asked.
    const counts = queues.map(() => 0);
    const [least, most] = [queues.map(() => never), queues.map(() => never)];
    const numbers: number[] = [];
    const atLeast: Clock[] = [];
    const atMost: Clock[] = [];
    for (const [i, { queue, waits }] of plan.entries()) {
      for (const other of waits) {
        const from = plan[other]!.queue;
        least[queue] = merged(least[queue]!, atLeast[other]!);
        most[queue] = merged(most[queue]!, most[from]!);
      }
      numbers.push(counts[queue]!++);
      least[queue] = least[queue]!.with(queue, numbers[i]!);
      most[queue] = most[queue]!.with(queue, numbers[i]!);
      atLeast.push(least[queue]!);
      atMost.push(most[queue]!);
    }
    const orders = await underAll(async () => {
      const [counter, one] = [at(0), at(1)];
      const slots = plan.map((_, i) => at(2 + i));
      launch('fill', { inouts: [counter] }, { attributes: [0] });
      launch('fill', { inouts: [one] }, { attributes: [1] });
      await backend.read(counter);
      const events: Event[] = [];
      for (const [i, { queue, waits }] of plan.entries()) {
        for (const other of waits) backend.wait(queues[queue]!, events[other]!);
        // Draws a number: what has been drawn before, and one.
        launch('add', { ins: [counter, one], outs: [slots[i]!] }, { queue: queues[queue]! });
        events.push(backend.copy(counter, slots[i]!, queues[queue]!));
      }
      for (const event of events) if (event.queue !== 'compute') backend.wait('compute', event);
      await backend.read(counter);
      return Promise.all(slots.map(async (slot) => new Float32Array(await backend.read(slot))[0]!));
    });
    for (let j = 0; j < operations; j++) for (let i = 0; i < j; i++) {
      const [a, b] = [plan[i]!, plan[j]!];
      if (a.queue === b.queue) continue;
      const backwards = orders.filter((order) => order[i]! > order[j]!).length;
      if (atLeast[j]![a.queue]! >= numbers[i]!) {
        bound++;
        if (backwards > 0) reversed.push(`program ${seed}: ${i} waited for by ${j}`);
      } else if (atMost[j]![a.queue]! < numbers[i]!) {
        free++;
        if (backwards === 0 || backwards === orders.length) onlyOne.push(`program ${seed}: ${i} on ${queues[a.queue]}, ${j} on ${queues[b.queue]}`);
      }
    }
  }
  process.stdout.write(`${free} pairs that nothing orders, each seen in both orders; ${bound} pairs that a wait orders, each in one\n`);
  expect(reversed).toEqual([]);
  expect(onlyOne).toEqual([]);
  expect(free).toBeGreaterThan(500);
  expect(bound).toBeGreaterThan(100);
});
