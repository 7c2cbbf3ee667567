// A rank's communicator: NCCL's calls as typed verbs over regions, enqueued on a queue like any launch.
import { LomoError } from '@lomo/tensor';
import type { Event, Queue, Region } from '@lomo/tensor';
import type { Library } from '@lomo/tensor/addon';
import type { CudaBackend } from './backend.ts';

export interface CommunicatorOptions {
  /** This rank, from 0. */
  readonly rank: number;
  /** Ranks in all. */
  readonly size: number;
  /** 128 bytes that one rank got from `communicatorId()` and gave to all. */
  readonly id: Uint8Array;
  /** Milliseconds that ranks may wait for one another, to meet and in every call, before that is an error; ten minutes unless given. */
  readonly timeout?: number;
}

/** What one call sends and receives, at most four of each. */
export interface Parcels {
  readonly sends?: readonly { readonly region: Region; readonly to: number }[];
  readonly receives?: readonly { readonly region: Region; readonly from: number }[];
}

/** 'sum', unless 'max' is asked for. */
export type Reduction = 'sum' | 'max';

/** Regions of one side of a call, and the communicator's rank of each. */
type Side = readonly { readonly region: Region; readonly rank: number }[];

const most = 4;

/** Whether `n` is one of `count`, from 0. */
export function isPlace(n: number, count: number): boolean {
  return Number.isInteger(n) && n >= 0 && n < count;
}

/**
 * One rank of a communicator, made by `backend.communicator(...)`. All ranks make the same calls in the same order; regions are f32, bf16,
 * f16, i32 or u8. Calls are enqueued and wait for nothing; within a communicator they run one after another, whatever their queues. What
 * goes wrong in it, and what does not end within its timeout, poisons the backend: CommunicatorAborted, CommunicatorTimeout, NcclError. It
 * lives as long as its backend.
 */
export class Communicator {
  constructor(
    private readonly backend: CudaBackend,
    private readonly number: number,
    readonly rank: number,
    readonly size: number,
    private readonly end: (why: string) => void,
    /** NCCL as it was found. */
    readonly library: Library,
  ) {}

  /** The sum over all ranks, in `region` of each, rounded in its dtype in an order that NCCL chooses. */
  allReduce(region: Region, queue: Queue, reduction: Reduction = 'sum'): Event {
    return this.call('all_reduce', { inouts: [region], attributes: [reduction === 'max' ? 1 : 0], queue });
  }

  /** `to` becomes every rank's `from`, one behind the other; `from` may be this rank's part of `to`. Throws SizeMismatch. */
  allGather(to: Region, from: Region, queue: Queue): Event {
    this.parts('allGather', to, from);
    return this.call('all_gather', { ins: [from], outs: [to], queue });
  }

  /** `to` becomes this rank's part of the sum of every rank's `from`; it may be that part of `from`. Throws SizeMismatch. */
  reduceScatter(to: Region, from: Region, queue: Queue, reduction: Reduction = 'sum'): Event {
    this.parts('reduceScatter', from, to);
    return this.call('reduce_scatter', { ins: [from], outs: [to], attributes: [reduction === 'max' ? 1 : 0], queue });
  }

  /** `region` becomes what it is on rank `root`. Throws BadPeer. */
  broadcast(region: Region, root: number, queue: Queue): Event {
    this.peer('broadcast', root);
    return this.call('broadcast', { inouts: [region], attributes: [root], queue });
  }

  /** Sends and receives at once: none of them waits for another. The k-th send of one rank to another meets that rank's k-th receive from it. Throws BadPeer. */
  exchange({ sends = [], receives = [] }: Parcels, queue: Queue): Event {
    if (sends.length > most || receives.length > most || sends.length + receives.length === 0)
      throw new LomoError('BadArity', `exchange: ${sends.length} sends and ${receives.length} receives; one call takes up to ${most} of each, and at least one`);
    const out: Side = sends.map(({ region, to }) => ({ region, rank: to }));
    const into: Side = receives.map(({ region, from }) => ({ region, rank: from }));
    const ranks = (side: Side): readonly number[] => Array.from({ length: most }, (_, i) => side[i]?.rank ?? -1);
    for (const { rank } of [...out, ...into]) this.other('exchange', rank);
    return this.call('exchange', { ins: out.map((s) => s.region), outs: into.map((s) => s.region), attributes: [...ranks(out), ...ranks(into)], queue });
  }

  /** One region to a rank, which receives it. */
  send(region: Region, to: number, queue: Queue): Event {
    return this.exchange({ sends: [{ region, to }] }, queue);
  }

  /** One region from a rank, which sends it. */
  receive(region: Region, from: number, queue: Queue): Event {
    return this.exchange({ receives: [{ region, from }] }, queue);
  }

  /** Gives up, at once and from anywhere: calls under way end without a result, every pending `read` rejects with CommunicatorAborted and `why`. */
  abort(why: Error): void {
    this.end(why.message);
  }

  private other(verb: string, peer: number): void {
    this.peer(verb, peer);
    const own = this.rank;
    if (peer === own) throw new LomoError('BadPeer', `${verb}: rank ${peer} is this rank: copy instead`);
  }

  private peer(verb: string, rank: number): void {
    if (!isPlace(rank, this.size)) throw new LomoError('BadPeer', `${verb}: rank ${rank} is not one of ${this.size}, counted from 0`);
  }

  private parts(verb: string, whole: Region, part: Region): void {
    const count = (r: Region): number => r.shape.reduce((n, d) => n * d, 1);
    if (whole.dtype !== part.dtype || count(whole) !== this.size * count(part))
      throw new LomoError('SizeMismatch', `${verb}: ${part.dtype}[${part.shape.join(', ')}] of each of ${this.size} ranks do not make ${whole.dtype}[${whole.shape.join(', ')}]`);
  }

  private call(name: string, how: { readonly ins?: readonly Region[]; readonly inouts?: readonly Region[]; readonly outs?: readonly Region[]; readonly attributes?: readonly number[]; readonly queue: Queue }): Event {
    const { ins = [], inouts = [], outs = [], attributes = [], queue } = how;
    const types = (regions: readonly Region[]) => regions.map((r) => r.dtype);
    const kernel = this.backend.kernel(name, { ins: types(ins), inouts: types(inouts), outs: types(outs) });
    if (kernel === null) throw new LomoError('MissingKernel', `cuda: this addon has no ${name}: build @lomo/cuda again`);
    return this.backend.launch(kernel, { ins, inouts, outs, workspace: null }, [this.number, ...attributes], queue);
  }
}
