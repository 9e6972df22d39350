#include "rows.h"

#include <algorithm>
#include <cstddef>

namespace vmp {
namespace {

uint8_t clamp(int value) { return static_cast<uint8_t>(std::min(std::max(value, 0), 255)); }

// ITU-R BT.601 with 16 to 235 (224 for U and V), in 20-bit fixed point, as OpenCV's cvtColor computes it.
void yuv_pixel(int y, int u, int v, uint8_t* rgb) {
  constexpr int kShift = 20, kHalf = 1 << (kShift - 1);
  constexpr int kY = 1220542, kRedV = 1673527, kGreenV = -852492, kGreenU = -409993, kBlueU = 2116026;
  y = std::max(0, y - 16) * kY + kHalf, u -= 128, v -= 128;
  rgb[0] = clamp((y + kRedV * v) >> kShift);
  rgb[1] = clamp((y + kGreenV * v + kGreenU * u) >> kShift);
  rgb[2] = clamp((y + kBlueU * u) >> kShift);
}

}  // namespace

const uint8_t* Rows::row(int32_t y, uint8_t* scratch) const {
  const int32_t line = top + y, last = left + width;
  const uint8_t* data = frame.data[0] + static_cast<ptrdiff_t>(line) * frame.stride[0];
  uint8_t* out = scratch;
  switch (frame.format) {
    case VMP_EDGE_RGB:
      return data + 3 * static_cast<ptrdiff_t>(left);
    case VMP_EDGE_BGR:
      for (const uint8_t* p = data + 3 * static_cast<ptrdiff_t>(left); out < scratch + 3 * static_cast<ptrdiff_t>(width);
           p += 3, out += 3)
        out[0] = p[2], out[1] = p[1], out[2] = p[0];
      break;
    case VMP_EDGE_GREY:
      for (int32_t x = left; x < last; ++x, out += 3) out[0] = out[1] = out[2] = data[x];
      break;
    case VMP_EDGE_NV12: {
      const uint8_t* chroma = frame.data[1] + static_cast<ptrdiff_t>(line / 2) * frame.stride[1];
      for (int32_t x = left; x < last; ++x, out += 3) yuv_pixel(data[x], chroma[x & ~1], chroma[x | 1], out);
      break;
    }
    case VMP_EDGE_YUYV:
      for (int32_t x = left; x < last; ++x, out += 3) {
        const uint8_t* pair = data + 4 * static_cast<ptrdiff_t>(x / 2);
        yuv_pixel(pair[2 * (x & 1)], pair[1], pair[3], out);
      }
      break;
  }
  return scratch;
}

}  // namespace vmp
