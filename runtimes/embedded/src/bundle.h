// A bundle's folder (docs/bundle.md), which is checked before anything in it is executed.
#pragma once

#include <string>

#include "manifest.h"

namespace vmp {

struct Bundle {
  std::string folder;
  Manifest manifest;

  std::string path(const std::string& file) const { return folder + "/" + file; }

  // Read the manifest, and check the format, the machine, the CPU's features, and the size and SHA-256 of each file.
  // Throws Error (BUNDLE, MACHINE).
  static Bundle open(const std::string& folder);
};

}  // namespace vmp
