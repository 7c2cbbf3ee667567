// Reads a run's YAML: YAML 1.2, no aliases blown up, every complaint with file and line.
import { readFile } from 'node:fs/promises';
import { LomoError } from '@lomo/tensor';
import type { Locate, ParsedRun } from '@lomo/trainer';
import { parseRun } from '@lomo/trainer';
import { isMap, isPair, isScalar, LineCounter, parseDocument } from 'yaml';
import type { Document, Node } from 'yaml';

/** Settings of `path` with `overrides` on top. Throws ConfigError naming file and line. */
export async function readRun(path: string, overrides: Readonly<Record<string, unknown>> = {}): Promise<ParsedRun> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new LomoError('ConfigError', `${path}: ${error.code === 'ENOENT' ? 'there is no such file' : error.message}`, { path }, error);
  });
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true });
  const problem = document.errors[0];
  if (problem !== undefined) {
    throw new LomoError('ConfigError', `${path}:${lines.linePos(problem.pos[0]).line}: ${problem.message}`, { path });
  }
  const raw: unknown = document.toJS({ maxAliasCount: 20 });
  const locate: Locate = (keys) => {
    if (keys.length > 0 && Object.hasOwn(overrides, String(keys[0]))) return 'command line';
    const offset = offsetOf(document, keys);
    return offset === null ? path : `${path}:${lines.linePos(offset).line}`;
  };
  const settings = typeof raw === 'object' && raw !== null ? { ...raw, ...overrides } : (raw ?? overrides);
  return parseRun(settings, locate);
}

function offsetOf(document: Document, keys: readonly (string | number)[]): number | null {
  for (let depth = keys.length; depth > 0; depth--) {
    const parent = document.getIn(keys.slice(0, depth - 1), true);
    const key = keys[depth - 1];
    const container = depth === 1 ? document.contents : parent;
    if (isMap(container)) {
      const pair = container.items.find((item) => isPair(item) && isScalar(item.key) && item.key.value === key);
      const range = (pair?.key as Node | undefined)?.range;
      if (range) return range[0];
    }
    const node = document.getIn(keys.slice(0, depth), true) as Node | undefined;
    if (node?.range) return node.range[0];
  }
  return null;
}
