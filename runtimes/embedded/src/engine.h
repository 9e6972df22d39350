// Executes a bundle's program by the shared libraries of its engine, which are loaded when a bundle needs them.
#pragma once

#include <memory>
#include <string>

#include "bundle.h"

namespace vmp {

class Engine {
 public:
  // Load the libraries of the bundle's engine, and its program.
  //   threads: number of CPU threads; 0 takes the number that the process uses already, or all cores
  //   libraries: the folders to search first, separated by colons
  // Throws Error (ENGINE, MACHINE, ARGUMENT).
  Engine(const Bundle& bundle, int32_t threads, const std::string& libraries);
  ~Engine();
  Engine(const Engine&) = delete;

  // Compute the logits (classes) of input (T, 3, S, S), normalised. Only one thread at a time may call it.
  // Throws Error (ENGINE).
  void run(const float* input, float* logits);

 private:
  struct Program;
  std::unique_ptr<Program> program_;
};

}  // namespace vmp
