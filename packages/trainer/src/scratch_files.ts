// The scratch files of a run: gradients put aside with clip_by: file, weights with stages: streamed, boundary activations with offload: file.
import type { ScratchOptions } from './scratch_file.ts';
import { ScratchFile } from './scratch_file.ts';

/** Opens the file that gradients wait in. Throws FileError with path and errno, or DiskFull. */
export function openSpillFile(folder: string, options: ScratchOptions): Promise<ScratchFile> {
  const advice = 'Gradients are put aside there: name another folder in spill_dir, or set clip_by: two-pass, which needs none';
  return ScratchFile.openFor({ name: 'spill', what: 'a step puts gradients aside', advice }, folder, options);
}

/** Opens the file that weights are in while their stage is not on the device. Throws FileError with path and errno, or DiskFull. */
export function openStreamFile(folder: string, options: ScratchOptions): Promise<ScratchFile> {
  const advice = 'Weights come from there and go there: name another folder in stream_dir (--stream-dir), or let them stay in memory (stages: resident) if they fit';
  return ScratchFile.openFor({ name: 'stream', what: 'the weights of all stages are kept there', advice }, folder, options);
}

/** Opens the file that boundary activations wait in. Throws FileError with path and errno, or DiskFull. */
export function openOffloadFile(folder: string, options: ScratchOptions): Promise<ScratchFile> {
  const advice = 'Boundary activations wait there: name another folder in stream_dir, or set offload: none';
  return ScratchFile.openFor({ name: 'offload', what: 'boundary activations wait there', advice }, folder, options);
}
