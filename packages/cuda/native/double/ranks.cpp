// Test only: how ranks of the NCCL double come together.
#include "double/ranks.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "double/mailbox.h"
#include "double/ring.h"

namespace lomo::twin {

using nccl::CommHandle;
using nccl::success;
using Call = CommHandle::Call;

namespace {

constexpr const char* names[] = {"send", "receive", "all_reduce", "all_gather", "reduce_scatter", "broadcast"};

std::filesystem::path letter_of(const CommHandle& c, const Part& p, int from, int to) {
  if (p.kind == Kind::send || p.kind == Kind::receive) return c.folder / ("p" + std::to_string(from) + "-" + std::to_string(to) + "-" + std::to_string(p.number));
  return c.folder / ("c" + std::to_string(p.number) + "-" + std::to_string(from));
}

Note note_of(const Part& p) {
  Note n;
  std::strcpy(n.kind, p.kind == Kind::receive ? "send" : names[static_cast<int>(p.kind)]);
  n.count = static_cast<std::int64_t>(p.count), n.type = p.type, n.operation = p.operation;
  n.root = p.kind == Kind::broadcast ? p.peer : 0;
  return n;
}

std::size_t given_bytes(const CommHandle& c, const Part& p) {
  const std::size_t part = p.count * size_of(p.type);
  return p.kind == Kind::reduce_scatter ? part * static_cast<std::size_t>(c.size) : p.kind == Kind::broadcast && p.peer != c.rank ? 0 : part;
}

// Letters that all have read are thrown away.
void tidy(CommHandle& c) {
  std::erase_if(c.given, [&](const auto& path) {
    const auto letter = Letter::open(path);
    if (letter != nullptr && letter->taken() + 1 < static_cast<unsigned>(c.size)) return false;
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    return true;
  });
}

void collect(CommHandle& c, Part& p) {
  std::vector<std::unique_ptr<Letter>> letters;
  std::vector<const unsigned char*> data;
  for (int r = 0; r < c.size; ++r) {
    letters.push_back(Letter::open(letter_of(c, p, r, r)));
    if (letters.back() == nullptr) return;
    data.push_back(letters.back()->data());
  }
  for (int r = 0; r < c.size; ++r)
    if (!(letters[static_cast<std::size_t>(r)]->note() == note_of(p)))
      return hurt(c, "collective " + std::to_string(p.number) + " is " + note_of(p).text() + " on rank " + std::to_string(c.rank) + ", but " + letters[static_cast<std::size_t>(r)]->note().text() + " on rank " + std::to_string(r));
  auto* to = static_cast<unsigned char*>(p.to);
  const std::size_t bytes = p.count * size_of(p.type);
  switch (p.kind) {
    case Kind::all_reduce:
      for (int k = 0; k < c.size; ++k) {
        const auto [from, n] = piece(p.count, c.size, k);
        if (n > 0) ring(to + from * size_of(p.type), data, from, n, k, p.type, p.operation);
      }
      break;
    case Kind::reduce_scatter: ring(to, data, static_cast<std::size_t>(c.rank) * p.count, p.count, c.rank, p.type, p.operation); break;
    case Kind::all_gather:
      for (int r = 0; r < c.size; ++r) std::memcpy(to + static_cast<std::size_t>(r) * bytes, data[static_cast<std::size_t>(r)], bytes);
      break;
    default:
      if (c.rank != p.peer) std::memcpy(to, data[static_cast<std::size_t>(p.peer)], bytes);
  }
  for (int r = 0; r < c.size; ++r)
    if (r != c.rank) letters[static_cast<std::size_t>(r)]->take();
  p.done = true;
}

void pass(CommHandle& c, Part& p) {
  const bool sends = p.kind == Kind::send;
  const auto letter = Letter::open(sends ? letter_of(c, p, c.rank, p.peer) : letter_of(c, p, p.peer, c.rank));
  if (letter == nullptr) return;
  if (sends) {
    if (letter->refused()) return hurt(c, "send " + std::to_string(p.number) + " to rank " + std::to_string(p.peer) + " of " + note_of(p).text() + " is not what that rank receives");
    if (letter->taken() == 0) return;
    std::error_code ignored;
    std::filesystem::remove(letter_of(c, p, c.rank, p.peer), ignored);
  } else {
    if (!(letter->note() == note_of(p))) {
      letter->refuse();
      return hurt(c, "rank " + std::to_string(c.rank) + " receives " + std::to_string(p.count) + " elements of type " + std::to_string(p.type) + " from rank " + std::to_string(p.peer) + ", whose send " +
                         std::to_string(p.number) + " has " + std::to_string(letter->note().count) + " of type " + std::to_string(letter->note().type));
    }
    std::memcpy(p.to, letter->data(), p.count * size_of(p.type));
    letter->take();
  }
  p.done = true;
}

// Other ranks of this process come as far as they can: their GPUs work by themselves.
void ask(CommHandle& c) {
  for (const auto& other : ranks()) {
    if (other.get() == &c || other->folder != c.folder || other->aborted) continue;
    for (const auto& call : std::deque(other->calls))
      if (!call->stream->running) advance(call->stream, call->position);
  }
}

// A call's work: true when it is done.
bool progress(CommHandle& c, const std::shared_ptr<Call>& call) {
  if (c.aborted) {
    for (const Part& p : call->parts)
      if (p.to != nullptr && !p.done) std::memset(p.to, 0xff, p.count * size_of(p.type));
    std::erase(c.calls, call);
    return true;
  }
  if (c.error != success) return false;
  // Within a communicator one call is done after another, whatever their streams.
  while (c.calls.front() != call) {
    const auto first = c.calls.front();
    if (first->stream->running) return false;
    advance(first->stream, first->position);
    if (!c.calls.empty() && c.calls.front() == first) return false;
  }
  const auto attempt = [&] {
    bool all = true;
    for (Part& p : call->parts) {
      if (!p.given && p.kind != Kind::receive) {
        const auto path = letter_of(c, p, c.rank, p.peer);
        publish(path, note_of(p), p.from, given_bytes(c, p));
        if (p.kind != Kind::send) c.given.push_back(path);
        p.given = true;
      }
      if (!p.done && c.error == success) p.kind == Kind::send || p.kind == Kind::receive ? pass(c, p) : collect(c, p);
      all = all && p.done;
    }
    return all;
  };
  bool over = attempt();
  if (!over) {
    ask(c);
    over = attempt();
  }
  if (!over) return false;
  std::erase(c.calls, call);
  tidy(c);
  world().progressed.notify_all();
  return true;
}

}  // namespace

std::vector<std::unique_ptr<CommHandle>>& ranks() {
  static auto* const all = new std::vector<std::unique_ptr<CommHandle>>;  // other threads may outlive static destructors
  return *all;
}

CommHandle* rank_of(nccl::Comm comm) {
  for (const auto& one : ranks())
    if (one.get() == comm) return comm;
  return nullptr;
}

void hurt(CommHandle& c, const std::string& why) {
  if (c.error != success) return;
  c.error = nccl::invalid_usage;
  c.why = "said by the host double: " + why;
}

void enqueue_call(CommHandle& c, Call call) {
  for (Part& p : call.parts) p.number = p.kind == Kind::send ? ++c.sent[p.peer] : p.kind == Kind::receive ? ++c.received[p.peer] : ++c.collectives;
  auto kept = std::make_shared<Call>(std::move(call));
  kept->position = kept->stream->enqueued + 1;
  c.calls.push_back(kept);
  enqueue_until(kept->stream, [comm = &c, kept] { return rank_of(comm) == nullptr || progress(*comm, kept); });
  if (c.local) return;
  // Ranks of other processes cannot ask this one's streams: somebody does, a little later, as a GPU would by itself.
  std::thread([kept] {
    const auto enqueued = [&](const auto& one) { return std::find(one->calls.begin(), one->calls.end(), kept) != one->calls.end(); };
    for (;;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      const std::lock_guard lock(world().mutex);
      if (world().lost != cu::success || std::none_of(ranks().begin(), ranks().end(), enqueued)) return;
      if (!kept->stream->running) advance(kept->stream, kept->position);
    }
  }).detach();
}

void leave(CommHandle& c) {
  const auto mark = [&](const char* what, int rank) { return c.folder / (what + std::to_string(rank)); };
  tidy(c);
  appear(mark("left-", c.rank), {static_cast<int>(getpid()), c.device, c.size});
  bool last_one = true;
  for (int r = 0; r < c.size; ++r) {
    const auto here = look_up(mark("here-", r));
    last_one = last_one && (here == nullptr || look_up(mark("left-", r)) != nullptr || !alive(here->pid));
  }
  std::error_code ignored;
  if (last_one) std::filesystem::remove_all(c.folder, ignored);
}

}  // namespace lomo::twin
