// Texts made to take more than their size: a few bytes that become large objects, deep nests, long tokens, an error at the very end.
import { jsonContainers } from '@lomo/models';

/** One text and what must refuse it; null where it is valid. */
export interface Bomb {
  readonly name: string;
  readonly text: string;
  /** As a header. */
  readonly header: RegExp | null;
  /** As plain JSON with the default limits. */
  readonly json: RegExp | null;
}

/** All of them, of about `size` characters. */
export function bombs(size: number): readonly Bomb[] {
  const many = (piece: string, join = ','): string => Array.from({ length: Math.floor(size / (piece.length + join.length)) }, () => piece).join(join);
  const numbered = (make: (i: number) => string, width: number): string => Array.from({ length: Math.floor(size / width) }, (_, i) => make(i)).join(',');
  const containers = /more than \d+ arrays and objects/;
  return [
    { name: 'arrays in arrays', text: '{"a":'.concat('['.repeat(size)), header: /nested deeper than 3/, json: /nested deeper than 32/ },
    { name: 'empty objects', text: `{"a":[${many('{}')}]}`, header: /nested deeper than 3|more than \d+ arrays/, json: containers },
    { name: 'empty arrays', text: `{"a":[${many('[]')}]}`, header: /nested deeper than 3|more than \d+ arrays/, json: containers },
    { name: 'objects by name', text: `{${numbered((i) => `"${i}":{}`, 11)}}`, header: /more than \d+ arrays|too many tensors/, json: size / 11 > jsonContainers ? containers : null },
    { name: 'one long shape', text: `{"a":{"dtype":"U8","shape":[${many('1')}],"data_offsets":[0,1]}}`, header: /bad shape|more than \d+ values/, json: null },
    { name: 'metadata without end', text: `{"__metadata__":{${numbered((i) => `"k${i}":"v"`, 14)}}}`, header: /entries of __metadata__|more than \d+ values/, json: null },
    { name: 'a long number', text: `{"a":${'9'.repeat(size)}}`, header: /bad entry/, json: null },
    { name: 'a long fraction', text: `{"a":0.${'1'.repeat(size)}}`, header: /bad entry/, json: null },
    { name: 'a long name', text: `{"${'n'.repeat(size)}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, header: /name too long/, json: null },
    { name: 'a long name, twice', text: `{"${'n'.repeat(size / 2)}":1,"${'n'.repeat(size / 2)}":1}`, header: /duplicate key/, json: /duplicate key/ },
    { name: 'escapes', text: `{"${'\\u0061'.repeat(size / 6)}":1}`, header: /name too long|bad entry/, json: null },
    { name: 'half a pair at the end', text: `{"${'x'.repeat(size)}\\ud800":1}`, header: /lone surrogate/, json: /lone surrogate/ },
    { name: 'blanks', text: `{${' '.repeat(size)}}`, header: null, json: null },
    { name: 'lines, and an error in the last', text: `{${'\n'.repeat(size)}?`, header: /key in double quotes/, json: /key in double quotes/ },
    { name: 'a string without end', text: `{"a":"${'x'.repeat(size)}`, header: /end of a string/, json: /end of a string/ },
    { name: 'backslashes', text: `{"a":"${'\\\\'.repeat(size / 2)}`, header: /end of a string/, json: /end of a string/ },
  ];
}
