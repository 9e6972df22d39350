// A bundle that is loaded into its engine, and its results.
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

  // Run the engine on a video (T, 3, S, S). Return the softmax (classes). Calls from several threads take turns.
  // Throws Error (ENGINE) if the engine failed or its logits are not finite.
  std::vector<float> run(const std::vector<float>& video);

  // Pick the model's number of frames evenly from `count` frames, and recognise them. Return the softmax (classes).
  std::vector<float> predict(const vmp_edge_frame* frames, int32_t count);

  size_t frame_size() const;  // number of elements of a prepared frame

 private:
  const Bundle bundle_;
  std::mutex mutex_;
  Engine engine_;
};

// A result that owns the arrays that it points to.
struct Result : vmp_edge_result {
  //   class_index: index of the recognised class; negative for the class with the best score
  Result(std::shared_ptr<const Recognizer> recognizer, std::vector<float> scores, int32_t class_index, int32_t count);

 private:
  const std::shared_ptr<const Recognizer> recognizer_;  // it owns the labels
  const std::vector<float> scores_;
  std::vector<vmp_edge_score> top_;
};

// Write a result in one line of JSON, as `vmp-edge run --json` prints it.
std::string to_json(const vmp_edge_result& result);

double seconds();  // the time, by a clock that does not run backwards

}  // namespace vmp
