// Test only: the ranks of the NCCL double and what they have enqueued. All of it under the world's mutex.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "double/world.h"
#include "nccl/api.h"

namespace lomo::twin {

enum class Kind { send, receive, all_reduce, all_gather, reduce_scatter, broadcast };

struct Part {
  Kind kind;
  const void* from;
  void* to;
  std::size_t count;
  nccl::DataType type;
  nccl::Operation operation = 0;
  int peer = 0;               // or the root
  std::uint64_t number = 0;   // of its kind and peer, or of the collectives
  bool given = false, done = false;
};

}  // namespace lomo::twin

namespace lomo::nccl {

struct CommHandle {
  struct Call {
    cu::Stream stream;
    std::uint64_t position;
    std::vector<twin::Part> parts;
  };
  std::filesystem::path folder;
  int rank = 0, size = 0, device = 0;
  bool joined = false, aborted = false, local = true;
  std::deque<std::shared_ptr<Call>> calls;  // enqueued and not done
  std::map<int, std::uint64_t> sent, received;
  std::uint64_t collectives = 0;
  std::vector<std::filesystem::path> given;  // what others may still read
  Result error = success;
  std::string why;
};

}  // namespace lomo::nccl

namespace lomo::twin {

// The ranks of this process.
std::vector<std::unique_ptr<nccl::CommHandle>>& ranks();
nccl::CommHandle* rank_of(nccl::Comm comm);  // null where it is none
// A rank's first mistake.
void hurt(nccl::CommHandle& c, const std::string& why);
// Work of the call's stream from now on.
void enqueue_call(nccl::CommHandle& c, nccl::CommHandle::Call call);
// The rank's files go with the last rank.
void leave(nccl::CommHandle& c);

}  // namespace lomo::twin
