// Builds and runs one oneDNN matmul primitive through either version's C API.
#include "onednn/primitive.h"

#include <memory>

#include "lomo/error.h"

namespace lomo::onednn {
namespace {

// Owns an opaque handle until the end of a scope.
struct Handle {
  void* value = nullptr;
  Status (*destroy)(void*) = nullptr;
  ~Handle() {
    if (value != nullptr && destroy != nullptr) destroy(value);
  }
};

// A memory description of either version.
struct Description {
  MemoryStruct inside;
  Handle outside;
  const void* get() const { return outside.value != nullptr ? outside.value : static_cast<const void*>(&inside); }
};

void describe(const Library& library, Description& d, std::int64_t rows, std::int64_t columns, std::int64_t row_stride, std::int64_t column_stride, DType t) {
  const Dims dims = {rows, columns}, strides = {row_stride, column_stride};
  const int type = t == DType::bf16 ? type_bf16 : type_f32;
  const Api& api = library.api();
  if (library.major() == 2) return Library::check(api.memory_desc_init_by_strides(&d.inside, 2, dims, type, strides), "dnnl_memory_desc_init_by_strides");
  d.outside.destroy = api.memory_desc_destroy;
  Library::check(api.memory_desc_create_with_strides(&d.outside.value, 2, dims, type, strides), "dnnl_memory_desc_create_with_strides");
}

}  // namespace

Primitive::Primitive(const Library& library, const Shape& shape, int lanes) : library_(library), lanes_(static_cast<std::size_t>(lanes)) {
  try {
    create(shape);
  } catch (...) {
    destroy();
    throw;
  }
}

Primitive::~Primitive() { destroy(); }

void Primitive::destroy() {
  for (const Lane& lane : lanes_) {
    for (void* memory : lane.memories)
      if (memory != nullptr) library_.api().memory_destroy(memory);
    if (lane.stream != nullptr) library_.api().stream_destroy(lane.stream);
  }
  if (primitive_ != nullptr) library_.api().primitive_destroy(primitive_);
}

void Primitive::create(const Shape& s) {
  const Api& api = library_.api();
  const bool two = library_.major() == 2;
  // The big structs of version 2 stay off the stack of whoever asks.
  struct All {
    Description a, b, bias, c;
    OperationStruct operation;
  };
  const auto all = std::make_unique<All>();
  describe(library_, all->a, s.m, s.k, s.ta ? 1 : s.lda, s.ta ? s.lda : 1, s.in);
  describe(library_, all->b, s.k, s.n, s.tb ? 1 : s.ldb, s.tb ? s.ldb : 1, s.in);
  describe(library_, all->c, s.m, s.n, s.n, 1, s.out);
  if (s.bias) describe(library_, all->bias, 1, s.n, s.n, 1, s.in);

  Handle attr{nullptr, api.attr_destroy}, post{nullptr, api.post_ops_destroy}, desc{nullptr, api.primitive_desc_destroy};
  Library::check(api.attr_create(&attr.value), "dnnl_primitive_attr_create");
  Library::check(api.attr_set_scratchpad_mode(attr.value, scratchpad_user), "dnnl_primitive_attr_set_scratchpad_mode");
  Library::check(api.post_ops_create(&post.value), "dnnl_post_ops_create");
  if (s.alpha != 1)
    Library::check(two ? api.post_ops_append_eltwise_v2(post.value, 1, linear_v2, s.alpha, 0) : api.post_ops_append_eltwise_v3(post.value, linear_v3, s.alpha, 0), "dnnl_post_ops_append_eltwise");
  if (s.add) Library::check(two ? api.post_ops_append_sum_v2(post.value, 1) : api.post_ops_append_sum_v3(post.value, 1, 0, 0), "dnnl_post_ops_append_sum");
  Library::check(api.attr_set_post_ops(attr.value, post.value), "dnnl_primitive_attr_set_post_ops");

  const void* bias = s.bias ? all->bias.get() : nullptr;
  Status status;
  if (two) {
    Library::check(api.matmul_desc_init(&all->operation, all->a.get(), all->b.get(), bias, all->c.get()), "dnnl_matmul_desc_init");
    status = api.primitive_desc_create(&desc.value, &all->operation, attr.value, library_.engine(), nullptr);
  } else {
    status = api.matmul_primitive_desc_create(&desc.value, library_.engine(), all->a.get(), all->b.get(), bias, all->c.get(), attr.value);
  }
  if (status == unimplemented) return;
  Library::check(status, "creating a matmul");
  if (const char* name = nullptr; api.primitive_desc_query(desc.value, query_implementation, 0, &name) == 0 && name != nullptr) implementation_ = name;
  const void* scratchpad = api.primitive_desc_query_md(desc.value, query_scratchpad, 0);
  scratchpad_ = scratchpad == nullptr ? 0 : api.memory_desc_get_size(scratchpad);

  const void* descriptions[] = {all->a.get(), all->b.get(), bias, all->c.get(), scratchpad_ > 0 ? scratchpad : nullptr};
  for (Lane& lane : lanes_) {
    Library::check(api.stream_create(&lane.stream, library_.engine(), stream_default), "dnnl_stream_create");
    for (int i = 0; i < 5; ++i)
      if (descriptions[i] != nullptr) Library::check(api.memory_create(&lane.memories[i], descriptions[i], library_.engine(), nullptr), "dnnl_memory_create");
  }
  Library::check(api.primitive_create(&primitive_, desc.value), "dnnl_primitive_create");
}

void Primitive::run(int lane, const Pointers& p) const {
  const Api& api = library_.api();
  const Lane& mine = lanes_[static_cast<std::size_t>(lane)];
  constexpr int ids[] = {arg_source, arg_weights, arg_bias, arg_destination, arg_scratchpad};
  void* const data[] = {const_cast<void*>(p.a), const_cast<void*>(p.b), const_cast<void*>(p.bias), p.c, p.scratchpad};
  Argument arguments[5];
  int count = 0;
  for (int i = 0; i < 5; ++i) {
    if (mine.memories[i] == nullptr) continue;
    Library::check(api.memory_set_data_handle(mine.memories[i], data[i]), "dnnl_memory_set_data_handle");
    arguments[count++] = {ids[i], mine.memories[i]};
  }
  Library::check(api.primitive_execute(primitive_, mine.stream, count, arguments), "dnnl_primitive_execute");
  Library::check(api.stream_wait(mine.stream), "dnnl_stream_wait");
}

}  // namespace lomo::onednn
