#include "rows.h"

#include <algorithm>

namespace vmp {
namespace {

// ITU-R BT.601 with luma from 16 to 235 (U and V from 16 to 240), in 20-bit fixed point, as OpenCV's cvtColor computes
// it.
constexpr int kShift = 20, kLuma = 1220542, kRedV = 1673527, kGreenV = -852492, kGreenU = -409993, kBlueU = 2116026;
constexpr int32_t kPairs = 32;  // pairs of pixels that are converted at once, by loops that compilers vectorise

// The pixels of a row in pairs: luma of the even and of the odd pixels, and U and V, which a pair shares.
struct Pairs {
  uint8_t y[2][kPairs], u[kPairs], v[kPairs];
};

#if defined(__GNUC__)
#define VMP_INLINE inline __attribute__((always_inline))  // also into functions with a target attribute
#else
#define VMP_INLINE inline
#endif

// Set out[2 * i + j] to the byte of luma[j][i] + chroma[i]. luma includes the term for rounding.
VMP_INLINE void add(const int32_t (&luma)[2][kPairs], const int32_t* chroma, uint8_t* out) {
  int16_t sums[2][kPairs];
  for (int32_t j = 0; j < 2; ++j)
    for (int32_t i = 0; i < kPairs; ++i) sums[j][i] = static_cast<int16_t>((luma[j][i] + chroma[i]) >> kShift);
  for (int32_t i = 0; i < kPairs; ++i)
    for (int32_t j = 0; j < 2; ++j)
      out[2 * i + j] = static_cast<uint8_t>(std::min<int16_t>(std::max<int16_t>(sums[j][i], 0), 255));
}

// Convert pairs to rgb (3, 2 * kPairs).
VMP_INLINE void convert_pairs(const Pairs& from, uint8_t* rgb) {
  int32_t luma[2][kPairs], red[kPairs], green[kPairs], blue[kPairs];
  for (int32_t j = 0; j < 2; ++j)
    for (int32_t i = 0; i < kPairs; ++i)
      luma[j][i] = kLuma * (std::max<uint8_t>(from.y[j][i], 16) - 16) + (1 << (kShift - 1));
  for (int32_t i = 0; i < kPairs; ++i) {
    const int32_t u = from.u[i] - 128, v = from.v[i] - 128;
    red[i] = kRedV * v;
    green[i] = kGreenV * v + kGreenU * u;
    blue[i] = kBlueU * u;
  }
  add(luma, red, rgb);
  add(luma, green, rgb + 2 * kPairs);
  add(luma, blue, rgb + 4 * kPairs);
}

using Convert = void (*)(const Pairs& from, uint8_t* rgb);
void convert_baseline(const Pairs& from, uint8_t* rgb) { convert_pairs(from, rgb); }
#if defined(__GNUC__) && defined(__x86_64__)
__attribute__((target("avx2"))) void convert_avx2(const Pairs& from, uint8_t* rgb) { convert_pairs(from, rgb); }
// The baseline of x86-64 has no instruction to multiply 32-bit numbers and packs them by detours: it is half as fast.
const Convert kConvert = __builtin_cpu_supports("avx2") ? convert_avx2 : convert_baseline;
#else
const Convert kConvert = convert_baseline;
#endif

// Convert the pixels of a row from `left` on to red, green and blue, one after the other (3, width).
//   read(x, count, pairs): a function that reads `count` pairs from the even pixel x on. The last pair of a row may
//     have only one pixel.
template <class Read>
void convert(int32_t left, int32_t width, uint8_t* out, Read read) {
  Pairs pairs{};
  uint8_t rgb[6 * kPairs];
  for (int32_t x = left & ~1, end = left + width; x < end; x += 2 * kPairs) {
    read(x, std::min(kPairs, (end - x + 1) / 2), pairs);
    kConvert(pairs, rgb);
    const int32_t first = std::max(x, left), count = std::min(x + 2 * kPairs, end) - first;
    for (int channel = 0; channel < 3; ++channel)
      std::copy_n(rgb + 2 * kPairs * channel + (first - x), count,
                  out + static_cast<ptrdiff_t>(width) * channel + (first - left));
  }
}

}  // namespace

Layout Rows::layout() const {
  switch (frame.format) {
    case VMP_EDGE_RGB: return {3, {0, 1, 2}, 3 * width};
    case VMP_EDGE_BGR: return {3, {2, 1, 0}, 3 * width};
    case VMP_EDGE_GREY: return {1, {0, 0, 0}, width};
    default: return {1, {0, width, 2 * width}, 3 * width};
  }
}

const uint8_t* Rows::row(int32_t y, uint8_t* scratch) const {
  const int32_t line = top + y;
  const uint8_t* data = frame.data[0] + static_cast<ptrdiff_t>(line) * frame.stride[0];
  switch (frame.format) {
    case VMP_EDGE_GREY: return data + left;
    case VMP_EDGE_NV12: {
      const uint8_t* chroma = frame.data[1] + static_cast<ptrdiff_t>(line / 2) * frame.stride[1];
      const int32_t end = left + width;
      convert(left, width, scratch, [=](int32_t x, int32_t count, Pairs& pairs) {
        const int32_t whole = std::min(count, (end - x) / 2);
        for (int32_t i = 0; i < whole; ++i) pairs.y[0][i] = data[x + 2 * i], pairs.y[1][i] = data[x + 2 * i + 1];
        if (whole < count) pairs.y[0][whole] = data[end - 1];
        for (int32_t i = 0; i < count; ++i) pairs.u[i] = chroma[x + 2 * i], pairs.v[i] = chroma[x + 2 * i + 1];
      });
      return scratch;
    }
    case VMP_EDGE_YUYV:
      convert(left, width, scratch, [data](int32_t x, int32_t count, Pairs& pairs) {
        const uint8_t* from = data + 2 * static_cast<ptrdiff_t>(x);
        for (int32_t i = 0; i < count; ++i, from += 4) {
          pairs.y[0][i] = from[0], pairs.y[1][i] = from[2];
          pairs.u[i] = from[1], pairs.v[i] = from[3];
        }
      });
      return scratch;
    default: return data + 3 * static_cast<ptrdiff_t>(left);
  }
}

}  // namespace vmp
