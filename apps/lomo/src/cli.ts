#!/usr/bin/env node
// The `lomo` command: verbs, their flags, and errors as sentences.
import { Command, InvalidArgumentError, Option } from 'commander';
import { isLomoError } from '@lomo/tensor';
import type { TraceFlags } from './commands/tracing.ts';
import { onInterrupt } from './interrupt.ts';

// libgomp's threads spin for milliseconds at every barrier unless told otherwise; on a busy machine that turns microseconds into milliseconds.
process.env['GOMP_SPINCOUNT'] ??= '1000';

const interrupt = onInterrupt(() => process.stderr.write('\nlomo: stopped; nothing was changed\n'));

const program = new Command('lomo')
  .description('Full-parameter fine-tuning of LLaMA-family models with the optimizer fused into backward.')
  .showHelpAfterError('(lomo --help lists the verbs)')
  .configureHelp({ sortSubcommands: false })
  .addHelpText('after', '\nA first run: lomo quickstart.  Your own: lomo init <model> <data>, then lomo data check, plan, train run.yaml.');

const integer = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('expected a whole number from 0');
  return value;
};
const number = (text: string): number => {
  const value = Number(text);
  if (!Number.isFinite(value)) throw new InvalidArgumentError('expected a number');
  return value;
};
/** '10' or '10..12' as the first and the last of some steps. */
const range = (text: string): { from: number; to: number } => {
  const [, first, last = first] = /^(\d+)(?:\.\.(\d+))?$/.exec(text) ?? [];
  const [from, to] = [Number(first), Number(last)];
  if (!(from >= 1 && to >= from)) throw new InvalidArgumentError("expected step numbers, such as 3 or 10..12");
  return { from, to };
};
const threads = new Option('--threads <n>', 'processor threads; default: the cores this process may use').argParser(integer);
const listed = (value: string, before: readonly string[]): readonly string[] => [...before, value];
const streamDir = new Option('--stream-dir <folder>', 'weights come stage by stage from a file there: for a model larger than memory');
const plugin = new Option('--plugin <module>', 'a module that brings a model family; may be given several times').argParser(listed).default([], 'none');
const dtype = new Option('--dtype <name>', 'what weights are kept in; bf16 and f16 halve their memory, f16 computes in f32').choices(['f32', 'bf16', 'f16']).default('f32');
const backend = new Option('--backend <name>', 'cpu; cuda: an NVIDIA GPU; reference: slow, the definition').choices(['cpu', 'cuda', 'reference']).default('cpu');
const gpu = new Option('--gpu <n>', 'cuda: which GPU of those that are visible; default: the first').argParser(integer);

/** `diff` has an exit code of its own for what went wrong, since 1 is an answer. */
const cannotCompare = 2;
/** What a process ends with whose GPU is lost to it: started again, it may go on. */
const deviceLost = 75;

/** Prints an error that says what to do, and sets the exit code; any other is thrown. */
function complain(thrown: unknown, exitCode: number): void {
  process.exitCode = exitCode;
  const error = firstOf(thrown);
  if (!(isLomoError(error) || (error instanceof Error && 'code' in error && typeof error.code === 'string'))) throw error;
  process.stderr.write(`\nlomo: ${error.message}\n`);
  if (process.env['LOMO_DEBUG'] !== undefined) process.stderr.write(`${error.stack ?? ''}\n`);
}

/** What went wrong first, where closing what was open failed too: a SuppressedError, which Node 20 does not know by that class. */
function firstOf(thrown: unknown): unknown {
  return thrown instanceof Error && thrown.name === 'SuppressedError' && 'suppressed' in thrown ? firstOf(thrown.suppressed) : thrown;
}

/** What stands at the end of a verb's --help: commands to type, and what they do. */
function examples(...lines: readonly (readonly [command: string, what: string])[]): string {
  const width = Math.max(...lines.map(([command]) => command.length));
  return `\nExamples:\n${lines.map(([command, what]) => `  $ ${command.padEnd(width)}   ${what}`).join('\n')}`;
}

/** `--learning-rate 1e-3 --packing false` as settings; values are read as YAML scalars. */
async function overridesOf(rest: readonly string[]): Promise<Record<string, unknown>> {
  const { yamlValue } = await import('./yaml.ts');
  const settings = Object.create(null) as Record<string, unknown>;
  for (let i = 0; i < rest.length; i++) {
    const [name, inline] = rest[i]!.split(/=(.*)/s);
    if (!name!.startsWith('--')) throw new InvalidArgumentError(`'${rest[i]!}' is not a setting; settings look like --learning-rate 1e-3`);
    const value = inline ?? (rest[i + 1]?.startsWith('--') === false ? rest[++i] : 'true');
    settings[name!.slice(2).replaceAll('-', '_')] = yamlValue(value!, name!);
  }
  return settings;
}

program
  .command('quickstart')
  .description('fine-tune the small model that comes with lomo, about a minute on two cores')
  .addOption(threads)
  .addOption(backend)
  .addOption(gpu)
  .option('--output-dir <folder>', 'where the run goes', 'runs/quickstart')
  .addHelpText('after', examples(['lomo quickstart', 'held-out loss and exact matches before and after; run again, it is shown again']))
  .action(async (flags) => (await import('./commands/quickstart.ts')).quickstart({ ...flags, interrupt }));

program
  .command('init')
  .description('write a commented run.yaml for a model and a data file')
  .argument('<model>', 'a local Hugging Face folder')
  .argument('<data>', '.jsonl or .txt')
  .option('-o, --output <file>', 'never overwritten', 'run.yaml')
  .addOption(new Option('--optim <name>', 'whose settings are written').choices(['adalomo', 'lomo', 'adamw', 'sgd']).default('adalomo'))
  .addHelpText('after', examples(['lomo init models/stories260k train.jsonl', 'reads both, writes run.yaml with lengths that fit them'], ['lomo init models/llama train.jsonl --optim lomo', "the paper's optimizer instead of AdaLomo"]))
  .action(async (model: string, data: string, flags) => (await import('./commands/init.ts')).init(model, data, flags));

program
  .command('data')
  .description('look at data before training on them')
  .command('check')
  .description('tokenize everything run.yaml names, find what training would stumble over, count the steps')
  .argument('<run.yaml>')
  .option('--show <n>', 'which sample is printed with its mask (+ trained, - masked)', integer, 0)
  .allowUnknownOption()
  .allowExcessArguments()
  .addHelpText('after', examples(['lomo data check run.yaml', 'bad lines as file:line; lengths, masks, padding, steps'], ['lomo data check run.yaml --show 17', 'what the model sees of sample 17'], ['lomo data check run.yaml --max-seq-length 512', 'any setting can be tried']))
  .action(async (path: string, flags: { show: number }, command: Command) => {
    const overrides = await overridesOf(command.args.slice(1));
    await (await import('./commands/data.ts')).checkData(path, overrides, flags);
  });

program
  .command('train')
  .description('train as run.yaml says; goes on where an interrupted run stopped')
  .argument('<run.yaml>')
  .option('--trace <file>', 'write a Chrome trace of some steps; open it in ui.perfetto.dev or chrome://tracing')
  .addOption(new Option('--trace-steps <n..m>', 'which steps, by number; default: the third that runs').argParser(range))
  .allowUnknownOption()
  .allowExcessArguments()
  .addHelpText('after', `\nEvery setting of the file can be given as --kebab-case value. \`lomo schema\` prints them all.\n${examples(
    ['lomo train run.yaml', 'Ctrl-C saves after the step; the same command goes on'],
    ['lomo train run.yaml --optim lomo --learning-rate 3e-2', 'other settings than the file'],
    ['lomo train run.yaml --resume-from-checkpoint false', 'from the beginning'],
    ['lomo train run.yaml --trace step.json --trace-steps 10..12', 'where the time of three steps goes'],
  )}`)
  .action(async (path: string, flags: TraceFlags, command: Command) => {
    const overrides = await overridesOf(command.args.slice(1));
    if (flags.trace === undefined && flags.traceSteps !== undefined) throw new InvalidArgumentError('--trace-steps says which steps; --trace FILE says where the trace goes');
    await (await import('./commands/train.ts')).train(path, overrides, { ...flags, interrupt });
  });

program
  .command('resume')
  .description('go on with run.yaml from a checkpoint folder')
  .argument('<run.yaml>')
  .argument('<checkpoint>')
  .allowUnknownOption()
  .allowExcessArguments()
  .addHelpText('after', examples(['lomo resume run.yaml runs/run/step-000200', 'the very bits an uninterrupted run would have'], ['lomo resume run.yaml runs/run/step-000200 --threads 8', 'the settings that do not touch them can be changed']))
  .action(async (path: string, checkpoint: string, _flags: object, command: Command) => {
    const overrides = { ...(await overridesOf(command.args.slice(2))), resume_from_checkpoint: checkpoint };
    await (await import('./commands/train.ts')).train(path, overrides, { interrupt });
  });

program
  .command('eval')
  .description('loss, perplexity and exact matches of a model on a file')
  .argument('<folder>', 'a Hugging Face folder or a checkpoint')
  .requiredOption('--data <file>', '.jsonl or .txt')
  .option('--max-seq-length <n>', 'longest sample, tokens', integer, 512)
  .addOption(new Option('--overlong <what>', 'longer samples: error, drop, truncate or split them').choices(['error', 'drop', 'truncate', 'split']).default('error'))
  .addOption(new Option('--on-bad-line <what>', 'lines that cannot be read').choices(['fail', 'skip']).default('fail'))
  .option('--batch-size <n>', 'samples of that length evaluated at once', integer, 4)
  .option('--samples <n>', 'completions to write and compare', integer, 100)
  .option('--template <text>', "how samples were laid out in training, e.g. '{prompt}{completion}'; default: a line feed between")
  .addOption(threads)
  .addOption(backend)
  .addOption(gpu)
  .addOption(dtype)
  .addOption(streamDir)
  .addOption(plugin)
  .option('--json', 'one line of JSON')
  .addHelpText('after', examples(['lomo eval runs/run/step-000300 --data test.jsonl', 'loss, perplexity, exact matches'], ['lomo eval my-model --data test.jsonl --samples 0 --json', 'the loss alone, for a script']))
  .action(async (folder: string, flags) => (await import('./commands/eval.ts')).evaluate(folder, flags));

program
  .command('generate')
  .description('write text with a model')
  .argument('<folder>', 'a Hugging Face folder or a checkpoint')
  .requiredOption('--prompt <text>')
  .option('--max-new-tokens <n>', '', integer, 128)
  .option('--temperature <t>', '0: always the likeliest token', number, 0)
  .option('--top-k <k>', '0: all', integer, 0)
  .option('--top-p <p>', '1: all', number, 1)
  .option('--seed <n>', '', integer, 0)
  .addOption(threads)
  .addOption(backend)
  .addOption(gpu)
  .addOption(dtype)
  .addOption(streamDir)
  .addOption(plugin)
  .addHelpText('after', examples(['lomo generate runs/run/step-000300 --prompt "Once upon a time"', 'the likeliest text'], ['lomo generate my-model --prompt "Q: " --temperature 0.8 --top-p 0.9 --seed 1', 'drawn; the same seed, the same text']))
  .action(async (folder: string, flags) => (await import('./commands/generate.ts')).generate(folder, flags));

program
  .command('diff')
  .description('what differs between two checkpoints or model folders, tensor by tensor')
  .argument('<A>', 'a checkpoint or a Hugging Face folder')
  .argument('<B>', 'another one')
  .option('--all', 'every tensor, the equal ones too')
  .option('--json', 'one line of JSON')
  .addHelpText('after', `\nrelative: of the larger of the two numbers; norm: of the whole change, as a share of A's. A changed element has other bits, or between two types\nanother value. Optimizer and trainer state are compared where both have them.\n\nExit code: 0 where nothing differs, 1 where something does, 2 where one of them cannot be read.\n${examples(
    ['lomo diff runs/run/step-000100 runs/run/step-000200', 'weights, optimizer and trainer state; the largest changes first'],
    ['lomo diff models/llama runs/run/step-000200', 'what training did; f32 and 16-bit weights are compared as numbers'],
    ['lomo diff a b --all --json', 'every number, for a script'],
  )}`)
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : cannotCompare))
  .action(async (a: string, b: string, flags: { all?: boolean; json?: boolean }) => {
    try {
      process.exitCode = await (await import('./commands/diff.ts')).diff(a, b, flags);
    } catch (error) {
      complain(error, cannotCompare);
    }
  });

program
  .command('plan')
  .description('what a run will need, from the program run without data')
  .argument('<run.yaml>', "or a model folder: its config.json is enough, settings come as flags")
  .option('--device <size>', 'memory to hold it against, such as "24 GiB"; default: what is free here')
  .option('--json', 'as JSON')
  .option('--html <file>', 'write a page with the memory of a step over time, tensor by tensor')
  .allowUnknownOption()
  .allowExcessArguments()
  .addHelpText('after', examples(['lomo plan run.yaml', 'bytes by category: lomo, adalomo, adamw, sgd; the peak; what fits'], ['lomo plan run.yaml --max-seq-length 4096 --dtype bf16', 'what another setting would need'], ['lomo plan run.yaml --html plan.html', 'the same to look at in a browser']))
  .action(async (path: string, flags: { json?: boolean; device?: string; html?: string }, command: Command) => {
    const overrides = await overridesOf(command.args.slice(1));
    await (await import('./commands/plan.ts')).plan(path, overrides, flags);
  });

program
  .command('doctor')
  .description('what this machine has, what it measures, what is missing')
  .addOption(threads)
  .addOption(new Option('--backend <name>', 'the backend that must run for the exit code to be 0').choices(['cpu', 'cuda']).default('cpu'))
  .addOption(gpu)
  .option('--json', 'as JSON')
  .addHelpText('after', examples(['lomo doctor', 'exits 1 where training would not run, and says what to install'], ['lomo doctor --backend cuda --gpu 1', 'the same of the second GPU']))
  .action(async (flags) => (await import('./commands/doctor.ts')).doctor(flags));

program
  .command('schema')
  .description('the settings of run.yaml as a JSON Schema, for editors')
  .addHelpText('after', examples(['lomo schema > run.schema.json', 'then in run.yaml: # yaml-language-server: $schema=run.schema.json']))
  .action(async () => {
    const [{ runSchema }, { z }] = await Promise.all([import('@lomo/trainer'), import('zod')]);
    process.stdout.write(`${JSON.stringify(z.toJSONSchema(runSchema, { io: 'input' }), null, 2)}\n`);
  });

try {
  await program.parseAsync();
} catch (error) {
  complain(error, isLomoError(firstOf(error), 'StickyDeviceError') ? deviceLost : 1);
}
