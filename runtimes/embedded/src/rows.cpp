#include "rows.h"

#include <algorithm>

namespace vmp {
namespace {

uint8_t clamp(int value) { return static_cast<uint8_t>(std::min(std::max(value, 0), 255)); }

// ITU-R BT.601 with 16 to 235 (224 for U and V), in 20-bit fixed point, as OpenCV's cvtColor computes it.
constexpr int kShift = 20;
struct Products {
  Products() {
    for (int i = 0; i < 256; ++i) {
      y[i] = std::max(0, i - 16) * 1220542 + (1 << (kShift - 1));
      red_v[i] = 1673527 * (i - 128);
      green_v[i] = -852492 * (i - 128);
      green_u[i] = -409993 * (i - 128);
      blue_u[i] = 2116026 * (i - 128);
    }
  }
  int y[256], red_v[256], green_v[256], green_u[256], blue_u[256];
};

// A row's pixels, two by two, to red, green and blue one after the other (3, width).
//   luma(x): of a pixel; chroma(x): where U is of the two from an even x on, V Chroma::gap bytes further
template <class Luma, class Chroma>
void convert(int32_t left, int32_t width, uint8_t* out, Luma luma, Chroma chroma) {
  static const Products products;
  uint8_t *red = out, *green = out + width, *blue = out + 2 * static_cast<ptrdiff_t>(width);
  for (int32_t x = left; x < left + width;) {
    const uint8_t* uv = chroma(x & ~1);
    const int u = uv[0], v = uv[Chroma::gap];
    const int r = products.red_v[v], g = products.green_v[v] + products.green_u[u], b = products.blue_u[u];
    for (const int32_t end = std::min((x | 1) + 1, left + width); x < end; ++x) {
      const int y = products.y[luma(x)];
      *red++ = clamp((y + r) >> kShift);
      *green++ = clamp((y + g) >> kShift);
      *blue++ = clamp((y + b) >> kShift);
    }
  }
}

struct Nv12Chroma {
  static constexpr int gap = 1;
  const uint8_t* row;
  const uint8_t* operator()(int32_t x) const { return row + x; }
};

struct YuyvChroma {
  static constexpr int gap = 2;
  const uint8_t* row;
  const uint8_t* operator()(int32_t x) const { return row + 2 * static_cast<ptrdiff_t>(x) + 1; }
};

}  // namespace

Layout Rows::layout() const {
  switch (frame.format) {
    case VMP_EDGE_RGB:
      return {3, {0, 1, 2}, 3 * width};
    case VMP_EDGE_BGR:
      return {3, {2, 1, 0}, 3 * width};
    case VMP_EDGE_GREY:
      return {1, {0, 0, 0}, width};
    default:
      return {1, {0, width, 2 * width}, 3 * width};
  }
}

const uint8_t* Rows::row(int32_t y, uint8_t* scratch) const {
  const int32_t line = top + y;
  const uint8_t* data = frame.data[0] + static_cast<ptrdiff_t>(line) * frame.stride[0];
  switch (frame.format) {
    case VMP_EDGE_GREY:
      return data + left;
    case VMP_EDGE_NV12: {
      const uint8_t* chroma = frame.data[1] + static_cast<ptrdiff_t>(line / 2) * frame.stride[1];
      convert(left, width, scratch, [data](int32_t x) { return data[x]; }, Nv12Chroma{chroma});
      return scratch;
    }
    case VMP_EDGE_YUYV:
      convert(left, width, scratch, [data](int32_t x) { return data[2 * static_cast<ptrdiff_t>(x)]; }, YuyvChroma{data});
      return scratch;
    default:
      return data + 3 * static_cast<ptrdiff_t>(left);
  }
}

}  // namespace vmp
