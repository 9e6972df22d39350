#include "preprocessing.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "error.h"
#include "resize.h"
#include "rows.h"

namespace vmp {
namespace {

constexpr int32_t kLargestSide = 1 << 15;

int32_t row_bytes(const vmp_edge_frame& frame) {
  switch (frame.format) {
    case VMP_EDGE_RGB:
    case VMP_EDGE_BGR: return 3 * frame.width;
    case VMP_EDGE_YUYV: return 2 * frame.width;
    default: return frame.width;
  }
}

// The part of the frame that the model sees, and where it goes in the model's square.
struct Placement {
  Rows rows;
  int32_t left, top, width, height;
};

Placement place(const vmp_edge_frame& frame, Resize resize, int32_t size) {
  const int32_t width = frame.width, height = frame.height;
  if (resize == Resize::crop) {
    const int32_t side = std::min(width, height);
    return {{frame, (width - side) / 2, (height - side) / 2, side, side}, 0, 0, size, size};
  }
  Placement result = {{frame, 0, 0, width, height}, 0, 0, size, size};
  if (resize == Resize::letterbox) {
    const int32_t longer = std::max(width, height);  // rounded below with ties to even, like Python's round
    const auto scaled = [&](int32_t side) {
      return std::max(1, static_cast<int32_t>(std::nearbyint(static_cast<double>(int64_t{side} * size) / longer)));
    };
    result.width = scaled(width), result.height = scaled(height);
    result.left = (size - result.width) / 2, result.top = (size - result.height) / 2;
  }
  return result;
}

}  // namespace

void check_frame(const vmp_edge_frame& frame) {
  if (frame.struct_size < sizeof(vmp_edge_frame))
    throw bad_argument("the frame was not initialised with VMP_EDGE_FRAME");
  if (frame.struct_size > sizeof(vmp_edge_frame)) throw bad_argument("the frame is of a newer version of vmp_edge.h");
  if (frame.format < VMP_EDGE_RGB || frame.format > VMP_EDGE_YUYV) throw bad_argument("the frame's format is unknown");
  if (frame.width < 1 || frame.height < 1 || frame.width > kLargestSide || frame.height > kLargestSide)
    throw bad_argument("a frame of " + std::to_string(frame.width) + " by " + std::to_string(frame.height) +
                       " pixels: sides are 1 to " + std::to_string(kLargestSide));
  const bool nv12 = frame.format == VMP_EDGE_NV12;
  if ((nv12 || frame.format == VMP_EDGE_YUYV) && frame.width % 2) throw bad_argument("the frame's width must be even");
  if (nv12 && frame.height % 2) throw bad_argument("the frame's height must be even");
  for (int plane = 0; plane < (nv12 ? 2 : 1); ++plane) {
    if (!frame.data[plane]) throw bad_argument("the frame's data[" + std::to_string(plane) + "] is NULL");
    if (frame.stride[plane] != 0 && frame.stride[plane] < row_bytes(frame))
      throw bad_argument("the frame's stride[" + std::to_string(plane) + "] is " + std::to_string(frame.stride[plane]) +
                         " bytes, a row has " + std::to_string(row_bytes(frame)));
  }
}

void Preprocessing::make_table(const double mean[3], const double deviation[3]) {
  table_.resize(3 * 256);
  for (int channel = 0; channel < 3; ++channel)
    for (int pixel = 0; pixel < 256; ++pixel)
      table_[static_cast<size_t>(256 * channel + pixel)] =
          static_cast<float>((pixel / 255.0 - mean[channel]) / deviation[channel]);
}

void Preprocessing::prepare(const vmp_edge_frame& original, float* out) const {
  vmp_edge_frame frame = original;
  for (int32_t& stride : frame.stride)
    if (stride == 0) stride = row_bytes(frame);
  const Placement to = place(frame, resize, image_size);
  const int32_t width = to.width, height = to.height;
  const size_t plane = static_cast<size_t>(image_size) * static_cast<size_t>(image_size);
  const bool whole = width == image_size && height == image_size;
  if (!whole) std::fill(out, out + 3 * plane, 0.0f);

  std::vector<uint8_t> pixels;  // one row if the size stays, otherwise the resized picture
  const bool same = to.rows.width == width && to.rows.height == height;
  pixels.resize(3 * static_cast<size_t>(width) * static_cast<size_t>(same ? 1 : height));
  if (!same) {
    const bool shrinks = int64_t{to.rows.width} * to.rows.height > int64_t{width} * height;
    vmp::resize(to.rows, width, height, area && shrinks, pixels.data());
  }
  const Layout layout = same ? to.rows.layout() : Layout{3, {0, 1, 2}, 3 * width};
  for (int32_t y = 0; y < height; ++y) {
    const uint8_t* row = same ? to.rows.row(y, pixels.data()) : pixels.data() + static_cast<ptrdiff_t>(3 * width) * y;
    float* line = out + static_cast<ptrdiff_t>(image_size) * (to.top + y) + to.left;
    for (int channel = 0; channel < 3; ++channel) {
      const float* table = table_.data() + 256 * channel;
      float* place = line + static_cast<size_t>(channel) * plane;
      for (int32_t x = 0; x < width; ++x) place[x] = table[row[layout.first[channel] + layout.step * x]];
    }
  }
}

}  // namespace vmp
