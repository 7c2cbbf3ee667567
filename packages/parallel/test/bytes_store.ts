// A spill store of bytes in this process, whose calls can be made to fail.
import type { SpillStore } from '@lomo/optim';
import { LomoError } from '@lomo/tensor';

/** `fails` is asked before every call, which `count` numbers from 1 for each verb. */
export function bytesStore(fails: (verb: 'read' | 'write', count: number) => boolean = () => false): SpillStore {
  let bytes = new Uint8Array(1 << 16);
  const counts = { read: 0, write: 0 };
  const call = (verb: 'read' | 'write'): void => {
    counts[verb]++;
    if (fails(verb, counts[verb])) throw new LomoError('FileError', `${verb} /scratch/spill: EIO, input/output error`, { path: '/scratch/spill', errno: 'EIO' });
  };
  return {
    write: async (from, position) => {
      call('write');
      while (position + from.byteLength > bytes.byteLength) {
        const larger = new Uint8Array(2 * bytes.byteLength);
        larger.set(bytes);
        bytes = larger;
      }
      bytes.set(from, position);
    },
    read: async (into, position) => {
      call('read');
      into.set(bytes.subarray(position, position + into.byteLength));
    },
  };
}
