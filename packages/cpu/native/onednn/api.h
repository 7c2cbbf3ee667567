// The oneDNN entry points we call, as prototypes of our own: no header is needed to build, and versions 2 and 3 fit in one table.
// Numbers and layouts are those of oneDNN's public C API (2.6 and 3.x agree on all of them but the one noted).
#pragma once

#include <cstddef>
#include <cstdint>

namespace lomo::onednn {

using Status = int;  // 0 success, 3 unimplemented
constexpr Status unimplemented = 3;
using Dims = std::int64_t[12];

enum : int { type_bf16 = 2, type_f32 = 3 };
enum : int { arg_source = 1, arg_destination = 17, arg_weights = 33, arg_bias = 41, arg_scratchpad = 80 };
enum : int { query_implementation = 8, query_scratchpad = 136 };
enum : int { kind_cpu = 1, stream_default = 1, scratchpad_user = 1 };
enum : int { linear_v2 = 127, linear_v3 = 38 };  // the eltwise algorithm alpha x + beta
enum : int { isa_avx512 = 0x20 };  // the bit every kind of AVX-512 from Skylake on has, and no lesser one
enum : unsigned { runtime_sequential = 1, runtime_openmp = 2 };

struct Version {
  int major, minor, patch;
  const char* hash;
  unsigned cpu_runtime, gpu_runtime;
};

struct Argument {
  int id;
  void* memory;
};

// Version 2 describes memories and operations in structs of 696 and 2,800 bytes; we only hand them around.
struct alignas(64) MemoryStruct { std::byte bytes[2048]; };
struct alignas(64) OperationStruct { std::byte bytes[8192]; };

struct Api {
  const Version* (*version)();
  Status (*engine_create)(void** engine, int kind, std::size_t index);
  Status (*engine_destroy)(void* engine);
  Status (*stream_create)(void** stream, void* engine, unsigned flags);
  Status (*stream_wait)(void* stream);
  Status (*stream_destroy)(void* stream);
  Status (*attr_create)(void** attr);
  Status (*attr_destroy)(void* attr);
  Status (*attr_set_scratchpad_mode)(void* attr, int mode);
  Status (*attr_set_post_ops)(void* attr, const void* post_ops);
  Status (*post_ops_create)(void** post_ops);
  Status (*post_ops_destroy)(void* post_ops);
  Status (*primitive_desc_query)(const void* desc, int what, int index, void* result);
  const void* (*primitive_desc_query_md)(const void* desc, int what, int index);
  Status (*primitive_desc_destroy)(void* desc);
  Status (*primitive_create)(void** primitive, const void* desc);
  Status (*primitive_execute)(const void* primitive, void* stream, int count, const Argument* arguments);
  Status (*primitive_destroy)(void* primitive);
  std::size_t (*memory_desc_get_size)(const void* desc);
  Status (*memory_create)(void** memory, const void* desc, void* engine, void* data);
  Status (*memory_set_data_handle)(void* memory, void* data);
  Status (*memory_destroy)(void* memory);
  Status (*set_primitive_cache_capacity)(int capacity);
  int (*effective_cpu_isa)();
  // Version 2 only.
  Status (*memory_desc_init_by_strides)(void* desc, int rank, const Dims dims, int type, const Dims strides);
  Status (*matmul_desc_init)(void* operation, const void* source, const void* weights, const void* bias, const void* destination);
  Status (*primitive_desc_create)(void** desc, const void* operation, const void* attr, void* engine, const void* hint);
  Status (*post_ops_append_sum_v2)(void* post_ops, float scale);
  Status (*post_ops_append_eltwise_v2)(void* post_ops, float scale, int algorithm, float alpha, float beta);
  // Version 3 only.
  Status (*memory_desc_create_with_strides)(void** desc, int rank, const Dims dims, int type, const Dims strides);
  Status (*memory_desc_destroy)(void* desc);
  Status (*matmul_primitive_desc_create)(void** desc, void* engine, const void* source, const void* weights, const void* bias, const void* destination, const void* attr);
  Status (*post_ops_append_sum_v3)(void* post_ops, float scale, std::int32_t zero_point, int type);
  Status (*post_ops_append_eltwise_v3)(void* post_ops, int algorithm, float alpha, float beta);
};

}  // namespace lomo::onednn
