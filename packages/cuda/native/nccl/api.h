// The part of NCCL's interface that we use, declared by hand; native/test/headers_*.cpp hold it against NCCL's own header.
#pragma once

#include <climits>
#include <cstddef>

#include "driver/api.h"

namespace lomo::nccl {

using Result = int;
using DataType = int;
using Operation = int;
struct CommHandle;
using Comm = CommHandle*;

struct UniqueId {
  char bytes[128];
};

// As NCCL 2.18 knows it, and what later ones have where its last four bytes are no field; `size` and `version` say so.
struct Config {
  std::size_t size;
  unsigned magic, version;
  int blocking, cga_cluster_size, least_blocks, most_blocks;
  const char* net_name;
  int split_share, traffic_class;
};

enum : Result { success = 0, unhandled_cuda_error = 1, system_error = 2, internal_error = 3, invalid_argument = 4, invalid_usage = 5, remote_error = 6, in_progress = 7 };
enum : DataType { type_u8 = 1, type_i32 = 2, type_f16 = 6, type_f32 = 7, type_bf16 = 9 };
enum : Operation { sum = 0, max = 2 };

// The oldest that knows the Config above.
constexpr int oldest = 21800;  // 2.18.0
constexpr unsigned config_magic = 0xcafebeef;
constexpr int undefined = INT_MIN;
constexpr Config config{sizeof(Config), config_magic, oldest, 0, undefined, undefined, undefined, nullptr, undefined, undefined};  // calls do not block

#define LOMO_NCCL_ENTRIES(X)                                                                                                            \
  X(Result, get_version, "ncclGetVersion", (int*))                                                                                      \
  X(Result, get_unique_id, "ncclGetUniqueId", (UniqueId*))                                                                              \
  X(Result, init_rank, "ncclCommInitRankConfig", (Comm*, int, UniqueId, int, Config*))                                                  \
  X(Result, destroy, "ncclCommDestroy", (Comm))                                                                                         \
  X(Result, abort, "ncclCommAbort", (Comm))                                                                                             \
  X(const char*, error_string, "ncclGetErrorString", (Result))                                                                          \
  X(const char*, last_error, "ncclGetLastError", (Comm))                                                                                \
  X(Result, async_error, "ncclCommGetAsyncError", (Comm, Result*))                                                                      \
  X(Result, group_start, "ncclGroupStart", ())                                                                                          \
  X(Result, group_end, "ncclGroupEnd", ())                                                                                              \
  X(Result, all_reduce, "ncclAllReduce", (const void*, void*, std::size_t, DataType, Operation, Comm, cu::Stream))                      \
  X(Result, all_gather, "ncclAllGather", (const void*, void*, std::size_t, DataType, Comm, cu::Stream))                                 \
  X(Result, reduce_scatter, "ncclReduceScatter", (const void*, void*, std::size_t, DataType, Operation, Comm, cu::Stream))              \
  X(Result, broadcast, "ncclBroadcast", (const void*, void*, std::size_t, DataType, int, Comm, cu::Stream))                             \
  X(Result, send, "ncclSend", (const void*, std::size_t, DataType, int, Comm, cu::Stream))                                              \
  X(Result, receive, "ncclRecv", (void*, std::size_t, DataType, int, Comm, cu::Stream))

// The entries, filled by whoever opens the library.
struct Entries {
#define X(type, name, symbol, parameters) type(*name) parameters = nullptr;
  LOMO_NCCL_ENTRIES(X)
#undef X
};

}  // namespace lomo::nccl
