// lomo diff: two checkpoints, or any two model folders, compared tensor by tensor and setting by setting.
import { join } from 'node:path';
import type { CheckpointTensor, JsonValue, TensorComparison } from '@lomo/models';
import { compareTensors, ConfinedFolder, configLimit, configName, isJsonObject, openCheckpoint, parseJson, SafetensorsFile, sidecarsOf } from '@lomo/models';
import { optimizerName, stateName } from '@lomo/trainer';
import { count, percent, screen as openScreen, table, wrapped } from '../screen.ts';

export interface DiffFlags {
  /** Every tensor, the equal ones too. */
  readonly all?: boolean;
  readonly json?: boolean;
}

/** Tensors that are shown unless all are asked for. */
const shownTensors = 20;
/** Most bytes of a small file that is compared. */
const fileLimit = 2 ** 26;
/** Keys of trainer_state.json that say how the files are, not what was trained. */
const manifestKeys: readonly string[] = ['files', 'sizes', 'sha256'];

/** Milliseconds until a comparison says how far it is. */
const quietMs = 1000;

/** A difference outside of tensors: a key with its two values, or a whole file. */
interface Change {
  readonly where: string;
  readonly a: string | null;
  readonly b: string | null;
}

/** Prints what differs between two folders. Returns the exit code: 0 where nothing does, 1 where something does. Throws what reading them throws. */
export async function diff(a: string, b: string, flags: DiffFlags): Promise<0 | 1> {
  const screen = openScreen(flags.json === true ? process.stderr : process.stdout);
  const start = performance.now();
  const progress = (done: string): void => {
    if (performance.now() - start > quietMs) screen.live(`  ${done}`);
  };
  const tensors = await comparedWeights(a, b, progress);
  const optimizer = await comparedOptimizers(a, b, progress);
  const state = await comparedJson(a, b, { name: stateName, ignored: manifestKeys });
  const files = [...(await comparedJson(a, b, { name: configName, ignored: [] })), ...(await comparedFiles(a, b))];
  screen.settle();
  const groups = [{ title: 'weights', tensors }, ...(optimizer === null ? [] : [{ title: 'optimizer state', tensors: optimizer }])];
  const isEqual = groups.every((group) => group.tensors.every(({ kind }) => kind === 'equal')) && state.length === 0 && files.length === 0;
  if (flags.json === true) {
    const result = { a, b, equal: isEqual, weights: tensors.map(plain), optimizer: optimizer?.map(plain) ?? null, state, files };
    process.stdout.write(`${JSON.stringify(result)}\n`);
    return isEqual ? 0 : 1;
  }
  screen.line(`A  ${a}\nB  ${b}\n`);
  for (const group of groups) showGroup(group, flags.all === true, screen.line);
  for (const change of [...state, ...files]) screen.line(wrapped(`  ${change.where}: ${words(change)}`, { columns: screen.columns, indent: 4 }));
  if (state.length + files.length > 0) screen.line('');
  for (const group of groups) screen.line(summary(group));
  screen.line(isEqual ? 'equal' : 'different');
  return isEqual ? 0 : 1;
}

interface Group {
  readonly title: string;
  readonly tensors: readonly TensorComparison[];
}

async function comparedWeights(a: string, b: string, progress: (text: string) => void): Promise<readonly TensorComparison[]> {
  await using left = await openCheckpoint(a);
  await using right = await openCheckpoint(b);
  return await collected(left.tensors, right.tensors, progress);
}

/** Null unless both have one. */
async function comparedOptimizers(a: string, b: string, progress: (text: string) => void): Promise<readonly TensorComparison[] | null> {
  const folders = await bothHave(a, b, optimizerName);
  if (folders === null) return null;
  await using left = await SafetensorsFile.of(await folders[0].open(optimizerName));
  await using right = await SafetensorsFile.of(await folders[1].open(optimizerName));
  const tensorsOf = (file: SafetensorsFile): ReadonlyMap<string, CheckpointTensor> => new Map([...file.entries].map(([name, entry]) => [name, { ...entry, file }]));
  return await collected(tensorsOf(left), tensorsOf(right), progress);
}

async function collected(a: ReadonlyMap<string, CheckpointTensor>, b: ReadonlyMap<string, CheckpointTensor>, progress: (text: string) => void): Promise<readonly TensorComparison[]> {
  const found: TensorComparison[] = [];
  for await (const one of compareTensors(a, b)) {
    found.push(one);
    progress(`${found.length} of ${Math.max(a.size, b.size)} tensors compared`);
  }
  return found;
}

async function bothHave(a: string, b: string, name: string): Promise<readonly [ConfinedFolder, ConfinedFolder] | null> {
  const folders = [await ConfinedFolder.open(a), await ConfinedFolder.open(b)] as const;
  return (await folders[0].has(name)) && (await folders[1].has(name)) ? folders : null;
}

/** The top-level keys of a JSON file whose values differ; nothing unless both folders have the file. */
async function comparedJson(a: string, b: string, { name, ignored }: { readonly name: string; readonly ignored: readonly string[] }): Promise<readonly Change[]> {
  const folders = await bothHave(a, b, name);
  if (folders === null) return [];
  const [left, right] = [parseJson(await folders[0].read(name, configLimit), join(a, name)), parseJson(await folders[1].read(name, configLimit), join(b, name))];
  if (!isJsonObject(left) || !isJsonObject(right)) return JSON.stringify(left) === JSON.stringify(right) ? [] : [{ where: name, a: shown(left), b: shown(right) }];
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])].filter((key) => !ignored.includes(key));
  return keys.filter((key) => sorted(left[key]) !== sorted(right[key])).map((key) => ({ where: `${name} ${key}`, a: shown(left[key]), b: shown(right[key]) }));
}

/** The small files that both have, byte for byte; config.json and the state are compared by their keys. */
async function comparedFiles(a: string, b: string): Promise<readonly Change[]> {
  const folders = [await ConfinedFolder.open(a), await ConfinedFolder.open(b)] as const;
  const names = await sidecarsOf(folders[0].files, a);
  const others = new Set(await sidecarsOf(folders[1].files, b));
  const changes: Change[] = [];
  for (const name of names) {
    if (!others.has(name) || name === configName || name === stateName) continue;
    const [left, right] = [await folders[0].read(name, fileLimit), await folders[1].read(name, fileLimit)];
    if (Buffer.compare(left, right) !== 0) changes.push({ where: name, a: `${left.byteLength} bytes`, b: `${right.byteLength} bytes, others` });
  }
  return changes;
}

function showGroup({ title, tensors }: Group, all: boolean, line: (text: string) => void): void {
  const ranked = all ? tensors.toSorted(worstFirst) : tensors.filter(({ kind }) => kind !== 'equal').toSorted(worstFirst);
  if (ranked.length === 0) return;
  const rows = [[title, 'type', 'changed', 'largest change', 'relative', 'norm'], ...(all ? ranked : ranked.slice(0, shownTensors)).map(row)];
  line(table(rows));
  if (!all && ranked.length > shownTensors) line(`  and ${count(ranked.length - shownTensors)} more that differ (--all shows every tensor)`);
  line('');
}

function row(one: TensorComparison): string[] {
  const { name, kind, a, b, elements, changed, maxAbsolute, maxRelative, unordered } = one;
  const type = [a, b].map((side) => (side === null ? '-' : `${side.dtype.toLowerCase()} [${side.shape.join(', ')}]`));
  const isOneType = type[0] === type[1];
  const types = isOneType ? type[0]! : a !== null && b !== null && kind === 'different' ? `${a.dtype.toLowerCase()} -> ${b.dtype.toLowerCase()} [${a.shape.join(', ')}]` : `${type[0]!} -> ${type[1]!}`;
  if (kind === 'missing') return [name, types, 'only in A'];
  if (kind === 'extra') return [name, types, 'only in B'];
  if (kind === 'shape') return [name, types, 'other shape'];
  if (kind === 'equal') return [name, types, 'equal'];
  const lost = unordered > 0 ? ` (${count(unordered)} not finite)` : '';
  return [name, types, share(changed, elements), `${number(maxAbsolute)}${lost}`, number(maxRelative), number(normOf(one))];
}

/** What is not there or has another shape, then what is not finite, then by the largest change. */
function worstFirst(a: TensorComparison, b: TensorComparison): number {
  const rank = ({ kind, unordered }: TensorComparison): number => (kind === 'missing' || kind === 'extra' || kind === 'shape' ? 0 : kind === 'equal' ? 3 : unordered > 0 ? 1 : 2);
  return rank(a) - rank(b) || b.maxAbsolute - a.maxAbsolute || b.changed - a.changed;
}

/** Norm of the change as a share of the first one's. */
function normOf({ squares, changeSquares }: { readonly squares: number; readonly changeSquares: number }): number {
  return changeSquares === 0 ? 0 : Math.sqrt(changeSquares / squares);
}

function summary({ title, tensors }: Group): string {
  const differing = tensors.filter(({ kind }) => kind !== 'equal');
  const elements = tensors.reduce((n, one) => n + one.elements, 0);
  if (differing.length === 0) return `${title}: all ${count(tensors.length)} tensors equal, ${count(elements)} elements`;
  const worst = differing.toSorted(worstFirst).find(({ kind }) => kind === 'different');
  const changed = tensors.reduce((n, one) => n + one.changed, 0);
  const apart = differing.filter(({ kind }) => kind !== 'different').length;
  const largest = worst === undefined ? '' : `, the largest change ${number(worst.maxAbsolute)} in ${worst.name}`;
  return `${title}: ${count(differing.length)} of ${count(tensors.length)} tensors differ${apart === 0 ? '' : ` (${count(apart)} missing or of another shape)`}; ${count(changed)} of ${count(elements)} elements changed (${share(changed, elements)})${largest}`;
}

/** '0.0 %' only where nothing changed. */
function share(changed: number, elements: number): string {
  return changed > 0 && changed / elements < 0.0005 ? '< 0.1 %' : percent(elements === 0 ? 0 : changed / elements);
}

/** '0.0123', '5.11e-5', '0'. */
function number(value: number): string {
  if (value === Infinity) return 'from zero';
  return value === 0 ? '0' : value < 1e-3 || value >= 1e6 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}

function plain(one: TensorComparison): Record<string, unknown> {
  const { squares: _s, changeSquares: _c, ...rest } = one;
  const norm = normOf(one);
  // JSON has no infinity.
  return { ...rest, changedShare: one.elements === 0 ? 0 : one.changed / one.elements, normOfChange: Number.isFinite(norm) ? norm : null };
}

/** Values are equal whatever the order of their keys. */
function sorted(value: JsonValue | undefined): string {
  return JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'object' && inner !== null && !Array.isArray(inner) ? Object.fromEntries(Object.entries(inner).toSorted(([x], [y]) => (x < y ? -1 : 1))) : inner)) ?? 'absent';
}

function shown(value: JsonValue | undefined): string | null {
  if (value === undefined) return null;
  const text = JSON.stringify(value);
  return text.length > 120 ? `${text.slice(0, 117)}...` : text;
}

function words({ a, b }: Change): string {
  return a === null ? `only in B (${b ?? ''})` : b === null ? `only in A (${a})` : `${a} -> ${b}`;
}
