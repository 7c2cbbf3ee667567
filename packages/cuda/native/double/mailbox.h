// Test only: what ranks of the NCCL double give one another: files in shared memory, so that ranks may be threads or processes.
// A publication appears whole, by rename; whoever takes it counts itself in.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace lomo::twin {

// What a rank says of its part of a call; all ranks of a collective must say the same.
struct Note {
  char kind[16] = "";
  std::int64_t count = 0;  // elements of one rank's part
  int type = 0, operation = 0, root = 0;
  bool operator==(const Note& other) const;
  std::string text() const;  // 'all_reduce of 16 elements of type 7'
};

// A publication of another rank, seen in place.
class Letter {
 public:
  static std::unique_ptr<Letter> open(const std::filesystem::path& path);  // null while it is not there
  ~Letter();
  Letter(const Letter&) = delete;
  Letter& operator=(const Letter&) = delete;
  const Note& note() const;
  const unsigned char* data() const;
  void take();             // once for each rank that needs no more of it
  void refuse();           // whoever gave it learns that nobody will take it
  unsigned taken() const;
  bool refused() const;

 private:
  Letter() = default;
  void* mapped_ = nullptr;
  std::size_t bytes_ = 0;
};

// Throws std::runtime_error where shared memory is full.
void publish(const std::filesystem::path& path, const Note& note, const void* data, std::size_t bytes);

// Ranks that are there, as files of a folder: <name>-<rank> with a process id, a device and a size.
struct Presence {
  int pid = 0, device = 0, size = 0;
};
// False where that rank is there already.
bool appear(const std::filesystem::path& path, const Presence& presence);
std::unique_ptr<Presence> look_up(const std::filesystem::path& path);
bool alive(int pid);

}  // namespace lomo::twin
