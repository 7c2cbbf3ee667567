// Finds the shared reference folder beside the repository; tests that need it are skipped, visibly, where it is absent.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../../shared/', import.meta.url));

/** Path inside the shared folder, or null where it is not there. */
export function sharedPath(name: string): string | null {
  return existsSync(root + name) ? root + name : null;
}
