// Test only: a double of NCCL. Calls are work of the double's streams: a rank's part begins when its stream comes to it, and ends when all
// ranks it needs have come as far; a send ends when it was received. Sums go round the ring: part c of the elements begins at rank c + 1
// and ends at rank c, rounded to the dtype at every hop. Ranks that do not say the same get an asynchronous error, and wait until they are
// aborted, as they would in NCCL.
// LOMO_DOUBLE_NCCL: the version, 22707 unless set.
#include <unistd.h>

#include <algorithm>
#include <random>

#include "double/mailbox.h"
#include "double/ranks.h"
#include "double/ring.h"

using namespace lomo;
using namespace lomo::nccl;
using twin::Kind, twin::Part, twin::leave, twin::rank_of, twin::ranks, twin::size_of, twin::world;
using Call = CommHandle::Call;

#define EXPORT(type) extern "C" __attribute__((visibility("default"))) type

namespace {

struct Group {
  int depth = 0;
  Result error = success;
  std::vector<std::pair<Comm, Call>> calls;
};
thread_local Group group;
thread_local std::string last;

Result refuse(Result r, const std::string& why) {
  last = "said by the host double: " + why;
  return r;
}

Result enqueue(Comm comm, Call call) {
  if (!comm->joined || comm->error != success) return refuse(invalid_usage, "a call on a communicator that is not ready");
  twin::enqueue_call(*comm, std::move(call));
  return success;
}

Result add(Comm comm, cu::Stream stream, const Part& part) {
  const std::lock_guard lock(world().mutex);
  const CommHandle* c = rank_of(comm);
  if (c == nullptr || world().streams.count(stream) == 0) return refuse(invalid_argument, "no such communicator or stream");
  const std::size_t bytes = part.count * size_of(part.type), all = bytes * static_cast<std::size_t>(c->size);
  const auto place = [](const void* p, std::size_t n) { return p == nullptr || n == 0 || twin::on_device(p, n) || twin::in_pinned(p, n); };
  if (!place(part.from, part.kind == Kind::reduce_scatter ? all : bytes) || !place(part.to, part.kind == Kind::all_gather ? all : bytes)) return group.error = refuse(invalid_argument, "memory that is not of the device");
  if (part.peer < 0 || part.peer >= c->size) return group.error = refuse(invalid_argument, "a rank outside the communicator");
  if (group.depth == 0) return enqueue(comm, {stream, 0, {part}});
  for (auto& [other, call] : group.calls) {
    if (other != comm) continue;
    if (call.stream != stream) return group.error = refuse(invalid_usage, "one group on two streams");
    call.parts.push_back(part);
    return success;
  }
  group.calls.push_back({comm, {stream, 0, {part}}});
  return success;
}

}  // namespace

EXPORT(Result) ncclGetVersion(int* version) {
  *version = static_cast<int>(twin::setting("LOMO_DOUBLE_NCCL", 22707));
  return success;
}
EXPORT(Result) ncclGetUniqueId(UniqueId* id) {
  std::random_device random;
  for (std::size_t i = 0; i < sizeof id->bytes; ++i) id->bytes[i] = "0123456789abcdef"[random() % 16];
  return success;
}
EXPORT(Result) ncclCommInitRankConfig(Comm* comm, int size, UniqueId id, int rank, Config* config) {
  const std::lock_guard lock(world().mutex);
  if (config->size != sizeof(Config) || config->magic != config_magic || config->blocking != 0 || config->traffic_class != undefined) return refuse(invalid_argument, "a configuration it does not know");
  if (size < 1 || rank < 0 || rank >= size) return refuse(invalid_argument, "a rank outside the communicator");
  auto made = std::make_unique<CommHandle>();
  made->folder = std::filesystem::path("/dev/shm") / ("lomo-nccl-" + std::string(id.bytes, 32));
  made->rank = rank, made->size = size, made->device = twin::current_device();
  std::error_code ignored;
  std::filesystem::create_directory(made->folder, ignored);
  if (!twin::appear(made->folder / ("here-" + std::to_string(rank)), {static_cast<int>(getpid()), made->device, size})) return refuse(invalid_usage, "rank " + std::to_string(rank) + " is there already");
  *comm = made.get();
  ranks().push_back(std::move(made));
  return in_progress;
}
EXPORT(Result) ncclCommGetAsyncError(Comm comm, Result* result) {
  const std::lock_guard lock(world().mutex);
  CommHandle* c = rank_of(comm);
  if (c == nullptr) return invalid_argument;
  if (!c->joined && c->error == success) {
    bool all = true, local = true;
    for (int r = 0; r < c->size; ++r) {
      const auto other = twin::look_up(c->folder / ("here-" + std::to_string(r)));
      if (other == nullptr) {
        all = false;
        continue;
      }
      if (other->size != c->size) twin::hurt(*c, "rank " + std::to_string(r) + " is one of " + std::to_string(other->size) + ", rank " + std::to_string(c->rank) + " one of " + std::to_string(c->size));
      if (r != c->rank && other->pid == getpid() && other->device == c->device) twin::hurt(*c, "ranks " + std::to_string(r) + " and " + std::to_string(c->rank) + " use the same GPU " + std::to_string(c->device));
      local = local && other->pid == getpid();
    }
    c->joined = all && c->error == success;
    c->local = local;
  }
  last = c->why;
  *result = c->error != success ? c->error : c->joined ? success : in_progress;
  return success;
}
EXPORT(const char*) ncclGetErrorString(Result r) {
  constexpr const char* texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument", "invalid usage", "remote process exited or there was a network error", "in progress"};
  return r >= 0 && r <= in_progress ? texts[r] : "unknown result code";
}
EXPORT(const char*) ncclGetLastError(Comm) { return last.c_str(); }
EXPORT(Result) ncclCommAbort(Comm comm) {
  std::unique_lock lock(world().mutex);
  CommHandle* c = rank_of(comm);
  if (c == nullptr) return invalid_argument;
  c->aborted = true;
  for (const auto& call : std::deque(c->calls))
    if (!call->stream->running) twin::advance(call->stream, call->position);
  leave(*c);
  std::erase_if(ranks(), [&](const auto& one) { return one.get() == comm; });
  world().progressed.notify_all();
  return success;
}
EXPORT(Result) ncclCommDestroy(Comm comm) {
  std::unique_lock lock(world().mutex);
  CommHandle* c = rank_of(comm);
  if (c == nullptr) return invalid_argument;
  for (const auto& call : std::deque(c->calls)) twin::await(lock, call->stream, call->position);
  leave(*c);
  std::erase_if(ranks(), [&](const auto& one) { return one.get() == comm; });
  return success;
}
EXPORT(Result) ncclGroupStart() {
  if (group.depth++ == 0) group.error = success, group.calls.clear();
  return success;
}
EXPORT(Result) ncclGroupEnd() {
  if (group.depth == 0) return refuse(invalid_usage, "a group that was not begun");
  if (--group.depth > 0) return success;
  if (group.error != success) return group.error;
  const std::lock_guard lock(world().mutex);
  for (auto& [comm, call] : group.calls)
    if (const Result r = enqueue(comm, std::move(call)); r != success) return r;
  return success;
}
EXPORT(Result) ncclAllReduce(const void* from, void* to, std::size_t n, DataType type, Operation o, Comm c, cu::Stream s) { return add(c, s, {Kind::all_reduce, from, to, n, type, o}); }
EXPORT(Result) ncclAllGather(const void* from, void* to, std::size_t n, DataType type, Comm c, cu::Stream s) { return add(c, s, {Kind::all_gather, from, to, n, type}); }
EXPORT(Result) ncclReduceScatter(const void* from, void* to, std::size_t n, DataType type, Operation o, Comm c, cu::Stream s) { return add(c, s, {Kind::reduce_scatter, from, to, n, type, o}); }
EXPORT(Result) ncclBroadcast(const void* from, void* to, std::size_t n, DataType type, int root, Comm c, cu::Stream s) { return add(c, s, {Kind::broadcast, from, to, n, type, 0, root}); }
EXPORT(Result) ncclSend(const void* from, std::size_t n, DataType type, int peer, Comm c, cu::Stream s) { return add(c, s, {Kind::send, from, nullptr, n, type, 0, peer}); }
EXPORT(Result) ncclRecv(void* to, std::size_t n, DataType type, int peer, Comm c, cu::Stream s) { return add(c, s, {Kind::receive, nullptr, to, n, type, 0, peer}); }
