// Residency: which stages' weights are on the device, of a model that is larger than it. The others are in a store; some are on their way.
import type { Block, Device, Home, Model, Parameter, Residence } from '@lomo/tensor';
import { alignment, LomoError } from '@lomo/tensor';
import type { ByteStore } from './carrier.ts';
import { Carrier } from './carrier.ts';
import type { Transfer, Work } from './schedule.ts';
import { isTransfer } from './schedule.ts';
import { withTransfers } from './schedules/transfers.ts';

/** Where a stage's parameters are: in the store from `position` on, on the device at the same distances in one block. */
interface Layout {
  readonly name: string;
  readonly position: number;
  readonly bytes: number;
  readonly places: readonly { readonly parameter: Parameter; readonly at: number }[];
}

/** A stage's block, from gather to release. */
interface Room {
  readonly block: Block;
  readonly landed: Promise<void>;
  stored: Promise<void> | null;
  here: boolean;
}

/** What a residency has moved since it was made. */
export interface Traffic {
  /** Bytes fetched from the store. */
  readonly read: number;
  /** Bytes written to it. */
  readonly written: number;
}

/**
 * The weights of a model whose parameters were made `away`. Those that several stages read (a tied embedding) stay on the device for good,
 * the others come and go stage by stage. Every away parameter gets its `home`: its place in the store, for loading and saving.
 */
export class Residency implements Residence {
  /** By stage: whether its weights come and go. */
  readonly streamed: readonly boolean[];
  /** Bytes of the store. */
  readonly bytes: number;
  /** Bytes of the weights that stay. */
  readonly resident: number;
  private readonly device: Device;
  private readonly store: ByteStore;
  private readonly carrier: Carrier;
  private readonly layouts: readonly (Layout | null)[];
  private readonly rooms: (Room | null)[];
  private readonly stageByParameter = new Map<Parameter, number>();
  /** Parameters whose bytes in the store belong to no whole step. */
  private readonly torn = new Set<Parameter>();
  private updating = false;

  /** Allocates what stays. */
  constructor(device: Device, model: Model, store: ByteStore) {
    this.device = device;
    this.store = store;
    this.carrier = new Carrier(device, store);
    const own = model.stages.map((stage) => stage.parameters());
    const readers = new Map<Parameter, number>();
    for (const parameters of own) for (const p of parameters) readers.set(p, (readers.get(p) ?? 0) + 1);
    let [position, resident] = [0, 0];
    for (const [p, count] of readers) {
      if (count < 2 || !p.away) continue;
      const block = device.arena.allocate(p.bytes, 'weights', p.path);
      p.arrive(block);
      device.arena.release(block);
      resident += p.bytes;
    }
    this.layouts = own.map((parameters, s) => {
      const places: { parameter: Parameter; at: number }[] = [];
      let bytes = 0;
      for (const parameter of parameters) {
        if (!parameter.away) continue;
        const at = bytes;
        places.push({ parameter, at });
        parameter.home = this.homeOf(parameter, position + at);
        this.stageByParameter.set(parameter, s);
        bytes += Math.ceil(parameter.bytes / alignment) * alignment;
      }
      if (bytes === 0) return null;
      const layout = { name: model.stages[s]!.name, position, bytes, places };
      position += bytes;
      return layout;
    });
    this.bytes = position;
    this.resident = resident;
    this.streamed = this.layouts.map((layout) => layout !== null);
    this.rooms = this.layouts.map(() => null);
  }

  get traffic(): Traffic {
    return { read: this.carrier.fetched, written: this.carrier.put };
  }

  /** Bytes of pinned memory that they pass through. */
  get pinned(): number {
    return this.carrier.pinned;
  }

  /** The stage that `p` comes and goes with; undefined where it stays. */
  stageOf(p: Parameter): number | undefined {
    return this.stageByParameter.get(p);
  }

  /** A step begins or is over: what it has stored is whole. */
  settle(): void {
    this.updating = false;
  }

  /** Does one transfer of weights. */
  async transfer({ kind, stage }: Transfer): Promise<void> {
    if (kind === 'gather') this.gather(stage);
    else if (kind === 'store') this.put(stage);
    else await this.release(stage);
  }

  /** Resolves when the stage's weights are on the device. Throws what kept them away. */
  async present(stage: number): Promise<void> {
    const layout = this.layouts[stage];
    if (layout === null || layout === undefined) return;
    const room = this.room(stage);
    if (room.here) return;
    await room.landed;
    for (const { parameter, at } of layout.places) parameter.arrive(room.block, room.block.offset + at);
    room.here = true;
  }

  async visit(count: number, body: (stage: number) => void): Promise<void> {
    const work = Array.from({ length: count }, (_, stage): Work => ({ kind: 'forward', stage, microBatch: 0 }));
    try {
      for (const action of withTransfers(work, { weights: this.streamed, boundaries: [] }, { first: true, last: true, writes: false })) {
        if (isTransfer(action)) await this.transfer(action);
        else {
          await this.present(action.stage);
          body(action.stage);
        }
      }
    } catch (error) {
      await this.abandon();
      throw error;
    }
  }

  /**
   * A step was given up: waits for what is on its way and gives every room back. Where the step had begun to store, the store is no step's
   * state: weights are refused until they are loaded again, and the answer is true.
   */
  async abandon(): Promise<boolean> {
    const torn = this.updating;
    this.updating = false;
    if (torn) this.tear();
    await this.carrier.idle();
    this.rooms.forEach((room, stage) => {
      if (room !== null) this.leave(stage, room);
    });
    return torn;
  }

  /** What the store has is of no whole step: nothing is gathered or saved from it until every parameter has been written anew. */
  tear(): void {
    for (const p of this.stageByParameter.keys()) this.torn.add(p);
  }

  private gather(stage: number): void {
    const layout = this.layouts[stage]!;
    for (const { parameter } of layout.places) this.assertWhole(parameter);
    const block = this.device.arena.allocate(layout.bytes, 'weights', layout.name);
    this.rooms[stage] = { block, landed: this.carrier.fetch(this.parcels(layout, block)), stored: null, here: false };
  }

  private put(stage: number): void {
    const room = this.room(stage);
    const layout = this.layouts[stage]!;
    const changed = layout.places.filter(({ parameter }) => parameter.trainable);
    this.updating ||= changed.length > 0;
    room.stored = this.carrier.deliver(this.parcels({ ...layout, places: changed }, room.block));
  }

  private async release(stage: number): Promise<void> {
    const room = this.room(stage);
    await room.stored;
    this.leave(stage, room);
  }

  private leave(stage: number, room: Room): void {
    for (const { parameter } of this.layouts[stage]!.places) if (!parameter.away) parameter.leave();
    this.device.arena.release(room.block);
    this.rooms[stage] = null;
  }

  private parcels({ places, position }: Layout, block: Block) {
    return places.map(({ parameter, at }) => ({ offset: block.offset + at, bytes: parameter.bytes, dtype: parameter.dtype, position: position + at }));
  }

  private room(stage: number): Room {
    const room = this.rooms[stage];
    if (room === null || room === undefined) throw new LomoError('StageAway', `the weights of stage ${stage} are not gathered`, { stage });
    return room;
  }

  private homeOf(parameter: Parameter, position: number): Home {
    return {
      read: async (into, at) => {
        this.assertWhole(parameter);
        await this.store.read(into, position + at);
      },
      write: async (from, at) => {
        await this.store.write(from, position + at);
        if (at + from.byteLength === parameter.bytes) this.torn.delete(parameter);
      },
    };
  }

  private assertWhole({ path }: Parameter): void {
    const torn = [...this.torn].find((p) => p.path === path);
    if (torn !== undefined) throw new LomoError('TornStore', `${path}: a step that was given up had written some weights back; load a checkpoint before anything else`, { path });
  }
}

/** Brings stages in one after the other for gradients that were put aside: each is stored and released when the next one's turn comes. */
export class Sweep {
  private readonly residency: Residency;
  private readonly order: readonly number[];
  private left: (Transfer | Work)[] = [];
  private current: number | null = null;

  /** `order`: parameters in the order in which their gradients will be applied. */
  constructor(residency: Residency, order: readonly Parameter[]) {
    this.residency = residency;
    this.order = [...new Set(order.flatMap((p) => residency.stageOf(p) ?? []))];
  }

  /** Resolves when `p` is on the device. Parameters may be asked for in their order any number of times over. */
  async present(p: Parameter): Promise<void> {
    const stage = this.residency.stageOf(p);
    if (stage === undefined || stage === this.current) return;
    if (!this.left.some((action) => action.kind === 'update' && action.stage === stage)) {
      await this.end();
      const work = this.order.map((s): Work => ({ kind: 'update', stage: s, microBatch: 0 }));
      this.left = withTransfers(work, { weights: this.residency.streamed, boundaries: [] }, { first: false, last: true, writes: true });
    }
    while (this.current !== stage) await this.next();
  }

  /** Stores and releases what is left. */
  async end(): Promise<void> {
    while (this.left.length > 0) await this.next();
    this.current = null;
  }

  private async next(): Promise<void> {
    const action = this.left.shift();
    if (action === undefined) throw new LomoError('StageAway', 'a gradient is applied whose parameter has not settled in this step');
    if (isTransfer(action)) return this.residency.transfer(action);
    await this.residency.present(action.stage);
    this.current = action.stage;
  }
}
