// How bytes pass between the arena and a store: in place where the host sees the arena; through pinned memory on a queue of their own; or by
// plain writes and reads, for backends that have neither.
import type { Device, DType, Event, Memory, Queue, Region } from '@lomo/tensor';
import { hostWindow, LomoError, sizeOf } from '@lomo/tensor';

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

/** Moves pieces of parcels; `moved` hears of the bytes of each. */
export interface Passage {
  /** Store to arena, when nothing that is enqueued uses those bytes any more. What is launched after it resolves finds them. */
  fill(parcel: Parcel, moved: (bytes: number) => void): Promise<void>;
  /** Arena to store, when everything that writes those bytes has run. */
  empty(parcel: Parcel, moved: (bytes: number) => void): Promise<void>;
  /** Bytes of pinned memory it has reserved. */
  readonly pinned: number;
}

/** The best passage the device's backend offers. `out` is the queue of what leaves the arena. */
export function passageOf(device: Device, store: ByteStore, out: Queue): Passage {
  if (device.memory.host !== undefined) return new InPlace(device, store);
  if (device.backend.reached !== undefined) return new Pinned(device, store, out);
  return new Bounced(device, store);
}

/** Bytes of one call of a store where the host sees the arena. */
const pieceBytes = 2 ** 24;
/** Bytes of one buffer where it does not. */
const roomBytes = 2 ** 22;

class InPlace implements Passage {
  readonly pinned = 0;
  private readonly device: Device;
  private readonly store: ByteStore;

  constructor(device: Device, store: ByteStore) {
    this.device = device;
    this.store = store;
  }

  async fill(parcel: Parcel, moved: (bytes: number) => void): Promise<void> {
    for (const { at, count } of pieces(parcel, pieceBytes)) {
      await this.store.read(this.device.memory.host!(parcel.offset + at, count), parcel.position + at);
      moved(count);
    }
  }

  async empty(parcel: Parcel, moved: (bytes: number) => void): Promise<void> {
    for (const { at, count } of pieces(parcel, pieceBytes)) {
      await this.store.write(this.device.memory.host!(parcel.offset + at, count), parcel.position + at);
      moved(count);
    }
  }
}

/** One pinned buffer; `free` resolves when the queue is done with it. */
interface Room {
  readonly memory: Memory;
  free: Promise<void>;
}

/** Two rooms each way: while the queue copies one, the store has the other. Compute waits for an event, nobody for a copy. */
class Pinned implements Passage {
  private readonly device: Device;
  private readonly store: ByteStore;
  private readonly out: Queue;
  private readonly inward: Room[] = [];
  private readonly outward: Room[] = [];

  constructor(device: Device, store: ByteStore, out: Queue) {
    this.device = device;
    this.store = store;
    this.out = out;
  }

  get pinned(): number {
    return roomBytes * (this.inward.length + this.outward.length);
  }

  async fill(parcel: Parcel, moved: (bytes: number) => void): Promise<void> {
    const { backend } = this.device;
    const rooms = this.rooms(this.inward);
    let last: Event | null = null;
    let turn = 0;
    for (const piece of pieces(parcel, roomBytes)) {
      const room = rooms[turn++ % rooms.length]!;
      await room.free;
      await this.store.read(window(room, piece.count), parcel.position + piece.at);
      last = backend.copy(this.region(parcel, piece), inRoom(room, parcel, piece), 'receive');
      room.free = backend.reached!(last);
      room.free.catch(noop);
      moved(piece.count);
    }
    if (last !== null) backend.wait('compute', last);
  }

  async empty(parcel: Parcel, moved: (bytes: number) => void): Promise<void> {
    const { backend } = this.device;
    const rooms = this.rooms(this.outward);
    const copy = (piece: Piece, room: Room): void => {
      room.free = backend.reached!(backend.copy(inRoom(room, parcel, piece), this.region(parcel, piece), this.out));
      room.free.catch(noop);
    };
    const all = [...pieces(parcel, roomBytes)];
    if (all.length > 0) copy(all[0]!, rooms[0]!);
    for (const [i, piece] of all.entries()) {
      const next = all[i + 1];
      if (next !== undefined) copy(next, rooms[(i + 1) % 2]!);
      const room = rooms[i % 2]!;
      await room.free;
      await this.store.write(window(room, piece.count), parcel.position + piece.at);
      moved(piece.count);
    }
  }

  /** Reserved when they are first wanted, in the first step; they stay as long as the backend. */
  private rooms(list: Room[]): readonly Room[] {
    while (list.length < 2) {
      const memory = this.device.backend.memory('pinned', roomBytes);
      if (memory.host === undefined) throw new LomoError('NoHostWindow', `${this.device.backend.name}: pinned memory must have host(), or streamed weights and offloaded boundaries cannot pass through it`);
      list.push({ memory, free: Promise.resolve() });
    }
    return list;
  }

  private region({ offset, dtype }: Parcel, { at, count }: Piece): Region {
    return { memory: this.device.memory, offset: offset + at, shape: [count / sizeOf(dtype)], dtype };
  }
}

class Bounced implements Passage {
  readonly pinned = 0;
  private readonly device: Device;
  private readonly store: ByteStore;
  private room: Uint8Array | null = null;

  constructor(device: Device, store: ByteStore) {
    this.device = device;
    this.store = store;
  }

  async fill(parcel: Parcel, moved: (bytes: number) => void): Promise<void> {
    for (const piece of pieces(parcel, roomBytes)) {
      const room = (this.room ??= new Uint8Array(roomBytes)).subarray(0, piece.count);
      await this.store.read(room, parcel.position + piece.at);
      this.device.backend.write(this.region(parcel, piece), room);
      moved(piece.count);
    }
  }

  async empty(parcel: Parcel, moved: (bytes: number) => void): Promise<void> {
    for (const piece of pieces(parcel, roomBytes)) {
      await this.store.write(new Uint8Array(await this.device.backend.read(this.region(parcel, piece))), parcel.position + piece.at);
      moved(piece.count);
    }
  }

  private region({ offset, dtype }: Parcel, { at, count }: Piece): Region {
    return { memory: this.device.memory, offset: offset + at, shape: [count / sizeOf(dtype)], dtype };
  }
}

interface Piece {
  readonly at: number;
  readonly count: number;
}

function window({ memory }: Room, count: number): Uint8Array {
  return memory.host!(0, count);
}

function inRoom({ memory }: Room, { dtype }: Parcel, { count }: Piece): Region {
  return { memory, offset: 0, shape: [count / sizeOf(dtype)], dtype };
}

/** A stretch cut into pieces of at most `most` bytes, none across a window of the host's. */
function* pieces({ offset, bytes }: Pick<Parcel, 'offset' | 'bytes'>, most: number): Generator<Piece> {
  for (let at = 0; at < bytes; ) {
    const count = Math.min(most, bytes - at, hostWindow - ((offset + at) % hostWindow));
    yield { at, count };
    at += count;
  }
}

function noop(): void {}
