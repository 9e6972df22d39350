#pragma once

#include <cstdint>

#include "rows.h"

namespace vmp {

// Resizes to out (height, width, 3), uint8, as OpenCV's `resize` does, whose arithmetic is what models are trained
// with.
//   area: average over the covered pixels where both sides shrink; bilinear otherwise. OpenCV's INTER_AREA; else
//         INTER_LINEAR.
void resize(const Rows& rows, int32_t width, int32_t height, bool area, uint8_t* out);

}  // namespace vmp
