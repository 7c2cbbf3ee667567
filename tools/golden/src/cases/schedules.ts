// numbers/schedules.json: learning rates of every update, as transformers' get_scheduler gives them.
import type { ScheduleOptions } from '@lomo/optim';
import { schedule } from '@lomo/optim';
import type { ScheduleEntry } from '../format.ts';
import { readJson, schedulesFile } from '../format.ts';
import type { Row } from '../row.ts';
import { compared, failed, skipped } from '../row.ts';
import type { Context, Discover } from '../section.ts';

const bar = 1e-15;

/** Where the file is. */
export const schedules: Discover = (folder) => (folder.has('numbers', 'schedules.json') ? [{ name: 'numbers/schedules', rows }] : []);

async function* rows({ folder }: Context): AsyncGenerator<Row> {
  for (const [name, entry] of Object.entries(await readJson(folder.path('numbers', 'schedules.json'), schedulesFile))) {
    const at = `numbers/schedules/${name}`;
    const options = optionsOf(entry);
    if (typeof options === 'string') yield skipped(at, options);
    else if (entry.rates.length === 0) yield failed(at, 'the file has no rates');
    else {
      const rate = schedule(options);
      let [error, worst] = [-1, 0];
      entry.rates.forEach((want, i) => {
        const difference = Math.abs(rate(i) - want);
        if (!(difference <= error)) [error, worst] = [difference, i];
      });
      yield compared(at, { error, bar, measure: 'max_abs', note: `update ${worst} of ${entry.rates.length}` });
    }
  }
}

/** transformers' names and arguments as ours, or the reason there is nothing like them here. */
function optionsOf(entry: ScheduleEntry): ScheduleOptions | string {
  const { scheduler, lr, num_warmup_steps: warmup, num_training_steps: steps, rates: _, ...rest } = entry;
  const span = { lr, steps, warmup };
  const unknown = (known: readonly string[]): string | null => {
    const stranger = Object.keys(rest).find((key) => !known.includes(key));
    return stranger === undefined ? null : `@lomo/optim's schedules know no ${stranger} of ${scheduler}`;
  };
  const number = (key: string): number | undefined => (typeof rest[key] === 'number' ? rest[key] : undefined);
  switch (scheduler) {
    case 'constant':
    case 'constant_with_warmup':
      return unknown([]) ?? { name: 'constant', ...span };
    case 'linear':
    case 'cosine':
      return unknown([]) ?? { name: scheduler, ...span };
    case 'cosine_with_min_lr':
      return unknown(['min_lr', 'min_lr_rate']) ?? { name: scheduler, ...span, minRatio: number('min_lr_rate') ?? (number('min_lr') ?? 0) / lr };
    case 'warmup_stable_decay': {
      const shape = rest['decay_type'] ?? 'cosine';
      if (shape !== 'cosine' && shape !== 'linear' && shape !== '1-sqrt') return `@lomo/optim's wsd knows no decay_type ${JSON.stringify(shape)}`;
      const decay = number('num_decay_steps');
      if (decay === undefined) return '@lomo/optim needs num_decay_steps for wsd';
      return unknown(['num_decay_steps', 'decay_type', 'min_lr_ratio']) ?? { name: 'wsd', ...span, decay, decayShape: shape, minRatio: number('min_lr_ratio') ?? 0 };
    }
    default:
      return `@lomo/optim has no schedule like ${scheduler}`;
  }
}
