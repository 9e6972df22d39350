// A bundle's manifest, as vmp_edge/bundle/manifest.py writes it (docs/bundle.md).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "preprocessing.h"

namespace vmp {

struct FileEntry {
  int64_t size;
  std::string sha256;
};

struct Manifest {
  std::string name, target, machine, engine, precision, program;
  int32_t frames, tubelet;
  double frame_rate = 0;  // 0: does not matter
  int32_t threads = 0;    // 0: not said
  int32_t features = 0;   // that follow the logits in what the program gives
  Preprocessing preprocessing;
  std::vector<std::string> labels;
  std::vector<std::string> cpu_features;
  bool gpu = false;
  std::map<std::string, FileEntry> files;

  // Reads `manifest.yaml`, checking version, keys, types and that the entries fit each other.
  // Throws Error (BUNDLE): what is wrong with it, in words that follow the file's name.
  static Manifest parse(const std::string& text);
};

inline constexpr int64_t kMaxManifestBytes = 4 << 20;
inline constexpr const char* kManifestName = "manifest.yaml";

}  // namespace vmp
