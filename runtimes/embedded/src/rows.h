// A frame's rows as red, green and blue, whatever its format.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmp_edge.h"

namespace vmp {

// How the numbers of a row lie.
struct Layout {
  int32_t step;      // from a pixel to the next
  int32_t first[3];  // red's, green's and blue's; all the same in grey
  int32_t numbers;   // in a row
};

// Part of a frame: `width` by `height` pixels from (left, top).
struct Rows {
  const vmp_edge_frame& frame;
  int32_t left, top, width, height;

  Layout layout() const;

  // Row `y`, from `top`: (layout().numbers); in the frame itself or in `scratch` (3 * width).
  const uint8_t* row(int32_t y, uint8_t* scratch) const;
};

}  // namespace vmp
