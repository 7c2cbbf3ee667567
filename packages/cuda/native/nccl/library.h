// NCCL, opened at run time when somebody first asks for a communicator.
#pragma once

#include <string>
#include <vector>

#include "driver/library.h"
#include "nccl/api.h"

namespace lomo {

class Nccl : public nccl::Entries {
 public:
  // `path` names libnccl.so.2, or is empty; `folders` are searched besides, also as Python environments that have NCCL from pip. Throws
  // MissingLibrary, WrongLibrary, NcclTooOld.
  Nccl(const std::string& path, const std::vector<std::string>& folders);
  const std::string& path() const { return library_.path(); }
  std::string version() const;
  // Throws NcclError.
  nccl::UniqueId unique_id() const;
  // 'unhandled system error (2); what NCCL logged last'
  std::string spell(nccl::Result result, nccl::Comm comm) const;

 private:
  Library library_;
  int version_ = 0;  // 22707 is 2.27.7
};

// Where pip puts NCCL in a Python environment at `folder`, in its site-packages, or in the system's.
std::vector<std::string> nccl_folders(const std::vector<std::string>& folders);

}  // namespace lomo
