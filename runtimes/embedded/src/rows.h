// The rows of a frame as red, green and blue, whatever the frame's format.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmp_edge.h"

namespace vmp {

// The layout of a row.
struct Layout {
  int32_t step;      // from one pixel to the next
  int32_t first[3];  // position of the first red, green and blue; all the same in grey
  int32_t numbers;   // number of elements of a row
};

// A part of a frame: `width` by `height` pixels from (left, top) on.
struct Rows {
  const vmp_edge_frame& frame;
  int32_t left, top, width, height;

  Layout layout() const;

  // Return row `y`, counted from `top`, of layout().numbers elements. It is in the frame itself or in `scratch`, which
  // has room for 3 * width elements.
  const uint8_t* row(int32_t y, uint8_t* scratch) const;
};

}  // namespace vmp
