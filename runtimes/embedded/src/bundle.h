// A bundle's folder (docs/bundle.md), which is checked before anything in it is executed.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "file.h"
#include "manifest.h"

namespace vmp {

struct Bundle {
  std::string folder;
  Manifest manifest;
  std::map<std::string, std::shared_ptr<const File>> files;  // what was checked; of libraries, copies in memory

  std::string path(const std::string& file) const { return folder + "/" + file; }  // for messages

  // Return a checked file for its use. It must be used by File::path, because another file may have taken its place in
  // the folder. Throws Error (BUNDLE) if the manifest does not list the file.
  std::shared_ptr<const File> file(const std::string& name) const;

  // Read the manifest, and check the format, the machine, the CPU's features, and the size and SHA-256 of each file.
  // Throws Error (BUNDLE, MACHINE, MEMORY).
  static Bundle open(const std::string& folder);
};

}  // namespace vmp
