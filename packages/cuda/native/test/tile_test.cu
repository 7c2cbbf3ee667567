// Tiles of shared memory: the two ways to spell a place agree, no two chunks share one, and no access that the kernels make of eight
// rows, or of eight chunks of a row, meets a bank twice.
#define LOMO_DEVICE
#define LOMO_FIBER
#include "gpu/fragment.h"

#include <cstdio>
#include <set>
#include <string>

namespace {

using namespace lomo::gpu;

int failures = 0, passed = 0;
void check(bool ok, const std::string& what) {
  ++(ok ? passed : failures);
  if (!ok) std::printf("FAILED %s\n", what.c_str());
}

// Which eighth of the 32 banks the 16 bytes at `place` lie in.
template <class T> int eighth(int place) { return place * static_cast<int>(sizeof(T)) / 16 % 8; }

template <class T, int D> void prove() {
  using L = Tile<T, D>;
  const std::string name = std::to_string(sizeof(T)) + " bytes, " + std::to_string(D) + " columns: ";
  bool agree = true, rows_apart = true, pairs_apart = true, chunks_apart = true;
  std::set<int> all;
  for (int row = 0; row < 64; ++row)
    for (int chunk = 0; chunk < L::chunks; ++chunk) {
      const int place = L::place(row, chunk);
      all.insert(place);
      agree = agree && place == L::move(L::place(row, chunk % 2), chunk & ~1) && place == L::move(L::place(row % 8, 0), chunk) + row / 8 * 8 * D;
      if (chunk % 8 == 0) {
        std::set<int> banks;
        for (int c = 0; c < 8; ++c) banks.insert(eighth<T>(L::place(row, chunk + c)));
        chunks_apart = chunks_apart && banks.size() == 8;
      }
      if (row % 8 == 0) {
        std::set<int> banks, even, odd;
        for (int r = 0; r < 8; ++r) banks.insert(eighth<T>(L::place(row + r, chunk)));
        for (int t = 0; t < 4; ++t) even.insert(eighth<T>(L::place(row + 2 * t, chunk))), odd.insert(eighth<T>(L::place(row + 2 * t + 1, chunk)));
        rows_apart = rows_apart && banks.size() == 8;
        pairs_apart = pairs_apart && even.size() == 4 && odd.size() == 4;
      }
    }
  check(agree, name + "place and move agree");
  check(all.size() == static_cast<std::size_t>(64 * L::chunks) && *all.rbegin() == 64 * D - L::per, name + "every chunk has a place of its own");
  check(rows_apart, name + "eight rows of ldmatrix lie in different banks");
  check(pairs_apart, name + "so do the four rows of a 16-byte read in f32");
  check(chunks_apart, name + "and eight chunks that neighbouring threads copy");
}

}  // namespace

int main() {
  prove<bf16, 64>();
  prove<bf16, 128>();
  prove<bf16, 256>();
  prove<float, 64>();
  prove<float, 128>();
  prove<float, 256>();
  std::printf("%d passed, %d failed, 0 skipped\n", passed, failures);
  return failures == 0 ? 0 : 1;
}
