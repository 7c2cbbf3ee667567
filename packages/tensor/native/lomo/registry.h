// Finds kernels in a backend's constant table and resolves (name, dtypes) to a small integer, once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lomo/error.h"
#include "lomo/kernel.h"

namespace lomo {

// The tables of one instruction set, as CMake lists them: one pointer per file of native/ops, ended by null.
struct KernelSet {
  const char* isa;
  const Kernel* const* files;
};

inline const char* name_of(DType t) {
  constexpr const char* names[] = {"f32", "bf16", "f16", "i32", "u8"};
  return names[static_cast<int>(t)];
}

// A kernel with the dtypes it was looked up for.
struct Resolved {
  const Kernel* kernel;
  std::vector<DType> dtypes;  // ins, inouts, outs
  std::int32_t ins, inouts, outs, attributes;
};

class Registry {
 public:
  explicit Registry(const KernelSet& set) : files_(set.files) {}

  // Index of the kernel for these dtypes, or -1 where the table has none.
  std::int32_t find(std::string_view name, const std::vector<DType>& dtypes, std::int32_t ins, std::int32_t inouts) {
    const auto outs = static_cast<std::int32_t>(dtypes.size()) - ins - inouts;
    for (std::size_t i = 0; i < resolved_.size(); ++i) {
      const Resolved& r = resolved_[i];
      if (r.ins == ins && r.inouts == inouts && r.dtypes == dtypes && name == r.kernel->name) return static_cast<std::int32_t>(i);
    }
    if (dtypes.size() > static_cast<std::size_t>(max_operands)) return -1;
    const Kernel* kernel = match(name, {dtypes.data(), ins, dtypes.data() + ins, inouts, dtypes.data() + ins + inouts, outs});
    if (kernel == nullptr) return -1;
    resolved_.push_back({kernel, dtypes, ins, inouts, outs, words(kernel->attributes)});
    return static_cast<std::int32_t>(resolved_.size() - 1);
  }

  const Resolved& at(double id) const {
    if (!(id >= 0 && id < static_cast<double>(resolved_.size()))) throw Error("BadKernel", "launch: kernel id " + std::to_string(id) + " is not of this backend");
    return resolved_[static_cast<std::size_t>(id)];
  }

  // The dtype combinations `name` exists in. A table only answers yes or no, so this asks it; meant for error messages.
  std::vector<std::string> supported(std::string_view name) const {
    std::vector<std::string> found;
    std::vector<const Kernel*> rows;
    each([&](const Kernel& k) {
      if (name == k.name) rows.push_back(&k);
    });
    if (rows.empty()) return found;
    int last = 0;  // the operand count something was found with: forms of one kernel differ by one optional operand
    for (int total = 1; total <= 12 && (last == 0 || total <= last + 1); ++total) {
      const std::size_t before = found.size();
      for (int outs = 0; outs <= 3 && outs <= total; ++outs)
        for (int inouts = 0; inouts <= 4 && outs + inouts <= total; ++inouts) combine(rows, total - outs - inouts, inouts, outs, found);
      if (found.size() > before) last = total;
    }
    return found;
  }

 private:
  template <class F> void each(F&& visit) const {
    for (const Kernel* const* file = files_; *file != nullptr; ++file)
      for (const Kernel* k = *file; k->name != nullptr; ++k) visit(*k);
  }

  const Kernel* match(std::string_view name, const Signature& signature) const {
    const Kernel* hit = nullptr;
    each([&](const Kernel& k) {
      if (hit == nullptr && name == k.name && (k.accepts == nullptr || k.accepts(signature))) hit = &k;
    });
    return hit;
  }

  static std::int32_t words(const char* text) {
    std::int32_t n = 0;
    for (bool inside = false; *text != 0; ++text) {
      if (*text != ' ' && !inside) ++n;
      inside = *text != ' ';
    }
    return n;
  }

  // Up to three operands: every dtype. More: one real dtype beside f32 and i32, which is what the kernel contract mixes.
  static void combine(const std::vector<const Kernel*>& rows, int ins, int inouts, int outs, std::vector<std::string>& found) {
    const int total = ins + inouts + outs;
    if (total <= 3) return enumerate(rows, ins, inouts, outs, {DType::f32, DType::bf16, DType::f16, DType::i32, DType::u8}, found);
    for (DType real : {DType::f32, DType::bf16, DType::f16}) {
      std::vector<DType> choice{real, DType::i32};
      if (real != DType::f32) choice.push_back(DType::f32);
      enumerate(rows, ins, inouts, outs, choice, found);
    }
  }

  static void enumerate(const std::vector<const Kernel*>& rows, int ins, int inouts, int outs, const std::vector<DType>& choice, std::vector<std::string>& found) {
    std::vector<DType> dtypes(static_cast<std::size_t>(ins + inouts + outs), choice[0]);
    std::vector<std::size_t> digit(dtypes.size(), 0);
    for (;;) {
      const Signature signature{dtypes.data(), ins, dtypes.data() + ins, inouts, dtypes.data() + ins + inouts, outs};
      bool has = false;
      for (const Kernel* k : rows) has = has || k->accepts == nullptr || k->accepts(signature);
      if (has) {
        std::string text = spell(dtypes, ins, inouts);
        bool known = false;
        for (const auto& f : found) known = known || f == text;
        if (!known) found.push_back(std::move(text));
      }
      std::size_t i = 0;
      for (; i < digit.size(); ++i) {
        digit[i] = (digit[i] + 1) % choice.size();
        dtypes[i] = choice[digit[i]];
        if (digit[i] != 0) break;
      }
      if (i == digit.size()) return;
    }
  }

  // 'f32, f32 -> f32', or with inouts 'f32 | bf16, i32 -> f32'.
  static std::string spell(const std::vector<DType>& dtypes, int ins, int inouts) {
    std::string text;
    for (std::size_t i = 0; i < dtypes.size(); ++i) {
      const auto at = static_cast<int>(i);
      if (at == ins + inouts) text += text.empty() ? "-> " : " -> ";
      else if (at == ins) text += text.empty() ? "| " : " | ";
      else if (at > 0) text += ", ";
      text += name_of(dtypes[i]);
    }
    return text;
  }

  const Kernel* const* files_;
  std::vector<Resolved> resolved_;
};

}  // namespace lomo
