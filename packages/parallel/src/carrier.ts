// Carries bytes between the arena and a store, behind the queue that still uses them. One reader and one writer, each in order.
import type { Device, Queue } from '@lomo/tensor';
import type { ByteStore, Parcel, Passage } from './passage.ts';
import { passageOf } from './passage.ts';

export type { ByteStore, Parcel } from './passage.ts';

export class Carrier {
  private readonly device: Device;
  private readonly passage: Passage;
  private reading: Promise<unknown> = Promise.resolve();
  private writing: Promise<unknown> = Promise.resolve();
  private bytesIn = 0;
  private bytesOut = 0;

  /** `out` is the queue on which bytes leave the arena; 'send' unless given. */
  constructor(device: Device, store: ByteStore, out: Queue = 'send') {
    this.device = device;
    this.passage = passageOf(device, store, out);
  }

  /** Bytes fetched so far. */
  get fetched(): number {
    return this.bytesIn;
  }

  /** Bytes put into the store so far. */
  get put(): number {
    return this.bytesOut;
  }

  /** Bytes of pinned memory reserved so far. */
  get pinned(): number {
    return this.passage.pinned;
  }

  /** Fills the parcels from the store once everything enqueued by now has run: until then their bytes may still be somebody else's. */
  fetch(parcels: readonly Parcel[]): Promise<void> {
    const reached = this.device.reached();
    return (this.reading = inTurn(this.reading, reached, async () => {
      for (const parcel of parcels) await this.passage.fill(parcel, (bytes) => (this.bytesIn += bytes));
    }));
  }

  /** Writes the parcels into the store once everything enqueued by now has run. Nobody may write to them until that is done. */
  deliver(parcels: readonly Parcel[]): Promise<void> {
    const reached = this.device.reached();
    return (this.writing = inTurn(this.writing, reached, async () => {
      for (const parcel of parcels) await this.passage.empty(parcel, (bytes) => (this.bytesOut += bytes));
    }));
  }

  /** Resolves when nothing is on its way any more, however it ended. */
  async idle(): Promise<void> {
    await Promise.allSettled([this.reading, this.writing]);
  }
}

/** `body` after `before`, however that ended, and after `reached`. Whoever awaits it hears of a failure; nobody has to. */
function inTurn(before: Promise<unknown>, reached: Promise<void>, body: () => Promise<void>): Promise<void> {
  reached.catch(() => {});
  const turn = before.then(noop, noop).then(() => reached).then(body);
  turn.catch(noop);
  return turn;
}

function noop(): void {}
