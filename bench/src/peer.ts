// The peer as it is strongest: what it is preloaded with, built where a C compiler is there.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** The allocator that `../shared/peers` measured as the leanest and fastest, by the name the loader knows. */
const allocator = 'libtcmalloc_minimal.so.4';

/**
 * LD_PRELOAD of the tuned peer: MKL allowed its best kernels (built from `<peers>/mkl_amd.c` into `work`), and tcmalloc. Throws naming what
 * is missing: a peer that is said to be tuned and is not would be compared in its stead.
 */
export function tunedPreload(peers: string, work: string): string {
  const source = join(peers, 'mkl_amd.c');
  if (!existsSync(source)) throw new Error(`${source} is not there: --preload "A.so B.so" names what the tuned peer is loaded with`);
  const library = join(work, 'mkl_amd.so');
  try {
    execFileSync('cc', ['-O2', '-shared', '-fPIC', '-o', library, source], { stdio: 'pipe' });
  } catch (error) {
    throw new Error(`cc could not build ${source}: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}; install a C compiler or give --preload`, { cause: error });
  }
  // The loader only warns of a library it does not find.
  const said = execFileSync('sh', ['-c', `LD_PRELOAD=${allocator} true 2>&1`], { encoding: 'utf8' });
  if (said.includes('cannot be preloaded')) throw new Error(`${allocator} is not there: apt-get install libtcmalloc-minimal4, or give --preload`);
  return `${library} ${allocator}`;
}
