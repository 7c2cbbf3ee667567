// Which readers get which share of the hostile cases: safetensors headers first, then everything JSON.
import type { FuzzOptions } from './fuzz.ts';
import { configs, indexes } from './folders.ts';
import { headers } from './headers.ts';
import { json } from './json.ts';
import { states } from './states.ts';

/** The readers of a model's folder; 20 cases to a round. */
export const modelFolders: FuzzOptions['targets'] = [
  { target: headers, share: 14 },
  { target: json, share: 4 },
  { target: indexes, share: 1 },
  { target: configs, share: 1 },
];

/** The manifest of a checkpoint. */
export const manifests: FuzzOptions['targets'] = [{ target: states, share: 1 }];
