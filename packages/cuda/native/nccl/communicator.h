// A rank's end of an NCCL communicator. Work is enqueued from the executor's thread and never waited for; a thread of the communicator's
// own joins it, looks for asynchronous errors and for work that does not end, and aborts: whoever waits for the GPU is then set free.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "driver/driver.h"
#include "lomo/kernel.h"
#include "nccl/library.h"

namespace lomo {

// What is sent to, or received from, another rank.
struct Parcel {
  void* data = nullptr;
  std::int64_t count = 0;
  DType dtype = DType::f32;
  int peer = 0;
  bool sent = false;
};
constexpr int most_parcels = 8;

struct Membership {
  int rank = 0, size = 1;
  nccl::UniqueId id{};
  std::chrono::milliseconds timeout{0};
};

class Communicator {
 public:
  // Returns at once; the ranks meet in the background. `failed` becomes true with the first failure.
  Communicator(const Driver& driver, cu::Context context, const Nccl& nccl, const Membership& membership, std::atomic<bool>& failed);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return is_.rank; }
  int size() const { return is_.size; }

  // The executor's thread. All throw what ended the communicator: CommunicatorAborted, CommunicatorTimeout, NcclError. Counts are those of
  // one rank's part.
  void all_reduce(void* data, std::int64_t count, DType dtype, nccl::Operation operation, cu::Stream stream);
  void all_gather(void* to, const void* from, std::int64_t count, DType dtype, cu::Stream stream);
  void reduce_scatter(void* to, const void* from, std::int64_t count, DType dtype, nccl::Operation operation, cu::Stream stream);
  void broadcast(void* data, std::int64_t count, DType dtype, int root, cu::Stream stream);
  // All parcels at once: none waits for another.
  void exchange(const Parcel* parcels, int count, cu::Stream stream);

  // Any thread. The first reason is kept; work under way ends without a result.
  void abort(const std::string& why);
  // Any thread: aborts if work is under way, and takes no more.
  void interrupt();
  // Throws what ended the communicator, if something did.
  void check();

 private:
  using Clock = std::chrono::steady_clock;
  // Work of one call, for errors.
  struct Work {
    const char* verb = "";
    std::uint64_t number = 0;  // of this communicator's calls, from 1
    std::int64_t count = 0;
    DType dtype = DType::f32;
    int parcels = 0;
    Parcel parcel[most_parcels];
  };
  struct Watched {
    cu::Event start = nullptr, end = nullptr;
    Work work;
    bool began = false;
    Clock::time_point since;
  };

  template <class F> void enqueue(Work work, cu::Stream stream, F calls);
  void watch();
  void join();
  void look();
  bool under_way();
  void fail(const char* code, const std::string& text);
  void leave(bool abort);
  std::string name() const;  // 'rank 0 of 2'
  static std::string spell(const Work& work);

  const Driver& driver_;
  cu::Context context_;
  const Nccl& nccl_;
  const Membership is_;
  std::atomic<bool>& any_failed_;

  std::mutex calls_;  // around NCCL's calls, which are not for two threads at once
  nccl::Comm comm_ = nullptr;

  std::mutex state_;
  std::condition_variable changed_;
  bool ready_ = false, enqueuing_ = false, closing_ = false, stopping_ = false, failed_ = false;
  std::string code_, text_;
  std::deque<std::unique_ptr<Watched>> watched_;
  std::vector<std::unique_ptr<Watched>> spare_;
  std::uint64_t number_ = 0;

  std::thread thread_;  // last: it starts when all else is there
};

// The communicators of a backend, by number; NCCL is opened with the first.
class Communicators {
 public:
  Communicators(const Driver& driver, std::string path, std::vector<std::string> folders) : driver_(driver), path_(std::move(path)), folders_(std::move(folders)) {}
  // JavaScript's thread. Throws what Nccl throws.
  const Nccl& nccl();
  // JavaScript's thread. Returns the communicator's number.
  int add(cu::Context context, const Membership& membership);
  // Any thread. Throws BadCommunicator.
  Communicator& at(double number);
  // Throws the failure of one that failed; cheap where none did.
  void check();
  void interrupt();
  void close();

 private:
  const Driver& driver_;
  std::string path_;
  std::vector<std::string> folders_;
  std::unique_ptr<Nccl> nccl_;
  std::mutex mutex_;
  std::deque<std::unique_ptr<Communicator>> all_;
  std::atomic<bool> failed_{false};
};

}  // namespace lomo
