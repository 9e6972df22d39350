// A frame's rows as RGB, whatever its format.
#pragma once

#include <cstdint>

#include "vmp_edge.h"

namespace vmp {

// Part of a frame: `width` by `height` pixels from (left, top).
struct Rows {
  const vmp_edge_frame& frame;
  int32_t left, top, width, height;

  // Row `y`, from `top`: (width, 3), red first; in the frame itself or in `scratch` (width, 3).
  const uint8_t* row(int32_t y, uint8_t* scratch) const;
};

}  // namespace vmp
