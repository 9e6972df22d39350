// From a camera's frame to what the model takes: the arithmetic of vmp_edge/preprocessing.py.
#pragma once

#include <cstdint>
#include <vector>

#include "vmp_edge.h"

namespace vmp {

enum class Resize { stretch, crop, letterbox };

// Throws Error (ARGUMENT): a plane is missing, a size or a stride cannot be.
void check_frame(const vmp_edge_frame& frame);

class Preprocessing {
 public:
  int32_t image_size = 0;  // S
  Resize resize = Resize::stretch;
  bool area = true;  // averages over the covered pixels when shrinking; else always bilinear

  // (pixel / 255 - mean) / deviation for each of 256 pixels; red, green, blue
  void make_table(const double mean[3], const double deviation[3]);

  // Prepares a checked frame into out (3, S, S), red first; every value of it is written.
  void prepare(const vmp_edge_frame& frame, float* out) const;

 private:
  std::vector<float> table_;  // (3, 256)
};

}  // namespace vmp
