// Test only: files in shared memory.
#include "double/mailbox.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace lomo::twin {
namespace {

struct Head {
  Note note;
  std::atomic<unsigned> taken{0}, refused{0};
};
constexpr std::size_t head_bytes = (sizeof(Head) + 63) / 64 * 64;
static_assert(std::atomic<unsigned>::is_always_lock_free);

// A name for what is not whole yet.
std::filesystem::path partial(const std::filesystem::path& path) { return path.parent_path() / ("." + path.filename().string() + "." + std::to_string(getpid())); }

void write_all(int file, const void* data, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes;) {
    const ssize_t n = write(file, static_cast<const char*>(data) + at, bytes - at);
    if (n <= 0) throw std::runtime_error("the double's shared memory is full");
    at += static_cast<std::size_t>(n);
  }
}

}  // namespace

bool Note::operator==(const Note& o) const { return std::strcmp(kind, o.kind) == 0 && count == o.count && type == o.type && operation == o.operation && root == o.root; }

std::string Note::text() const {
  return std::string(kind) + " of " + std::to_string(count) + " elements of type " + std::to_string(type) + ", operation " + std::to_string(operation) + ", root " + std::to_string(root);
}

std::unique_ptr<Letter> Letter::open(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return nullptr;
  struct stat about {};
  fstat(file, &about);
  void* p = mmap(nullptr, static_cast<std::size_t>(about.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (p == MAP_FAILED) return nullptr;
  auto letter = std::unique_ptr<Letter>(new Letter);
  letter->mapped_ = p;
  letter->bytes_ = static_cast<std::size_t>(about.st_size);
  return letter;
}
Letter::~Letter() { munmap(mapped_, bytes_); }
const Note& Letter::note() const { return static_cast<const Head*>(mapped_)->note; }
const unsigned char* Letter::data() const { return static_cast<const unsigned char*>(mapped_) + head_bytes; }
void Letter::take() { ++static_cast<Head*>(mapped_)->taken; }
void Letter::refuse() { static_cast<Head*>(mapped_)->refused = 1; }
unsigned Letter::taken() const { return static_cast<const Head*>(mapped_)->taken; }
bool Letter::refused() const { return static_cast<const Head*>(mapped_)->refused != 0; }

void publish(const std::filesystem::path& path, const Note& note, const void* data, std::size_t bytes) {
  const auto unfinished = partial(path);
  const int file = ::open(unfinished.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) throw std::runtime_error("the double's shared memory: " + unfinished.string() + ": " + std::strerror(errno));
  std::vector<unsigned char> head(head_bytes, 0);
  new (head.data()) Head{note, {}, {}};
  write_all(file, head.data(), head.size());
  write_all(file, data, bytes);
  close(file);
  std::filesystem::rename(unfinished, path);
}

bool appear(const std::filesystem::path& path, const Presence& presence) {
  const auto unfinished = partial(path);
  const int file = ::open(unfinished.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return false;
  write_all(file, &presence, sizeof presence);
  close(file);
  const bool first = link(unfinished.c_str(), path.c_str()) == 0;
  unlink(unfinished.c_str());
  return first;
}

std::unique_ptr<Presence> look_up(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return nullptr;
  auto p = std::make_unique<Presence>();
  const bool whole = read(file, p.get(), sizeof *p) == static_cast<ssize_t>(sizeof *p);
  close(file);
  return whole ? std::move(p) : nullptr;
}

bool alive(int pid) { return kill(pid, 0) == 0 || errno == EPERM; }

}  // namespace lomo::twin
