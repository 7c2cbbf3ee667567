// Every op that training and sampling launch, on the CPU backend, against its float64 definition.
import { cpu } from '@lomo/cpu';
import { optimOps } from '@lomo/optim';
import { tensorOps } from '@lomo/tensor';
import { registerConformance } from '@lomo/tensor/conformance';
import { describe, test } from 'vitest';

const ops = [...tensorOps, ...optimOps];

describe('cpu', () => registerConformance(test, { backend: () => cpu({ threads: 2 }), ops, cases: 40 }));

// The plainest kernels and one thread: the same definitions, another instruction set.
describe('cpu, portable', () => registerConformance(test, { backend: () => cpu({ threads: 1, isa: 'portable' }), ops, cases: 10, seed: 5000 }));
