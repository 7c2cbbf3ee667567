// A whole run, saved from copies while it trains, on a disk that loses its power: it ends in the bits of one that never stopped.
import { createHash } from 'node:crypto';
import { observeFiles } from '../../packages/models/src/index.ts';
import type { Session } from '../../packages/trainer/src/index.ts';
import { fit, surveyCheckpoints } from '../../packages/trainer/src/index.ts';
import { open, settings } from '../../packages/trainer/test/tiny.ts';
import { Disk } from './disk.ts';
import type { Draw } from './draw.ts';
import { isPowerLoss, PowerLoss } from './trial.ts';

export interface RunLife {
  readonly crashes: number;
  readonly acknowledged: number;
  /** What was wrong; null where nothing was. */
  readonly wrong: string | null;
}

async function digest({ assembly: { device, model, optimizer } }: Session): Promise<string> {
  const hash = createHash('sha256');
  for (const p of model.parameters) hash.update(new Uint8Array((await device.read(p)).buffer));
  for (const { tensor } of optimizer.state()) hash.update(new Uint8Array((await device.read(tensor)).buffer));
  return hash.digest('hex');
}

/** Trains, loses power at a call drawn at random, starts again from what is left, until the run is done; `crashes` at most. */
export async function runThrough({ draw, crashes, optim }: { readonly draw: Draw; readonly crashes: number; readonly optim: string }): Promise<RunLife> {
  const { output_dir: _, ...same } = settings({ optim, learning_rate: 0.01, max_steps: 6, save_steps: 1, save_total_limit: 1 });
  const changes = { ...same, output_dir: '/runs/one/run' };
  let disk = new Disk();
  disk.import(changes.model_name_or_path);
  const clean = await open({ ...changes, save_steps: 100 }, { files: disk.files });
  for await (const event of fit(clean)) if (event.kind !== 'step' && event.kind !== 'saved') throw new Error(event.kind);
  const expected = await digest(clean);
  await clean.close();
  disk = new Disk();
  disk.import(changes.model_name_or_path);
  let [lost, saved, acknowledged] = [0, 0, 0];
  for (;;) {
    let calls = lost < crashes ? draw.below(300) : Infinity;
    let on = false;
    const files = observeFiles(disk.files, () => {
      if (on && --calls < 0) throw new PowerLoss();
    });
    const session = await open({ ...changes, save_from: draw.of(['copy', 'weights']) }, { files });
    on = true;
    try {
      await session.restore();
      if (session.done < saved) return { crashes: lost, acknowledged, wrong: `step ${saved} was saved, the run went on from step ${session.done}` };
      await session.probe();
      for await (const event of fit(session)) {
        if (event.kind !== 'saved') continue;
        saved = event.step;
        acknowledged++;
      }
      const found = await digest(session);
      const { complete, damaged } = await surveyCheckpoints(session.root, disk.files);
      const wrong = found !== expected ? 'the run ended in other bits' : damaged.length > 0 || complete[0]?.step !== 6 ? 'the last checkpoint is not of the last step' : null;
      return { crashes: lost, acknowledged, wrong };
    } catch (error) {
      if (!isPowerLoss(error)) throw error;
      lost++;
      disk = disk.afterPowerLoss(draw);
    } finally {
      on = false;
      await session.close();
    }
  }
}
