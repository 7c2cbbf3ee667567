// Enqueues on NCCL, watches what was enqueued, ends what does not end.
#include "nccl/communicator.h"

#include <cstdio>

#include "lomo/error.h"
#include "lomo/registry.h"

namespace lomo {
namespace {

nccl::DataType type_of(DType t) {
  switch (t) {
    case DType::f32: return nccl::type_f32;
    case DType::bf16: return nccl::type_bf16;
    case DType::f16: return nccl::type_f16;
    case DType::i32: return nccl::type_i32;
    case DType::u8: return nccl::type_u8;
  }
  return nccl::type_u8;
}

std::string seconds(std::chrono::steady_clock::duration d) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", std::chrono::duration<double>(d).count());
  return text;
}

std::string amount(std::int64_t n, DType t) { return std::to_string(n) + " " + name_of(t); }

constexpr const char* closed = "its backend was closed while work was under way";
constexpr auto glance = std::chrono::milliseconds(20);

}  // namespace

Communicator::Communicator(const Driver& driver, cu::Context context, const Nccl& nccl, const Membership& membership, std::atomic<bool>& failed)
    : driver_(driver), context_(context), nccl_(nccl), is_(membership), any_failed_(failed), thread_([this] { watch(); }) {}

Communicator::~Communicator() {
  {
    const std::lock_guard lock(state_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  const auto forget = [this](const Watched& w) { driver_.event_destroy(w.start), driver_.event_destroy(w.end); };
  for (const auto& w : spare_) forget(*w);
  for (const auto& w : watched_) forget(*w);
}

std::string Communicator::name() const { return "rank " + std::to_string(is_.rank) + " of " + std::to_string(is_.size); }

std::string Communicator::spell(const Work& w) {
  std::string text = std::string(w.verb) + " (call " + std::to_string(w.number) + " of this communicator";
  if (w.parcels == 0) text += ", " + amount(w.count, w.dtype);
  for (int i = 0; i < w.parcels; ++i) {
    const Parcel& p = w.parcel[i];
    text += std::string(i == 0 ? ": " : ", ") + (p.sent ? "sends " : "receives ") + amount(p.count, p.dtype) + (p.sent ? " to rank " : " from rank ") + std::to_string(p.peer);
  }
  return text + ")";
}

void Communicator::fail(const char* code, const std::string& text) {
  {
    const std::lock_guard lock(state_);
    if (failed_) return;
    failed_ = true;
    code_ = code;
    text_ = text;
  }
  any_failed_.store(true, std::memory_order_release);
  changed_.notify_all();
}

void Communicator::check() {
  const std::lock_guard lock(state_);
  if (failed_) throw Error(code_, text_);
}

void Communicator::abort(const std::string& why) { fail("CommunicatorAborted", "cuda: " + name() + ": the communicator was aborted: " + why); }

bool Communicator::under_way() {
  const std::lock_guard lock(state_);
  for (const auto& w : watched_)
    if (driver_.event_query(w->end) == cu::not_ready) return true;
  return false;
}

void Communicator::interrupt() {
  driver_.context_set(context_);
  bool busy;
  {
    const std::lock_guard lock(state_);
    closing_ = true;
    busy = enqueuing_;
  }
  if (busy || under_way()) abort(closed);
}

// Ends NCCL's side, once.
void Communicator::leave(bool abort) {
  const std::lock_guard lock(calls_);
  if (comm_ == nullptr) return;
  // Nothing follows that could act on a result.
  if (abort) nccl_.abort(comm_);
  else nccl_.destroy(comm_);
  comm_ = nullptr;
}

void Communicator::join() {
  const auto began = Clock::now();
  nccl::Result r;
  {
    const std::lock_guard lock(calls_);
    nccl::Config config = nccl::config;
    r = nccl_.init_rank(&comm_, is_.size, is_.id, is_.rank, &config);
  }
  while (r == nccl::in_progress) {
    {
      std::unique_lock lock(state_);
      changed_.wait_for(lock, std::chrono::milliseconds(2), [this] { return stopping_ || failed_; });
      if (stopping_ || failed_) return;
    }
    if (Clock::now() - began > is_.timeout)
      return fail("CommunicatorTimeout", "cuda: " + name() + ": not all ranks came to the communicator within " + seconds(is_.timeout) + ": did one fail to start, or get another id or size?");
    const std::lock_guard lock(calls_);
    if (const nccl::Result asked = nccl_.async_error(comm_, &r); asked != nccl::success) r = asked;
  }
  if (r != nccl::success) return fail("NcclError", "cuda: " + name() + ": the communicator could not be made: " + nccl_.spell(r, comm_) + "; NCCL_DEBUG=INFO makes NCCL say more");
  {
    const std::lock_guard lock(state_);
    ready_ = true;
  }
  changed_.notify_all();
}

// One look at NCCL's state and at the oldest work.
void Communicator::look() {
  {
    std::string why;
    {
      const std::lock_guard lock(calls_);
      nccl::Result r = nccl::success;
      const nccl::Result asked = nccl_.async_error(comm_, &r);
      if (asked != nccl::success) r = asked;
      if (r != nccl::success && r != nccl::in_progress) why = nccl_.spell(r, comm_);
    }
    if (!why.empty()) return fail("NcclError", "cuda: " + name() + ": " + why);
  }
  std::string late;
  {
    const std::lock_guard lock(state_);
    while (!watched_.empty() && late.empty()) {
      Watched& w = *watched_.front();
      // Where the driver refuses, the context is lost, which the executor will find out.
      if (driver_.event_query(w.end) != cu::not_ready) {
        spare_.push_back(std::move(watched_.front()));
        watched_.pop_front();
        continue;
      }
      if (!w.began && driver_.event_query(w.start) != cu::not_ready) {
        w.began = true;
        w.since = Clock::now();
      }
      if (w.began && Clock::now() - w.since > is_.timeout)
        late = spell(w.work) + " began " + seconds(Clock::now() - w.since) + " ago and has not ended: another rank is gone, or has not enqueued what matches it, or has enqueued it behind something that waits for this rank";
      break;
    }
  }
  if (!late.empty()) fail("CommunicatorTimeout", "cuda: " + name() + ": " + late);
}

void Communicator::watch() {
  driver_.context_set(context_);
  join();
  for (;;) {
    {
      std::unique_lock lock(state_);
      changed_.wait_for(lock, glance, [this] { return stopping_ || failed_; });
      if (stopping_ || failed_) break;
    }
    look();
  }
  bool abort;
  {
    const std::lock_guard lock(state_);
    abort = failed_;
  }
  leave(abort || under_way());
}

template <class F> void Communicator::enqueue(Work work, cu::Stream stream, F calls) {
  std::unique_ptr<Watched> watched;
  {
    std::unique_lock lock(state_);
    enqueuing_ = true;
    changed_.wait(lock, [this] { return ready_ || failed_ || closing_; });
    work.number = ++number_;
    if (!spare_.empty()) {
      watched = std::move(spare_.back());
      spare_.pop_back();
    }
  }
  check();
  if (watched == nullptr) {
    watched = std::make_unique<Watched>();
    driver_.check(driver_.event_create(&watched->start, cu::event_no_timing), "cuEventCreate");
    driver_.check(driver_.event_create(&watched->end, cu::event_no_timing), "cuEventCreate");
  }
  watched->work = work;
  watched->began = false;
  driver_.check(driver_.event_record(watched->start, stream), "cuEventRecord");
  nccl::Result r;
  const auto began = Clock::now();
  {
    const std::lock_guard lock(calls_);
    if (comm_ == nullptr) r = nccl::in_progress;  // failed just now: found below
    else {
      r = nccl_.group_start();
      if (r == nccl::success) {
        const nccl::Result called = calls();
        r = nccl_.group_end();
        if (called != nccl::success && called != nccl::in_progress) r = called;
      }
    }
  }
  // Where channels to other ranks must be opened first, NCCL enqueues a little later.
  for (auto pause = std::chrono::microseconds(20); r == nccl::in_progress; pause = std::min(2 * pause, std::chrono::microseconds(1000))) {
    check();
    if (Clock::now() - began > is_.timeout) fail("CommunicatorTimeout", "cuda: " + name() + ": " + spell(work) + " could not be started within " + seconds(is_.timeout) + ": do all ranks call the same, in the same order?");
    std::this_thread::sleep_for(pause);
    const std::lock_guard lock(calls_);
    if (comm_ == nullptr) continue;
    if (const nccl::Result asked = nccl_.async_error(comm_, &r); asked != nccl::success) r = asked;
  }
  if (r != nccl::success) {
    std::string why;
    {
      const std::lock_guard lock(calls_);
      why = nccl_.spell(r, comm_);
    }
    fail("NcclError", "cuda: " + name() + ": " + spell(work) + ": " + why);
    check();
  }
  driver_.check(driver_.event_record(watched->end, stream), "cuEventRecord");
  bool closing;
  {
    const std::lock_guard lock(state_);
    watched_.push_back(std::move(watched));
    enqueuing_ = false;
    closing = closing_;
  }
  if (closing) abort(closed);  // whoever closed did not see it
}

void Communicator::all_reduce(void* data, std::int64_t count, DType dtype, nccl::Operation operation, cu::Stream stream) {
  enqueue({"all_reduce", 0, count, dtype, 0, {}}, stream, [&] { return nccl_.all_reduce(data, data, static_cast<std::size_t>(count), type_of(dtype), operation, comm_, stream); });
}

void Communicator::all_gather(void* to, const void* from, std::int64_t count, DType dtype, cu::Stream stream) {
  enqueue({"all_gather", 0, count, dtype, 0, {}}, stream, [&] { return nccl_.all_gather(from, to, static_cast<std::size_t>(count), type_of(dtype), comm_, stream); });
}

void Communicator::reduce_scatter(void* to, const void* from, std::int64_t count, DType dtype, nccl::Operation operation, cu::Stream stream) {
  enqueue({"reduce_scatter", 0, count, dtype, 0, {}}, stream, [&] { return nccl_.reduce_scatter(from, to, static_cast<std::size_t>(count), type_of(dtype), operation, comm_, stream); });
}

void Communicator::broadcast(void* data, std::int64_t count, DType dtype, int root, cu::Stream stream) {
  enqueue({"broadcast", 0, count, dtype, 0, {}}, stream, [&] { return nccl_.broadcast(data, data, static_cast<std::size_t>(count), type_of(dtype), root, comm_, stream); });
}

void Communicator::exchange(const Parcel* parcels, int count, cu::Stream stream) {
  Work work{"exchange", 0, 0, DType::f32, count, {}};
  for (int i = 0; i < count; ++i) work.parcel[i] = parcels[i];
  enqueue(work, stream, [&] {
    for (int i = 0; i < count; ++i) {
      const Parcel& p = parcels[i];
      const auto n = static_cast<std::size_t>(p.count);
      const nccl::Result r = p.sent ? nccl_.send(p.data, n, type_of(p.dtype), p.peer, comm_, stream) : nccl_.receive(p.data, n, type_of(p.dtype), p.peer, comm_, stream);
      if (r != nccl::success && r != nccl::in_progress) return r;
    }
    return nccl::Result{nccl::success};
  });
}

const Nccl& Communicators::nccl() {
  if (nccl_ == nullptr) nccl_ = std::make_unique<Nccl>(path_, folders_);
  return *nccl_;
}

int Communicators::add(cu::Context context, const Membership& membership) {
  auto made = std::make_unique<Communicator>(driver_, context, nccl(), membership, failed_);
  const std::lock_guard lock(mutex_);
  all_.push_back(std::move(made));
  return static_cast<int>(all_.size() - 1);
}

Communicator& Communicators::at(double number) {
  const std::lock_guard lock(mutex_);
  if (!(number >= 0 && number < static_cast<double>(all_.size()))) throw Error("BadCommunicator", "communicator " + std::to_string(static_cast<long long>(number)) + " is not of this backend");
  return *all_[static_cast<std::size_t>(number)];
}

void Communicators::check() {
  if (!failed_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  for (const auto& c : all_) c->check();
}

void Communicators::interrupt() {
  const std::lock_guard lock(mutex_);
  for (const auto& c : all_) c->interrupt();
}

void Communicators::close() {
  const std::lock_guard lock(mutex_);
  all_.clear();
}

}  // namespace lomo
