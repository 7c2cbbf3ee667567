// A step as the list of commands it sends to the backend, to be sent again and timed one by one. Replayed in order they find the same bytes.
import { initialise } from '@lomo/models';
import type { Backend, BackendTraits, Event, Kernel, KernelSignature, LaunchObserver, Memory, Operands, Place, Queue, Region } from '@lomo/tensor';
import { Device, numel, sizeOf } from '@lomo/tensor';
import type { Setup } from './assembly.ts';
import { assemble, batchesOf, planStep, run } from './assembly.ts';
import { spread } from './manners.ts';

/** One launch as it was sent. */
export interface Launch {
  readonly op: string;
  readonly kernel: Kernel;
  readonly operands: Operands;
  readonly attributes: readonly number[];
  readonly flops: number;
  /** Bytes it must read and write. */
  readonly bytes: number;
  /** Operands in words: 'f32[1024, 768] f32[768, 768] -> f32[1024, 768]'. */
  readonly shapes: string;
}

type Command = { readonly kind: 'launch'; readonly launch: Launch } | { readonly kind: 'write'; readonly to: Region; readonly bytes: Uint8Array } | { readonly kind: 'copy'; readonly to: Region; readonly from: Region };

/** Passes everything on to `target`; while `commands` is set, notes it there too. */
class RecordingBackend implements Backend {
  readonly name: string;
  readonly traits: BackendTraits;
  commands: Command[] | null = null;
  pending: Omit<Launch, 'op' | 'flops' | 'bytes' | 'shapes'> | null = null;
  private readonly target: Backend;

  constructor(target: Backend) {
    this.target = target;
    this.name = target.name;
    this.traits = target.traits;
  }

  memory(place: Place, bytes: number): Memory {
    return this.target.memory(place, bytes);
  }

  kernel(name: string, signature: KernelSignature): Kernel | null {
    return this.target.kernel(name, signature);
  }

  supported(name: string): readonly string[] {
    return this.target.supported(name);
  }

  workspace(kernel: Kernel, operands: Operands, attributes: readonly number[]): number {
    return this.target.workspace(kernel, operands, attributes);
  }

  launch(kernel: Kernel, operands: Operands, attributes: readonly number[], queue: Queue): Event {
    if (this.commands !== null) this.pending = { kernel, operands: snapshot(operands), attributes };
    return this.target.launch(kernel, operands, attributes, queue);
  }

  copy(to: Region, from: Region, queue: Queue): Event {
    this.commands?.push({ kind: 'copy', to: place(to), from: place(from) });
    return this.target.copy(to, from, queue);
  }

  wait(queue: Queue, event: Event): void {
    this.target.wait(queue, event);
  }

  write(to: Region, from: ArrayBufferView): void {
    this.commands?.push({ kind: 'write', to: place(to), bytes: new Uint8Array(from.buffer, from.byteOffset, from.byteLength).slice() });
    this.target.write(to, from);
  }

  read(from: Region): Promise<ArrayBuffer> {
    return this.target.read(from);
  }

  reserved(): number {
    return this.target.reserved();
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.target[Symbol.asyncDispose]();
  }
}

/** A region as it is now: tensors are given back and made again, their places repeat. */
function place({ memory, offset, shape, dtype }: Region): Region {
  return { memory, offset, shape, dtype };
}

function snapshot({ ins, inouts, outs, workspace }: Operands): Operands {
  return { ins: ins.map(place), inouts: inouts.map(place), outs: outs.map(place), workspace: workspace === null ? null : place(workspace) };
}

const size = ({ shape, dtype }: Region): number => numel(shape) * sizeOf(dtype);
const total = (regions: readonly Region[]): number => regions.reduce((sum, region) => sum + size(region), 0);
const spell = (regions: readonly Region[]): string => regions.map(({ dtype, shape }) => `${dtype}[${shape.join(', ')}]`).join(' ');

/** Bytes a launch must move. A lookup reads the rows it copies, not its table. */
function traffic(op: string, { ins, inouts, outs }: Operands): number {
  if (op === 'embedding') return 2 * total(outs);
  if (op === 'embedding_grad_add') return total(ins) + 2 * total(ins.slice(-1));
  return total(ins) + 2 * total(inouts) + total(outs);
}

/** One step of a setup on a backend: recorded, and ready to be replayed. */
export class RecordedStep {
  readonly launches: readonly Launch[];
  /** Milliseconds of an ordinary step, launches running ahead: the least of `steps`. */
  readonly stepTime: number;
  private readonly backend: Backend;
  private readonly commands: readonly Command[];
  private readonly device: Device;

  private constructor(backend: Backend, made: { readonly device: Device; readonly commands: readonly Command[]; readonly stepTime: number }) {
    this.backend = backend;
    this.device = made.device;
    this.commands = made.commands;
    this.stepTime = made.stepTime;
    this.launches = made.commands.flatMap((command) => (command.kind === 'launch' ? [command.launch] : []));
  }

  /** Trains `steps` steps, then records one. The learning rate is 0: replayed however often, no number grows. */
  static async make(backend: Backend, setup: Setup, steps = 2): Promise<RecordedStep> {
    const recorder = new RecordingBackend(backend);
    const plan = await planStep(backend, setup);
    const device = new Device(recorder, { bytes: plan.extent });
    const made = assemble(device, setup);
    initialise(made.model, 0);
    const stream = Uint8Array.from({ length: 2 ** 16 }, (_, i) => Math.imul(i, 2654435761) >>> 24);
    const times: number[] = [];
    for (let n = 0; n <= steps; n++) {
      const batches = batchesOf(setup, stream, n);
      const start = performance.now();
      await run(made, { step: n + 1, lr: 0, batches });
      times.push(performance.now() - start);
    }
    const commands: Command[] = [];
    recorder.commands = commands;
    device.observer = observe(recorder, commands);
    await run(made, { step: steps + 2, lr: 0, batches: batchesOf(setup, stream, steps + 1) });
    recorder.commands = null;
    device.observer = null;
    return new RecordedStep(backend, { device, commands, stepTime: spread(times.slice(1)).min });
  }

  /**
   * Milliseconds of every launch in order, as the backend's stopwatch tells, while the step is sent again as it was; the middle of `rounds`
   * replays. Nothing waits in between, so threads are as awake as in a step. `between`: what of a replay no launch took.
   */
  async inOrder(rounds: number): Promise<{ readonly times: readonly number[]; readonly between: number }> {
    const { stopwatch } = this.backend;
    if (stopwatch === undefined) throw new Error(`${this.backend.name} has no stopwatch, so its launches cannot be timed in order`);
    const times = this.launches.map((): number[] => []);
    const rests: number[] = [];
    const longest = this.launches.reduce((a, b) => (a.flops > b.flops ? a : b));
    for (let round = 0; round < rounds; round++) {
      stopwatch.start(this.commands.length + 2);
      // While this runs, everything else is enqueued.
      this.send(longest);
      for (const command of this.commands) {
        if (command.kind === 'write') this.backend.write(command.to, command.bytes);
        else if (command.kind === 'copy') this.backend.copy(command.to, command.from, 'compute');
        else this.send(command.launch);
      }
      await this.settle();
      const ran = (await stopwatch.stop()).work.filter(({ kind }) => kind === 'launch');
      const took = ran.slice(1).map(({ start, end }) => end - start);
      times.forEach((list, i) => list.push(took[i]!));
      rests.push(ran.at(-1)!.end - ran[0]!.end - took.reduce((sum, ms) => sum + ms, 0));
    }
    return { times: times.map((list) => spread(list).median), between: spread(rests).median };
  }

  /**
   * Milliseconds of each of `launches`, sent many times without waiting in between: the least of three such bursts, between which all the
   * others have their turn.
   */
  async alone(launches: readonly Launch[]): Promise<number[]> {
    const burst = async (launch: Launch, count: number): Promise<number> => {
      const start = performance.now();
      for (let i = 0; i < count; i++) this.send(launch);
      await this.settle();
      return (performance.now() - start) / count;
    };
    const counts: number[] = [];
    for (const launch of launches) counts.push(Math.max(2, Math.min(500, Math.ceil(25 / (await burst(launch, 2))))));
    const least = launches.map(() => Infinity);
    for (let round = 0; round < 3; round++) for (const [i, launch] of launches.entries()) least[i] = Math.min(least[i]!, await burst(launch, counts[i]!));
    return least;
  }

  /** Gives the memory back. */
  free(): void {
    this.device.free();
  }

  private send({ kernel, operands, attributes }: Launch): void {
    this.backend.launch(kernel, operands, attributes, 'compute');
  }

  private async settle(): Promise<void> {
    await this.backend.read({ memory: this.device.memory, offset: 0, shape: [1], dtype: 'f32' });
  }
}

function observe(recorder: RecordingBackend, commands: Command[]): LaunchObserver {
  return {
    launched: (op, { ins, inouts, outs }, attributes) => {
      const { kernel, operands, attributes: values } = recorder.pending!;
      const flops = op.flops(ins, attributes, inouts, outs);
      const shapes = [spell(ins), inouts.length === 0 ? '' : `+ ${spell(inouts)}`, outs.length === 0 ? '' : `-> ${spell(outs)}`].filter((part) => part !== '').join(' ');
      commands.push({ kind: 'launch', launch: { op: op.name, kernel, operands, attributes: values, flops, bytes: traffic(op.name, operands), shapes } });
    },
  };
}
