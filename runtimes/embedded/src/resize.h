#pragma once

#include <cstdint>

#include "rows.h"

namespace vmp {

// Resize a picture to out (height, width, 3), uint8, with the arithmetic of OpenCV's `resize`, with which models are
// trained.
//   area: true for INTER_AREA, which averages over the covered pixels if both sides shrink, and otherwise interpolates;
//         false for INTER_LINEAR
void resize(const Rows& rows, int32_t width, int32_t height, bool area, uint8_t* out);

}  // namespace vmp
