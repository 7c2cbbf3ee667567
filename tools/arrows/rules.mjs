// The layers of the workspace as data: who may import whom. The picture is in docs and README; this table is what the lint enforces.

/** Package name -> the @lomo packages its sources may import and its manifest may depend on. */
export const arrows = {
  '@lomo/tensor': [],
  '@lomo/data': [],
  '@lomo/cpu': ['@lomo/tensor'],
  '@lomo/cuda': ['@lomo/tensor'],
  '@lomo/parallel': ['@lomo/tensor'],
  '@lomo/optim': ['@lomo/tensor'],
  '@lomo/models': ['@lomo/tensor'],
  '@lomo/trainer': ['@lomo/tensor', '@lomo/parallel', '@lomo/optim', '@lomo/models', '@lomo/data'],
  lomo: ['@lomo/tensor', '@lomo/parallel', '@lomo/optim', '@lomo/models', '@lomo/data', '@lomo/trainer'],
};

/** What may be imported only by `import()`, so that it can be absent: package -> the backends it may load so. */
export const dynamicArrows = { lomo: ['@lomo/cpu', '@lomo/cuda'] };

/** Height in the picture; a package may not depend on a higher one, not even for its tests. */
export const height = {
  '@lomo/tensor': 0, '@lomo/data': 0,
  '@lomo/cpu': 1, '@lomo/cuda': 1, '@lomo/parallel': 1, '@lomo/optim': 1, '@lomo/models': 1,
  '@lomo/trainer': 2, lomo: 3,
};

/** The packages that need a compiler: only apps, benches, examples and tools may depend on them, even for tests. */
export const backends = ['@lomo/cpu', '@lomo/cuda'];

/** Line budgets of one file. */
export const lines = { warn: 300, fail: 400 };

/** Names that say nothing about what a file is for. */
export const emptyNames = ['util', 'utils', 'helper', 'helpers', 'common', 'manager', 'factory', 'misc'];
