// A bundle on disk, checked before anything in it is executed: docs/bundle.md.
#pragma once

#include <string>

#include "manifest.h"

namespace vmp {

struct Bundle {
  std::string folder;
  Manifest manifest;

  std::string path(const std::string& file) const { return folder + "/" + file; }

  // Checks format, machine, what the CPU has, each file's size and SHA-256.
  // Throws Error (BUNDLE, MACHINE).
  static Bundle open(const std::string& folder);
};

}  // namespace vmp
