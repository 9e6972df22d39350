// What executes a bundle's program: shared libraries that are loaded when a bundle asks for them.
#pragma once

#include <memory>
#include <string>

#include "bundle.h"

namespace vmp {

class Engine {
 public:
  // Loads the libraries of the bundle's engine, and its program.
  //   threads: of the CPU; 0 takes the manifest's, or all cores
  //   libraries: folders to look in first, separated by colons
  // Throws Error (ENGINE, MACHINE, ARGUMENT).
  Engine(const Bundle& bundle, int32_t threads, const std::string& libraries);
  ~Engine();
  Engine(const Engine&) = delete;

  // input (T, 3, S, S), normalised -> logits (classes). Not from two threads at once.
  // Throws Error (ENGINE).
  void run(const float* input, float* logits);

 private:
  struct Program;
  std::unique_ptr<Program> program_;
};

}  // namespace vmp
