// The backend under test, and devices on it that are exactly as large as what runs needs: everything is rehearsed on the dry backend first.
import { Device, DryBackend, LomoError, ReferenceBackend, tensorOps } from '@lomo/tensor';
import type { Backend, Tensor } from '@lomo/tensor';
import { optimOps } from '@lomo/optim';
import { createModel, loadModel, nodeFiles, readConfig } from '@lomo/models';
import type { LanguageModel } from '@lomo/models';

/** Backends the checker knows. */
export type BackendName = 'reference' | 'cpu';

/** A device on the float64 reference backend whose numbers are never rounded to float32 on their way in or out. */
class ExactDevice extends Device {
  private readonly exact: ReferenceBackend;

  constructor(backend: ReferenceBackend, bytes: number) {
    super(backend, { bytes });
    this.exact = backend;
  }

  override writeNumbers(to: Tensor, from: ArrayLike<number>): void {
    super.writeNumbers(to, from);
    if (to.dtype === 'f32') this.exact.writeExact(to, from);
  }

  override async readNumbers(from: Tensor): Promise<Float64Array> {
    const rounded = await super.readNumbers(from);
    return from.dtype === 'f32' ? this.exact.readExact(from) : rounded;
  }
}

/** What a body run by `onModel` works with. */
export interface ModelRun {
  readonly device: Device;
  readonly model: LanguageModel;
  /** True on the dry backend: every number read is 0, and one step stands for all. */
  readonly rehearsal: boolean;
}

/** A backend to check. */
export class Engine implements AsyncDisposable {
  readonly name: BackendName;
  readonly backend: Backend;

  constructor(name: BackendName, backend: Backend) {
    this.name = name;
    this.backend = backend;
  }

  /** Runs `body` on a device of this backend with room for it; `body` runs twice, first without data. */
  async onDevice<T>(body: (device: Device, rehearsal: boolean) => Promise<T>): Promise<T> {
    const dry = new Device(new DryBackend(this.backend), { bytes: Infinity });
    await body(dry, true);
    const device = this.device(dry.arena.extent);
    try {
      return await body(device, false);
    } finally {
      device.free();
    }
  }

  /** As `onDevice`, with the model of `folder`, in f32, built for sequences of `maxLength` tokens. */
  async onModel<T>(folder: string, maxLength: number, body: (run: ModelRun) => Promise<T>): Promise<T> {
    const json = await readConfig(folder, nodeFiles);
    return this.onDevice(async (device, rehearsal) => {
      using model = rehearsal ? createModel(json, device, { maxLength }) : await loadModel(folder, device, { maxLength });
      return await body({ device, model, rehearsal });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.backend[Symbol.asyncDispose]();
  }

  private device(bytes: number): Device {
    return this.backend instanceof ReferenceBackend ? new ExactDevice(this.backend, bytes) : new Device(this.backend, { bytes });
  }
}

/** The reference backend with every op of tensor and optim, in float64. */
export function referenceBackend(): ReferenceBackend {
  return new ReferenceBackend({ ops: [...tensorOps, ...optimOps] });
}

/** Opens a backend; `threads` are those of a native one. Throws LomoError MissingBackend when '@lomo/cpu' cannot be loaded, and what the backend itself throws. */
export async function openEngine(name: BackendName, threads = 1): Promise<Engine> {
  if (name === 'reference') return new Engine(name, referenceBackend());
  const module = await import('@lomo/cpu').catch((cause: unknown) => {
    throw new LomoError('MissingBackend', "'@lomo/cpu' cannot be loaded; run `pnpm install && pnpm build`", {}, cause);
  });
  return new Engine(name, module.cpu({ threads }));
}
