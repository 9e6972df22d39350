// A bundle in its engine, and what comes out.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bundle.h"
#include "engine.h"

namespace vmp {

class Recognizer {
 public:
  // Throws Error (BUNDLE, MACHINE, ENGINE).
  Recognizer(const std::string& folder, int32_t threads, const std::string& libraries);

  const Manifest& manifest() const { return bundle_.manifest; }

  // Runs the engine: video (T, 3, S, S) -> softmax (classes). Calls from several threads take turns.
  // Throws Error (ENGINE): it failed, or gave values that are not finite.
  std::vector<float> run(const std::vector<float>& video);

  // Prepares and runs `count` frames, of which the model's are picked evenly.
  std::vector<float> predict(const vmp_edge_frame* frames, int32_t count);

  size_t frame_size() const;  // numbers of a prepared frame

 private:
  const Bundle bundle_;
  std::mutex mutex_;
  Engine engine_;
};

// A result with all that it points to.
struct Result : vmp_edge_result {
  //   shown: the class; negative for the best
  Result(std::shared_ptr<const Recognizer> recognizer, std::vector<float> scores, int32_t shown, int32_t count);

 private:
  const std::shared_ptr<const Recognizer> recognizer_;  // whose labels these are
  const std::vector<float> scores_;
  std::vector<vmp_edge_score> top_;
};

// As `vmp-edge run --json` prints it.
std::string to_json(const vmp_edge_result& result);

double seconds();  // on a clock that does not run backwards

}  // namespace vmp
