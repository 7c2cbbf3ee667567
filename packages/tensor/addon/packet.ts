// Writes a launch as numbers into the one array both languages share; native/lomo/packet.h reads the same layout.
import { LomoError, dtypes, sizeOf } from '../src/index.ts';
import type { DType, Operands, Queue, Region } from '../src/index.ts';

const headLength = 10;
const operandLength = 8;
const maxOperands = 16;
const maxAttributes = 16;

/** Length of the packet in numbers. */
export const packetLength = headLength + operandLength * maxOperands + maxAttributes;

/** Native number of each queue. */
export const queueIndex: Readonly<Record<Queue, number>> = { compute: 0, receive: 1, send: 2, offload: 3 };

/** Native number of each dtype. */
export const dtypeIndex: Readonly<Record<DType, number>> = Object.fromEntries(dtypes.map((d, i) => [d, i])) as Record<DType, number>;

function packOperand(packet: Float64Array, at: number, region: Region): void {
  const { shape } = region;
  packet[at] = region.memory.id;
  packet[at + 1] = region.offset;
  packet[at + 2] = dtypeIndex[region.dtype];
  packet[at + 3] = shape.length;
  for (let d = 0; d < 4; d++) packet[at + 4 + d] = shape[d] ?? 1;
}

/** What a launch is besides its operands. */
export interface Packing {
  readonly kernel: number;
  readonly attributes: readonly number[];
  readonly queue: Queue;
  /** Look for NaN in what the kernel wrote. */
  readonly check: boolean;
}

/** Fills `packet`. Throws BadArity where more operands or attributes are given than any kernel takes. */
export function pack(packet: Float64Array, operands: Operands, how: Packing): void {
  const { ins, inouts, outs, workspace } = operands;
  const { attributes } = how;
  if (ins.length + inouts.length + outs.length > maxOperands || attributes.length > maxAttributes)
    throw new LomoError('BadArity', `a launch takes at most ${maxOperands} operands and ${maxAttributes} attributes`);
  packet[0] = how.kernel;
  packet[1] = ins.length;
  packet[2] = inouts.length;
  packet[3] = outs.length;
  packet[4] = attributes.length;
  packet[5] = queueIndex[how.queue];
  packet[6] = how.check ? 1 : 0;
  if (workspace === null) {
    packet[7] = -1;
  } else {
    packet[7] = workspace.memory.id;
    packet[8] = workspace.offset;
    packet[9] = bytesOf(workspace);
  }
  let at = headLength;
  for (let i = 0; i < ins.length; i++, at += operandLength) packOperand(packet, at, ins[i]!);
  for (let i = 0; i < inouts.length; i++, at += operandLength) packOperand(packet, at, inouts[i]!);
  for (let i = 0; i < outs.length; i++, at += operandLength) packOperand(packet, at, outs[i]!);
  for (let i = 0; i < attributes.length; i++) packet[at + i] = attributes[i]!;
}

/** Bytes a region spans. */
export function bytesOf(region: Region): number {
  let bytes = sizeOf(region.dtype);
  for (const d of region.shape) bytes *= d;
  return bytes;
}

