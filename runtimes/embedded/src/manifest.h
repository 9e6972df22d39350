// A bundle's manifest, which vmp_edge/bundle/manifest.py writes (docs/bundle.md).
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
  double frame_rate = 0;  // frames per second of the clips in training; 0 if the bundle does not say
  double span = 0;        // seconds from which the clips' frames came in training; 0 if the bundle does not say
  int32_t threads = 0;    // number of CPU threads; 0 if the manifest has none
  int32_t features = 0;   // number of features that follow the logits in the program's output
  Preprocessing preprocessing;
  std::vector<std::string> labels;
  std::vector<std::string> cpu_features;
  bool gpu = false;
  std::map<std::string, FileEntry> files;

  // Return the frames per second that a window takes: the frame rate, or T frames in the span; 0 if there is neither.
  double window_rate() const { return span > 0 ? frames / span : frame_rate; }

  // Parse the text of `manifest.yaml`. Check the version, the keys, the types, and that the entries do not contradict
  // each other. Throws Error (BUNDLE), whose message begins with a verb: the caller puts the file's name before it.
  static Manifest parse(const std::string& text);
};

inline constexpr int32_t kMostThreads = 1024;
inline constexpr int64_t kMaxManifestBytes = 4 << 20;
inline constexpr const char* kManifestName = "manifest.yaml";

}  // namespace vmp
