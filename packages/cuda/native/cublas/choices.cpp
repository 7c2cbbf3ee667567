// Choosing by record, by measurement, by suggestion.
#include "cublas/choices.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "lomo/error.h"

namespace lomo {
namespace {

// Rows of the product that algorithms are asked for: a constant, so that no choice depends on how a step is cut into micro-batches.
constexpr std::int64_t asked_rows = 2048;
constexpr int most_candidates = 16, rounds = 3;
// A measurement is worth so much: within it the library's order decides, and runs agree more often.
constexpr double worth = 1.02;

std::string hex(const cublas::Algorithm& a) {
  std::string text;
  unsigned char bytes[sizeof a.data];
  std::memcpy(bytes, a.data, sizeof bytes);
  for (const unsigned char b : bytes) {
    text += "0123456789abcdef"[b >> 4];
    text += "0123456789abcdef"[b & 15];
  }
  return text;
}

std::optional<cublas::Algorithm> unhex(const std::string& text) {
  cublas::Algorithm a{};
  unsigned char bytes[sizeof a.data];
  if (text.size() != 2 * sizeof bytes) return std::nullopt;
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  for (std::size_t i = 0; i < sizeof bytes; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes[i] = static_cast<unsigned char>(high << 4 | low);
  }
  std::memcpy(a.data, bytes, sizeof bytes);
  return a;
}

std::size_t padded(std::int64_t elements, DType t) { return (static_cast<std::size_t>(elements) * size_of(t) + 255) / 256 * 256; }

// Where the operands of a product lie in a scratch, and its own workspace; `bytes` is what they take.
struct Laid {
  std::size_t a = 0, b = 0, c = 0, workspace = 0, bytes = 0;
  explicit Laid(const Product& p) {
    b = padded((p.ta ? p.k : p.m) * p.lda, p.in);
    c = b + padded((p.tb ? p.n : p.k) * p.ldb, p.in);
    workspace = c + padded(p.m * p.ldc, p.out);
    bytes = workspace + product_workspace;
  }
};

// Two events that tell time.
class Timer {
 public:
  Timer(const Driver& driver, cu::Stream stream) : driver_(driver), stream_(stream) {
    for (cu::Event& e : events_) driver_.check(driver_.event_create(&e, cu::event_blocking_sync), "cuEventCreate");
  }
  ~Timer() {
    for (const cu::Event e : events_)
      if (e != nullptr) driver_.event_destroy(e);
  }
  template <class F> double microseconds(F body) {
    driver_.check(driver_.event_record(events_[0], stream_), "cuEventRecord");
    body();
    driver_.check(driver_.event_record(events_[1], stream_), "cuEventRecord");
    driver_.check(driver_.event_synchronize(events_[1]), "cuEventSynchronize");
    float milliseconds = 0;
    driver_.check(driver_.event_elapsed(&milliseconds, events_[0], events_[1]), "cuEventElapsedTime");
    return static_cast<double>(milliseconds) * 1e3;
  }

 private:
  const Driver& driver_;
  cu::Stream stream_;
  cu::Event events_[2] = {};
};

// A problem for as long as it is needed.
class Posed {
 public:
  Posed(const CublasLt& lt, const Product& p) : lt_(lt), problem_(lt.create(p)) {}
  ~Posed() { lt_.destroy(problem_); }
  Posed(const Posed&) = delete;
  Posed& operator=(const Posed&) = delete;
  const Problem& operator*() const { return problem_; }

 private:
  const CublasLt& lt_;
  Problem problem_;
};

}  // namespace

Choice* Choices::known(const ProductClass& c) {
  const auto at = std::find_if(chosen_.begin(), chosen_.end(), [&](const Choice& one) { return one.of == c; });
  return at == chosen_.end() ? nullptr : &*at;
}

Choice& Choices::add(Choice choice) {
  const std::lock_guard lock(mutex_);
  return chosen_.emplace_back(std::move(choice));
}

void Choices::expect(const ProductClass& c) {
  const std::lock_guard lock(mutex_);
  if (std::find(expected_.begin(), expected_.end(), c) == expected_.end()) expected_.push_back(c);
}

cublas::Algorithm Choices::first(const ProductClass& c) const {
  const Posed posed(lt_, c.with(asked_rows));
  const auto found = lt_.suggest(*posed, c.wide, most_candidates);
  if (found.empty()) throw Error("CublasError", "cuda: cuBLASLt has no deterministic algorithm for products of " + c.spell() + " (" + lt_.path() + ")");
  return found.front().algorithm;
}

const Choice& Choices::of(const ProductClass& c) {
  {
    const std::lock_guard lock(mutex_);
    if (const Choice* one = known(c); one != nullptr) return *one;
    const std::string name = c.spell();
    for (const auto& [product, algorithm] : recorded_)
      if (product == name) return chosen_.emplace_back(Choice{c, algorithm, 0, 0, {}});
  }
  return add({c, first(c), 0, 0, {}});
}

cublas::Algorithm Choices::algorithm_for(const Problem& p, bool wide) {
  const Choice& choice = of(ProductClass(p.product, wide));
  if (lt_.fits(p, choice.algorithm)) return choice.algorithm;
  const auto found = lt_.suggest(p, wide, most_candidates);
  if (found.empty()) throw Error("CublasError", "cuda: cuBLASLt has no deterministic algorithm for " + std::to_string(p.product.m) + " rows of products of " + choice.of.spell() + " (" + lt_.path() + ")");
  const std::lock_guard lock(mutex_);
  known(choice.of)->not_for.push_back(p.product.m);
  return found.front().algorithm;
}

void Choices::tune(const Driver& driver, cu::Stream stream, void* scratch, std::size_t bytes) {
  std::vector<ProductClass> wanted;
  {
    const std::lock_guard lock(mutex_);
    for (const ProductClass& c : expected_) {
      const std::string name = c.spell();
      const bool recorded = std::any_of(recorded_.begin(), recorded_.end(), [&](const auto& one) { return one.first == name; });
      if (known(c) == nullptr && !recorded) wanted.push_back(c);
    }
  }
  auto* base = static_cast<char*>(scratch);
  // Small numbers rather than zeros, which cost a GPU less than real ones.
  driver.check(driver.memset8(reinterpret_cast<cu::Address>(base), 0x3c, bytes, stream), "cuMemsetD8Async");
  Timer timer(driver, stream);
  for (const ProductClass& c : wanted) {
    std::int64_t rows = asked_rows;
    while (rows > 64 && Laid(c.with(rows)).bytes > bytes) rows /= 2;
    const Laid at(c.with(rows));
    if (at.bytes > bytes) continue;  // chosen by suggestion when it comes
    // Candidates are those of the constant number of rows, whatever fits the scratch.
    const Posed asked(lt_, c.with(asked_rows)), measured(lt_, c.with(rows));
    auto found = lt_.suggest(*asked, c.wide, most_candidates);
    std::erase_if(found, [&](const cublas::Heuristic& h) { return !lt_.fits(*measured, h.algorithm); });
    if (found.empty()) continue;
    std::vector<double> times;
    for (const cublas::Heuristic& h : found) {
      const auto once = [&] { lt_.multiply(*measured, {base + at.a, base + at.b, base + at.c, 1.0f, 0.0f, base + at.workspace}, h.algorithm, stream); };
      once();  // loads its code
      double best = std::numeric_limits<double>::infinity();
      for (int i = 0; i < rounds; ++i) best = std::min(best, timer.microseconds(once));
      times.push_back(best);
    }
    const double fastest = *std::min_element(times.begin(), times.end());
    std::size_t chosen = 0;
    while (times[chosen] > worth * fastest) ++chosen;
    add({c, found[chosen].algorithm, times[chosen], static_cast<int>(found.size()), {}});
  }
  driver.check(driver.stream_synchronize(stream), "cuStreamSynchronize");
}

std::vector<Recorded> Choices::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<Recorded> all;
  for (const Choice& c : chosen_) all.push_back({c.of.spell(), hex(c.algorithm), c.microseconds, c.candidates, c.not_for});
  for (const auto& [product, algorithm] : recorded_)
    if (std::none_of(all.begin(), all.end(), [&, name = product](const Recorded& r) { return r.product == name; })) all.push_back({product, hex(algorithm), 0, 0, {}});
  return all;
}

void Choices::adopt(const std::vector<Recorded>& list) {
  std::vector<std::pair<std::string, cublas::Algorithm>> read;
  for (const Recorded& one : list) {
    const auto algorithm = unhex(one.algorithm);
    if (!algorithm) throw Error("BadOption", "cuda: the recorded algorithm of '" + one.product + "' is not " + std::to_string(2 * sizeof(cublas::Algorithm)) + " hexadecimal digits: leave `algorithms` out to choose anew");
    read.emplace_back(one.product, *algorithm);
  }
  const std::lock_guard lock(mutex_);
  recorded_ = std::move(read);
}

}  // namespace lomo
