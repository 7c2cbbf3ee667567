// dlopen over a list of places.
#include "driver/library.h"

#include <dlfcn.h>

#include "lomo/error.h"

namespace lomo {

Library::Library(const Wanted& wanted) : name_(wanted.name) {
  std::vector<std::string> places;
  if (!wanted.given.empty()) places.push_back(wanted.given);
  else {
    for (const auto& file : wanted.files) places.push_back(file);
    for (const auto& folder : wanted.folders)
      for (const auto& file : wanted.files) places.push_back(folder + "/" + file);
  }
  std::string tried;
  for (const auto& place : places) {
    handle_ = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_ != nullptr) {
      path_ = place;
      return;
    }
    const char* why = dlerror();
    tried += "\n  " + place + ": " + (why == nullptr ? "not opened" : why);
  }
  throw Error("MissingLibrary", std::string("cuda: ") + wanted.name + " was not found. " + wanted.next_step + " Tried:" + tried);
}

Library::~Library() {
  // Never closed: drivers keep threads and exit handlers of their own.
}

void* Library::symbol(const char* name) const {
  dlerror();
  void* found = dlsym(handle_, name);
  if (found == nullptr) throw Error("WrongLibrary", "cuda: " + path_ + ", opened as " + name_ + ", has no " + name + ": install a newer one");
  return found;
}

}  // namespace lomo
