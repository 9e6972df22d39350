// Turns a camera's frame into the model's input, with the same arithmetic as vmp_edge/preprocessing.py.
#pragma once

#include <cstdint>
#include <vector>

#include "vmp_edge.h"

namespace vmp {

enum class Resize { stretch, crop, letterbox };

// Throws Error (ARGUMENT) if a plane is missing, or a size or a stride is impossible.
void check_frame(const vmp_edge_frame& frame);

class Preprocessing {
 public:
  int32_t image_size = 0;  // S, the side of the model's input in pixels
  Resize resize = Resize::stretch;
  bool area = true;  // average over the covered pixels when a picture shrinks; otherwise always bilinear

  // Tabulate (pixel / 255 - mean) / deviation for the 256 values of a pixel, for red, green and blue.
  void make_table(const double mean[3], const double deviation[3]);

  // Resize and normalise a checked frame into out (3, S, S), red first. Every element of out is written.
  void prepare(const vmp_edge_frame& frame, float* out) const;

 private:
  std::vector<float> table_;  // (3, 256)
};

}  // namespace vmp
