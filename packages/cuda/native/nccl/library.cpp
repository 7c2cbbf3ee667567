// Finds and opens NCCL.
#include "nccl/library.h"

#include <glob.h>

#include "lomo/error.h"

namespace lomo {
namespace {

Library open(const std::string& path, const std::vector<std::string>& folders) {
  return Library({"NCCL", path, {"libnccl.so.2"}, nccl_folders(folders),
                  "It comes with `pip install nvidia-nccl-cu13`: give the Python environment or the folder that holds it as `folders`, or its path as `nccl`."});
}

}  // namespace

std::vector<std::string> nccl_folders(const std::vector<std::string>& folders) {
  std::vector<std::string> all;
  const auto match = [&](const std::string& pattern) {
    glob_t found{};
    if (glob(pattern.c_str(), 0, nullptr, &found) == 0)
      for (std::size_t i = 0; i < found.gl_pathc; ++i) all.emplace_back(found.gl_pathv[i]);
    globfree(&found);
  };
  for (const auto& folder : folders) {
    all.push_back(folder);
    all.push_back(folder + "/nvidia/nccl/lib");
    match(folder + "/lib/python3*/site-packages/nvidia/nccl/lib");
  }
  for (const char* f : {"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/cuda/lib64"}) all.emplace_back(f);
  for (const char* pattern : {"/usr/local/lib/python3*/*-packages/nvidia/nccl/lib", "/usr/lib/python3*/*-packages/nvidia/nccl/lib"}) match(pattern);
  return all;
}

Nccl::Nccl(const std::string& path, const std::vector<std::string>& folders) : library_(open(path, folders)) {
#define X(type, name, symbol_name, parameters) name = reinterpret_cast<decltype(name)>(library_.symbol(symbol_name));
  // Asked first: an older one lacks some of the others, and its age is the better reason.
  get_version = reinterpret_cast<decltype(get_version)>(library_.symbol("ncclGetVersion"));
  if (get_version(&version_) != nccl::success) version_ = 0;
  if (version_ < nccl::oldest)
    throw Error("NcclTooOld", "cuda: " + library_.path() + " is NCCL " + version() + "; lomo needs 2.18 or newer: pip install nvidia-nccl-cu13, then name its folder in `folders` or the file in `nccl`");
  LOMO_NCCL_ENTRIES(X)
#undef X
}

std::string Nccl::version() const {
  // Until 2.8 a version was written 1000 * major + 100 * minor + patch.
  const int v = version_, major = v < 10000 ? v / 1000 : v / 10000, minor = v < 10000 ? v / 100 % 10 : v / 100 % 100;
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(v % 100);
}

std::string Nccl::spell(nccl::Result result, nccl::Comm comm) const {
  const char *what = error_string(result), *more = last_error(comm);
  return std::string(what == nullptr ? "unknown result" : what) + " (" + std::to_string(result) + ")" + (more == nullptr || *more == 0 ? "" : std::string("; ") + more);
}

nccl::UniqueId Nccl::unique_id() const {
  nccl::UniqueId id{};
  const nccl::Result r = get_unique_id(&id);
  if (r != nccl::success) throw Error("NcclError", "cuda: ncclGetUniqueId: " + spell(r, nullptr) + "; NCCL_DEBUG=INFO makes NCCL say more");
  return id;
}

}  // namespace lomo
