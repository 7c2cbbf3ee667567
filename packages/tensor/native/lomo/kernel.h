// What a native kernel sees: operands as plain contiguous memory, attributes as numbers, a workspace sized beforehand.
// Shared by every native backend. A kernel allocates nothing, keeps no state and throws lomo::Error on misuse.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lomo {

// What a backend lends its kernels beyond operands (a library, its cached primitives); each backend defines its own.
struct Context;

// The numbers cross the language border; @lomo/tensor's dtype.ts holds the same order.
enum class DType : std::uint8_t { f32 = 0, bf16 = 1, f16 = 2, i32 = 3, u8 = 4 };

constexpr std::size_t size_of(DType t) {
  return t == DType::u8 ? 1 : (t == DType::bf16 || t == DType::f16) ? 2 : 4;
}

constexpr int max_rank = 4;
constexpr int max_operands = 16;
constexpr int max_attributes = 16;

// A contiguous row-major tensor. Dimensions beyond `rank` are 1.
struct Operand {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int32_t rank = 0;
  std::int64_t dim[max_rank] = {1, 1, 1, 1};

  std::int64_t count() const { return dim[0] * dim[1] * dim[2] * dim[3]; }
  std::int64_t last() const { return rank == 0 ? 1 : dim[rank - 1]; }   // length of the innermost dimension
  std::int64_t rows() const { return last() == 0 ? 0 : count() / last(); }
  std::size_t bytes() const { return static_cast<std::size_t>(count()) * size_of(dtype); }
  template <class T> T* as() const { return static_cast<T*>(data); }
};

// One launch. `operands` holds ins, then inouts, then outs.
struct Call {
  const Operand* operands = nullptr;
  std::int32_t ins = 0, inouts = 0, outs = 0;
  const double* attributes = nullptr;    // in the order the kernel declares
  void* workspace = nullptr;             // 64-byte aligned, of the size `workspace` asked for
  std::size_t workspace_bytes = 0;
  std::int32_t threads = 1;              // OpenMP threads a kernel may use
  Context* context = nullptr;            // only kernels that call a library look at it

  const Operand& in(int i) const { return operands[i]; }
  const Operand& inout(int i) const { return operands[ins + i]; }
  const Operand& out(int i) const { return operands[ins + inouts + i]; }
  double attr(int i) const { return attributes[i]; }
  std::int64_t integer(int i) const { return static_cast<std::int64_t>(attributes[i]); }
  bool flag(int i) const { return attributes[i] != 0; }
};

struct Signature {
  const DType* ins; std::int32_t n_ins;
  const DType* inouts; std::int32_t n_inouts;
  const DType* outs; std::int32_t n_outs;
};

// One row of a backend's kernel table. Every file in native/ops defines `const Kernel kernels_<file>[]`, ended by a row without name.
struct Kernel {
  const char* name = nullptr;                     // the op's one word: "rms_norm"
  const char* attributes = "";                    // names separated by spaces, the order of Call::attributes
  bool (*accepts)(const Signature&) = nullptr;    // has it these dtypes?
  void (*run)(const Call&) = nullptr;
  std::size_t (*workspace)(const Call&) = nullptr;  // bytes for these shapes (data pointers may be null), or null for none
};

}  // namespace lomo
