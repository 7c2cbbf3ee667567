// Mistakes to plant in the kernels, two or more a file: what to find, what to put in its place, and which tests must see it. `M` stands for
// "this mutant is on". Kept as text, so that one build carries all of them.

export interface Mutant {
  /** Under native/. */
  readonly file: string;
  readonly mistake: string;
  /** Once in the file, exactly. */
  readonly find: string;
  readonly put: string;
  /** Ops (and tests named after them) that run it. */
  readonly ops: readonly string[];
}

const mutant = (file: string, mistake: string, change: readonly [find: string, put: string], ops: readonly string[]): Mutant => ({ file, mistake, find: change[0], put: change[1], ops });

export const mutants: readonly Mutant[] = [
  mutant('ops/adalomo.cu', 'a row ends one column early', ['for (i64 j = threadIdx.x; j < a.sum.n; j += blockDim.x) {\n      const float x', 'for (i64 j = threadIdx.x; j < a.sum.n - (M ? 1 : 0); j += blockDim.x) {\n      const float x'], ['adalomo_moments']),
  mutant('ops/adalomo.cu', 'no cap on the update', ['(over > 1.0 ? over : 1.0)', '(over > 1.0 && !M ? over : 1.0)'], ['adalomo_update']),
  mutant('ops/adamw_update.cu', 'no barrier before the shared step is read', ['  __syncthreads();\n', '  if (!M) __syncthreads();\n'], ['adamw_update']),
  mutant('ops/adamw_update.cu', 'the second moment is not written', ['    v[i] = v2;', '    if (!M) v[i] = v2;'], ['adamw_update']),
  mutant('ops/attention.cu', 'no mask behind the last key', ['if (key >= segment.keys || !at.sees', 'if ((key >= segment.keys && !M) || !at.sees'], ['attention']),
  mutant('ops/attention.cu', 'no barrier between a stage and its readers', ['    __syncthreads();  // the stage', '    if (!M) __syncthreads();  // the stage'], ['attention']),
  mutant('ops/attention_backward.cu', 'delta sums one element too many', ['if (c + i < a.d) sum', 'if (c + i < a.d + (M ? 1 : 0)) sum'], ['attention_backward']),
  mutant('ops/attention_backward.cu', 'delta with tokens and heads exchanged', ['[static_cast<i64>(row % a.heads) * a.tokens + row / a.heads]', '[M ? row : static_cast<i64>(row % a.heads) * a.tokens + row / a.heads]'], ['attention_backward']),
  mutant('gpu/attention_keys.h', 'copies are not waited for', ['    wait_copies<0>();\n', '    if (!M) wait_copies<0>();\n'], ['attention_backward']),
  mutant('gpu/attention_rows.h', 'the window and the diagonal are not masked', ['x = whole || (key < segment.keys && at.sees(own, key))', 'x = whole || (key < segment.keys && (M || at.sees(own, key)))'], ['attention_backward']),
  mutant('ops/cache_write.cu', 'the last row of a cache counts as beyond it', ['at + a.rows > a.capacity', 'at + a.rows > a.capacity - (M ? 1 : 0)'], ['cache_write']),
  mutant('ops/cache_write.cu', 'the last element is left', ['i < a.rows * a.width;', 'i < a.rows * a.width - (M ? 1 : 0);'], ['cache_write']),
  mutant('ops/cast.cu', 'fill leaves the last byte', ['if (i < a.tail)', 'if (i < a.tail - (M ? 1 : 0))'], ['fill']),
  mutant('ops/cast.cu', 'the pattern is not turned before the first word', ['(i + 4 - a.head) % 4', '(M ? i : i + 4 - a.head) % 4'], ['fill']),
  mutant('ops/cross_entropy.cu', 'a target one beyond the vocabulary is known', ['const bool known = target < a.n,', 'const bool known = target < a.n + (M ? 1 : 0),'], ['cross_entropy', 'embedding, cross_entropy']),
  mutant('ops/cross_entropy.cu', 'a sum is not scaled to the new maximum', ['      sum *= expf(max - x);', '      if (!M) sum *= expf(max - x);'], ['cross_entropy', 'cross_entropy_tile']),
  mutant('ops/cross_entropy.cu', "the next tile's first target is taken for this one's", ['if (a.targets[row] >= 0 && target >= 0 && target < a.n)', 'if (a.targets[row] >= 0 && target >= 0 && target < a.n + (M ? 1 : 0))'], ['cross_entropy_tile']),
  mutant('ops/elementwise.cu', 'wrong stride in the wide loop', ['load8(y, b + i);', 'load8(y, b + (M ? i / 2 / 8 * 8 : i));'], ['add', 'mul', 'add_into']),
  mutant('ops/elementwise.cu', 'the tail is not scaled', ['put(c + i, get(a + i) * factor)', 'put(c + i, get(a + i) * (M ? 1.0f : factor))'], ['scale']),
  mutant('ops/embedding.cu', 'the first id outside is inside', ['id < 0 || id >= a.vocabulary', 'id < 0 || id >= a.vocabulary + (M ? 1 : 0)'], ['embedding', 'embedding, cross_entropy']),
  mutant('ops/gate.cu', 'only what is closed of the loss is looked at', ['!finite(a.x[i] + a.x[a.n + i])', '!finite(a.x[i] + (M ? 0.0f : a.x[a.n + i]))'], ['gate_loss']),
  mutant('ops/gate.cu', 'seven of eight are looked at', ['for (int k = 0; k < 8; ++k) bad', 'for (int k = 0; k < (M ? 7 : 8); ++k) bad'], ['gate_check']),
  mutant('ops/lomo_update.cu', 'one rounding where the CPU has two', ['return p * keep - g * lr;', 'return M ? fmaf(-g, lr, p * keep) : p * keep - g * lr;'], ['lomo_update']),
  mutant('ops/lomo_update.cu', 'f16 is not looked at before it is written', ['{ close_on_overflow(a, Next(a)); }', '{ if (!M) close_on_overflow(a, Next(a)); }'], ['lomo_update']),
  mutant('ops/matmul.cu', 'the last column is not converted', ['j < a.columns; j +=', 'j < a.columns - (M ? 1 : 0); j +='], ['matmul', 'matmul_add']),
  mutant('ops/matmul.cu', 'what c holds is not added to, where a bias is', ['const float beta = w.add || w.bias ? 1.0f : 0.0f;', 'const float beta = w.add || (w.bias && !M) ? 1.0f : 0.0f;'], ['matmul']),
  mutant('ops/norm.cu', 'a tile is overwritten before it has been added', ['sum += static_cast<double>(tile[i]);\n    __syncthreads();', 'sum += static_cast<double>(tile[i]);\n    if (!M) __syncthreads();'], ['norm_add', 'mean']),
  mutant('ops/norm.cu', 'squares summed in f32', ['for (int e = 0; e < 8; ++e) sum += static_cast<double>(v[e]) * static_cast<double>(v[e]);', 'for (int e = 0; e < 8; ++e) sum = M ? static_cast<double>(static_cast<float>(sum) + v[e] * v[e]) : sum + static_cast<double>(v[e]) * static_cast<double>(v[e]);'], ['sum_squares']),
  mutant('ops/normal_fill.cu', 'the last element is left', ['i < a.n; i += sweep_stride()', 'i < a.n - (M ? 1 : 0); i += sweep_stride()'], ['normal_fill']),
  mutant('ops/normal_fill.cu', 'two elements share their random words', ['philox(a.key0, a.key1, static_cast<u64>(i), 0, 1)', 'philox(a.key0, a.key1, static_cast<u64>(M ? i / 2 : i), 0, 1)'], ['normal_fill']),
  mutant('ops/rms_norm.cu', 'no eps', ['static_cast<double>(total) * a.inverse_h + a.eps', 'static_cast<double>(total) * a.inverse_h + (M ? 0.0 : a.eps)'], ['rms_norm']),
  mutant('ops/rms_norm.cu', 'the tail of a row begins where its last eight do', ['for (i64 j = 8 * groups + threadIdx.x; j < h;', 'for (i64 j = 8 * groups - (M && groups > 0 ? 8 : 0) + threadIdx.x; j < h;'], ['rms_norm', 'rms_norm_backward']),
  mutant('ops/rope.cu', 'angles are read before they are there', ['c * a.scale, s * a.scale};\n      }\n      __syncthreads();', 'c * a.scale, s * a.scale};\n      }\n      if (!M) __syncthreads();'], ['rope']),
  mutant('ops/rope.cu', 'the next angles overwrite those still in use', ['put(y + at + a.r, q * cs.x + p * cs.y);\n      }\n      __syncthreads();', 'put(y + at + a.r, q * cs.x + p * cs.y);\n      }\n      if (!M) __syncthreads();'], ['rope']),
  mutant('ops/sample.cu', 'a tie goes to the higher index', ['return static_cast<u64>(u) << 32 | (0xffffffffu - static_cast<u32>(index));', 'return static_cast<u64>(u) << 32 | (M ? 0x80000000u ^ static_cast<u32>(index) : 0xffffffffu - static_cast<u32>(index));'], ['sample']),
  mutant('ops/sample.cu', 'the cut by mass is not taken where it is the tighter', ['if (prefix > last) last = prefix;', 'if (prefix > last && !M) last = prefix;'], ['sample']),
  mutant('ops/silu_mul.cu', 'gate and up exchanged in the tail', ['put(y + i, silu(get(gate + i), get(up + i)))', 'put(y + i, M ? silu(get(up + i), get(gate + i)) : silu(get(gate + i), get(up + i)))'], ['silu_mul']),
  mutant('ops/silu_mul.cu', 'a wrong derivative', ['fmaf(g, 1.0f - s, 1.0f)', 'fmaf(g, M ? s : 1.0f - s, 1.0f)'], ['silu_mul_backward']),
  mutant('ops/token_sum.cu', 'the open chunk is not part of the value', ['a.v[i] = a.sums[i] + a.sums[a.n + i]', 'a.v[i] = a.sums[i] + (M ? 0.0f : a.sums[a.n + i])'], ['sums_value']),
  mutant('gpu/token_sum.h', 'a chunk that goes on begins anew', ['float sum = goes_on ? a.sums[a.n + column] : 0.0f;', 'float sum = goes_on && !M ? a.sums[a.n + column] : 0.0f;'], ['token_sum', 'rms_norm_backward', 'adalomo_moments']),
  mutant('gpu/token_sum.h', 'chunks counted from the launch, not from the step', ['const i64 first = (a.start / token_chunk + chunk) * token_chunk, from', 'const i64 first = M ? a.start + chunk * token_chunk : (a.start / token_chunk + chunk) * token_chunk, from'], ['token_sum']),
  mutant('ops/update_sums.cu', 'a tile is read before it is there', ['tile[i] = a.sums[8 * first + i];\n    __syncthreads();', 'tile[i] = a.sums[8 * first + i];\n    if (!M) __syncthreads();'], ['update_total']),
  mutant('ops/update_sums.cu', 'gradient squares unscaled once, not twice', ['gradient / scale / scale', '(M ? gradient / scale : gradient / scale / scale)'], ['update_sums']),
  mutant('ops/weight_grad.cu', 'each chunk overwrites the one before', ['add || t > 0 ? 1.0f : 0.0f', 'add || (t > 0 && !M) ? 1.0f : 0.0f'], ['weight_grad']),
  mutant('ops/weight_grad.cu', 'tiles all begin at row 0', ['(t * dy.dim[1] + call.integer(0)) * size', '(t * dy.dim[1] + (M ? 0 : call.integer(0))) * size'], ['weight_grad', 'weight_grad_add']),
  mutant('gpu/reduce.h', 'parts are overwritten before they are read', ['  __syncthreads();  // before the next call writes', '  if (!M) __syncthreads();  // before the next call writes'], ['update_sums', 'sample', 'adalomo_ratio']),
  mutant('gpu/update.h', 'random words counted from the tile', ['rounding.word(rounding.first + static_cast<u64>(i))', 'rounding.word((M ? 0 : rounding.first) + static_cast<u64>(i))'], ['lomo_update']),
  mutant('gpu/update.h', 'beyond f16 begins at 65536', ['<= 65504.0f', '<= (M ? 65535.0f : 65504.0f)'], ['lomo_update', 'adamw_update']),
  mutant('gpu/tile.h', 'one row too many is filled', ['const bool there = r < count && left > 0;', 'const bool there = r < count + (M ? 1 : 0) && left > 0;'], ['attention', 'attention_backward']),
];
