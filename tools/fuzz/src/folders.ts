// Folders that lie: indexes that name shards, and configurations, read through a folder in memory.
import { builtInFamilies, familyOf, openCheckpoint, readConfig } from '@lomo/models';
import type { Dice } from './dice.ts';
import type { MemoryFile } from './memory_files.ts';
import { memoryFiles } from './memory_files.ts';
import type { Target } from './target.ts';
import { laterOutcomeOf, promise } from './target.ts';
import { anything, damage, Fields, oddNames, oddNumbers, print, Raw } from './texts.ts';
import type { Printable } from './texts.ts';

const encoder = new TextEncoder();

function whole(bytes: Uint8Array): MemoryFile {
  return { front: bytes, size: bytes.byteLength };
}

/** A shard that holds `names`, one byte each. */
function shard(names: readonly string[]): MemoryFile {
  const json = encoder.encode(print(new Fields(names.map((name, i) => [name, new Fields([['dtype', 'U8'], ['shape', [1]], ['data_offsets', [i, i + 1]]])]))));
  const front = new Uint8Array(8 + json.byteLength);
  new DataView(front.buffer).setBigUint64(0, BigInt(json.byteLength), true);
  front.set(json, 8);
  return { front, size: front.byteLength + names.length };
}

const shardNames: readonly string[] = [
  '../model.safetensors', '/etc/passwd', '/model/a.safetensors', 'sub/a.safetensors', '..\\a.safetensors', 'a.safetensors\u0000', '\u0000.safetensors', '.safetensors', '.a.safetensors', 'C:a.safetensors', 'a.bin', '',
  'A.safetensors', 'a.safetensors/', './a.safetensors', 'a.safetensors ', 'é.safetensors', 'absent.safetensors', '....safetensors', `${'a'.repeat(300)}.safetensors`,
];

/** model.safetensors.index.json over two shards that are there. */
export const indexes: Target = {
  name: 'index',
  make: (dice) => {
    const tensors = Array.from({ length: 1 + dice.below(6) }, (_, i) => ({ name: dice.oneIn(8) ? `${dice.pick(oddNames)}${i}` : `t${i}`, file: dice.oneIn(2) ? 'a.safetensors' : 'b.safetensors' }));
    const map: [string, Printable][] = tensors.map(({ name, file }) => [name, file]);
    const valid = dice.oneIn(4);
    if (!valid) spoil(map, dice);
    const fields: [string, Printable][] = [['weight_map', dice.oneIn(30) && !valid ? anything(dice, 3) : new Fields(dice.shuffle(map))]];
    if (dice.oneIn(2)) fields.push(['metadata', dice.oneIn(3) ? anything(dice, 3) : new Fields([['total_size', tensors.length]])]);
    let bytes: Uint8Array = encoder.encode(print(new Fields(dice.shuffle(fields)), dice));
    if (!valid && dice.oneIn(2)) bytes = damage(bytes, dice);
    const files = new Map<string, MemoryFile>([['model.safetensors.index.json', whole(bytes)]]);
    for (const file of ['a.safetensors', 'b.safetensors']) files.set(file, shard(tensors.filter((t) => t.file === file).map(({ name }) => name)));
    return {
      bytes,
      run: async () => {
        const outcome = await laterOutcomeOf(async () => {
          await using checkpoint = await openCheckpoint('/model', { files: memoryFiles(files) });
          promise(checkpoint.fileNames.every((name) => files.has(name)), () => `opened ${checkpoint.fileNames.join()}`);
          const said = JSON.parse(new TextDecoder().decode(bytes)) as { weight_map: Readonly<Record<string, string>> };
          promise(JSON.stringify([...checkpoint.tensors.keys()].toSorted()) === JSON.stringify(Object.keys(said.weight_map).toSorted()), () => `tensors ${[...checkpoint.tensors.keys()].join()} are not those of the index`);
          for (const [name, { file }] of checkpoint.tensors) promise(file.path === `/model/${said.weight_map[name]!}`, () => `${name} was taken from ${file.path}`);
        }, ['CorruptFile', 'CorruptJson', 'OutsideFolder', 'MissingShard', 'TooMany', 'TooLarge']);
        promise(!valid || outcome === 'accepted' || fields.length === 2, () => 'a valid index was refused');
        return outcome;
      },
    };
  },
};

function spoil(map: [string, Printable][], dice: Dice): void {
  const at = dice.below(map.length);
  switch (dice.below(5)) {
    case 0: map[at]![1] = dice.pick(shardNames); return;
    case 1: map[at]![1] = anything(dice, 2); return;
    case 2: map.push([dice.oneIn(2) ? map[at]![0] : 'other', dice.pick(shardNames)]); return;
    case 3: map.splice(at, 1); return;
    default: map[at]![0] = dice.pick(oddNames);
  }
}

const config: readonly (readonly [string, Printable])[] = [
  ['architectures', ['LlamaForCausalLM']], ['model_type', 'llama'], ['hidden_size', 16], ['intermediate_size', 24], ['num_hidden_layers', 2], ['num_attention_heads', 2], ['num_key_value_heads', 1],
  ['vocab_size', 32], ['max_position_embeddings', 64], ['rms_norm_eps', 1e-5], ['rope_theta', 10000], ['hidden_act', 'silu'], ['tie_word_embeddings', true], ['torch_dtype', 'float32'], ['bos_token_id', 1], ['eos_token_id', 2],
];

const configKeys = [...config.map(([key]) => key), 'rope_scaling', 'rope_parameters', 'head_dim', 'attention_bias', 'sliding_window', 'layer_types', 'partial_rotary_factor', 'auto_map', 'quantization_config', 'dtype', '_name_or_path'];

/** config.json, as far as the stages' sizes: nothing is allocated for a model. */
export const configs: Target = {
  name: 'config',
  make: (dice) => {
    const list = config.map(([key, value]): [string, Printable] => [key, value]);
    const valid = dice.oneIn(4);
    if (!valid) {
      for (let n = 1 + dice.below(3); n > 0; n--) {
        const slot = dice.pick(list);
        switch (dice.below(5)) {
          case 0: slot[1] = new Raw(dice.pick(oddNumbers)); break;
          case 1: slot[1] = anything(dice, 3); break;
          case 2: list.push([dice.pick(configKeys), anything(dice, 3)]); break;
          case 3: list.push([dice.pick(oddNames), anything(dice, 3)]); break;
          default: slot[1] = dice.pick(['llama', 'mistral', 'qwen2', 'qwen3', 'gpt2', '__proto__']);
        }
      }
    }
    let bytes: Uint8Array = encoder.encode(print(new Fields(dice.shuffle(list)), dice));
    if (!valid && dice.oneIn(3)) bytes = damage(bytes, dice);
    const files = memoryFiles(new Map([['config.json', whole(bytes)]]));
    return {
      bytes,
      run: async () => {
        const outcome = await laterOutcomeOf(async () => {
          const read = await readConfig('/model', files);
          const { vocabSize } = familyOf(read, builtInFamilies).parseConfig(read);
          promise(Number.isSafeInteger(vocabSize) && vocabSize > 0, () => `a vocabulary of ${vocabSize}`);
        }, ['CorruptJson', 'UnsupportedConfig', 'TooLarge']);
        promise(!valid || outcome === 'accepted', () => 'a valid configuration was refused');
        return outcome;
      },
    };
  },
};
