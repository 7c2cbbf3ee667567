// Carries bytes between the arena and a store, behind the queue that still uses them. One reader and one writer, each in order.
import type { Device, DType } from '@lomo/tensor';
import { hostWindow, sizeOf } from '@lomo/tensor';

/** Bytes outside the device; positions are absolute. Both move all the bytes or throw LomoError 'FileError', naming the place. */
export interface ByteStore {
  write(from: Uint8Array, position: number): Promise<void>;
  read(into: Uint8Array, position: number): Promise<void>;
}

/** A stretch of the arena and where it lies in the store. */
export interface Parcel {
  /** From the start of the device's memory. */
  readonly offset: number;
  readonly bytes: number;
  readonly dtype: DType;
  /** In the store. */
  readonly position: number;
}

/** Bytes of one call of a store where the host sees the arena. */
const pieceBytes = 2 ** 24;
/** Bytes of the one buffer that everything passes through where it does not. */
const roomBytes = 2 ** 22;

export class Carrier {
  private readonly device: Device;
  private readonly store: ByteStore;
  private reading: Promise<unknown> = Promise.resolve();
  private writing: Promise<unknown> = Promise.resolve();
  private roomForReads: Uint8Array | null = null;
  private bytesIn = 0;
  private bytesOut = 0;

  constructor(device: Device, store: ByteStore) {
    this.device = device;
    this.store = store;
  }

  /** Bytes fetched so far. */
  get fetched(): number {
    return this.bytesIn;
  }

  /** Bytes put into the store so far. */
  get put(): number {
    return this.bytesOut;
  }

  /** Fills the parcels from the store once everything enqueued by now has run: until then their bytes may still be somebody else's. */
  fetch(parcels: readonly Parcel[]): Promise<void> {
    const reached = this.device.reached();
    return (this.reading = inTurn(this.reading, reached, async () => {
      for (const parcel of parcels) await this.fill(parcel);
    }));
  }

  /** Writes the parcels into the store once everything enqueued by now has run. Nobody may write to them until that is done. */
  deliver(parcels: readonly Parcel[]): Promise<void> {
    const reached = this.device.reached();
    return (this.writing = inTurn(this.writing, reached, async () => {
      for (const parcel of parcels) await this.empty(parcel);
    }));
  }

  /** Resolves when nothing is on its way any more, however it ended. */
  async idle(): Promise<void> {
    await Promise.allSettled([this.reading, this.writing]);
  }

  private async fill({ offset, bytes, dtype, position }: Parcel): Promise<void> {
    const { memory } = this.device;
    for (const { at, count } of pieces({ offset, bytes }, memory.host === undefined ? roomBytes : pieceBytes)) {
      if (memory.host !== undefined) await this.store.read(memory.host(offset + at, count), position + at);
      else {
        const room = (this.roomForReads ??= new Uint8Array(roomBytes)).subarray(0, count);
        await this.store.read(room, position + at);
        this.device.backend.write({ memory, offset: offset + at, shape: [count / sizeOf(dtype)], dtype }, room);
      }
      this.bytesIn += count;
    }
  }

  private async empty({ offset, bytes, dtype, position }: Parcel): Promise<void> {
    const { memory, backend } = this.device;
    for (const { at, count } of pieces({ offset, bytes }, memory.host === undefined ? roomBytes : pieceBytes)) {
      const from = memory.host?.(offset + at, count) ?? new Uint8Array(await backend.read({ memory, offset: offset + at, shape: [count / sizeOf(dtype)], dtype }));
      await this.store.write(from, position + at);
      this.bytesOut += count;
    }
  }
}

/** A stretch cut into pieces of at most `most` bytes, none across a window of the host's. */
function* pieces({ offset, bytes }: Pick<Parcel, 'offset' | 'bytes'>, most: number): Generator<{ readonly at: number; readonly count: number }> {
  for (let at = 0; at < bytes; ) {
    const count = Math.min(most, bytes - at, hostWindow - ((offset + at) % hostWindow));
    yield { at, count };
    at += count;
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
