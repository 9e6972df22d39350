// A bundle that is loaded into its engine, and its results.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "bundle.h"
#include "engine.h"

namespace vmp {

class Recognizer {
 public:
  // Throws Error (BUNDLE, MACHINE, ENGINE, MEMORY).
  Recognizer(const std::string& folder, int32_t threads, const std::string& libraries)
      : Recognizer(Bundle::open(folder), threads, libraries) {}

  const Manifest& manifest() const { return manifest_; }

  // A turn at the engine, as long as it lives. Turns come in the order in which they are asked for, so that a stream
  // which has just been served goes behind those that wait. (A std::mutex promises no order: the thread that gives it
  // up is often the next that has it.)
  class Turn {
   public:
    explicit Turn(Recognizer& recognizer);  // waits
    ~Turn();
    Turn(const Turn&) = delete;

   private:
    Recognizer& recognizer_;
  };

  // Run the engine on a video (T, 3, S, S) in a turn of the caller. Return the softmax (classes).
  // Throws Error (ENGINE) if the engine failed or its logits are not finite.
  std::vector<float> run(const Turn& turn, const std::vector<float>& video);

  // Pick the model's number of frames evenly from `count` frames, and recognise them. Return the softmax (classes).
  std::vector<float> predict(const vmp_edge_frame* frames, int32_t count);

  size_t frame_size() const;  // number of elements of a prepared frame

 private:
  Recognizer(const Bundle& bundle, int32_t threads, const std::string& libraries);

  const std::string folder_;
  const Manifest manifest_;
  Engine engine_;
  std::mutex mutex_;  // guards the members below
  std::condition_variable turn_over_;
  uint64_t asked_ = 0, over_ = 0;  // number of turns that were asked for, and that are over
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
