#include "resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace vmp {
namespace {

uint8_t rounded(float value) {  // to the nearest integer, ties to even
  return static_cast<uint8_t>(std::min(std::max(std::lrintf(value), 0L), 255L));
}

// ---- area ----

// The share of one source pixel in one destination pixel.
struct Share {
  int32_t from, to;
  float weight;
};

// Return the shares along one axis, sorted by destination, then by source.
std::vector<Share> area_shares(int32_t source, int32_t destination) {
  const double scale = static_cast<double>(source) / destination;
  std::vector<Share> shares;
  for (int32_t to = 0; to < destination; ++to) {
    const double begin = to * scale, end = begin + scale, width = std::min(scale, source - begin);
    const int32_t last = std::min(static_cast<int32_t>(std::floor(end)), source - 1);
    const int32_t first = std::min(static_cast<int32_t>(std::ceil(begin)), last);
    if (first - begin > 1e-3) shares.push_back({first - 1, to, static_cast<float>((first - begin) / width)});
    for (int32_t from = first; from < last; ++from) shares.push_back({from, to, static_cast<float>(1.0 / width)});
    if (end - last > 1e-3)
      shares.push_back({last, to, static_cast<float>(std::min(std::min(end - last, 1.0), width) / width)});
  }
  return shares;
}

void add_row(const uint8_t* row, float weight, std::vector<float>& line) {
  float* sums = line.data();
  for (size_t x = 0, count = line.size(); x < count; ++x) sums[x] += weight * static_cast<float>(row[x]);
}

// Average over the covered pixels: first add up the rows of the frame that make a row of the result, then the pixels
// along it.
void resize_area(const Rows& rows, int32_t width, int32_t height, uint8_t* out) {
  const std::vector<Share> across = area_shares(rows.width, width), down = area_shares(rows.height, height);
  const Layout layout = rows.layout();
  std::vector<uint8_t> scratch(3 * static_cast<size_t>(rows.width));
  std::vector<float> line(static_cast<size_t>(layout.numbers)), sums(3 * static_cast<size_t>(width));
  const uint8_t* row = nullptr;
  int32_t held = -1;  // index of the source row in `row`
  for (size_t i = 0; i < down.size();) {
    std::fill(line.begin(), line.end(), 0.0f);
    for (const int32_t to = down[i].to; i < down.size() && down[i].to == to; ++i) {
      if (down[i].from != held) row = rows.row(held = down[i].from, scratch.data());
      add_row(row, down[i].weight, line);
    }
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (const Share& share : across) {
      const float* pixel = line.data() + static_cast<ptrdiff_t>(layout.step) * share.from;
      float* to = sums.data() + 3 * static_cast<ptrdiff_t>(share.to);
      for (int channel = 0; channel < 3; ++channel) to[channel] += pixel[layout.first[channel]] * share.weight;
    }
    for (const float sum : sums) *out++ = rounded(sum);
  }
}

// If both sides shrink by whole numbers, the sums are integers.
void resize_blocks(const Rows& rows, int32_t width, int32_t height, uint8_t* out) {
  const int32_t across = rows.width / width, down = rows.height / height;
  const float share = 1.0f / static_cast<float>(across * down);
  const Layout layout = rows.layout();
  std::vector<uint8_t> scratch(3 * static_cast<size_t>(rows.width));
  std::vector<int32_t> line(static_cast<size_t>(layout.numbers));
  for (int32_t y = 0; y < height; ++y) {
    std::fill(line.begin(), line.end(), 0);
    for (int32_t i = 0; i < down; ++i) {
      const uint8_t* row = rows.row(y * down + i, scratch.data());
      for (size_t x = 0; x < line.size(); ++x) line[x] += row[x];
    }
    for (int32_t x = 0; x < width; ++x)
      for (const int32_t first : layout.first) {
        const int32_t* pixel = line.data() + first + static_cast<ptrdiff_t>(layout.step) * across * x;
        int32_t sum = 0;
        for (int32_t j = 0; j < across; ++j) sum += pixel[static_cast<ptrdiff_t>(layout.step) * j];
        const bool four = across == 2 && down == 2;  // in OpenCV, ties of four pixels go up
        *out++ = four ? static_cast<uint8_t>((sum + 2) >> 2) : rounded(static_cast<float>(sum) * share);
      }
  }
}

// ---- bilinear ----

// A destination pixel lies between the source pixels `from` and `next`.
struct Between {
  int32_t from, next;
  int32_t near, far;  // the weights of `from` and `next`, in 2048ths
};

std::vector<Between> linear_places(int32_t source, int32_t destination, bool area) {
  const double scale = static_cast<double>(source) / destination, inverse = static_cast<double>(destination) / source;
  std::vector<Between> places;
  for (int32_t to = 0; to < destination; ++to) {
    int32_t from;
    float share;
    if (area) {  // INTER_AREA that does not shrink: pixels keep their extent, with ramps between them
      from = static_cast<int32_t>(std::floor(to * scale));
      share = static_cast<float>((to + 1) - (from + 1) * inverse);
      share = share <= 0 ? 0.0f : share - std::floor(share);
    } else {
      share = static_cast<float>((to + 0.5) * scale - 0.5);
      from = static_cast<int32_t>(std::floor(share));
      share -= static_cast<float>(from);
    }
    if (from < 0) from = 0, share = 0;
    if (from >= source - 1) from = source - 1, share = 0;
    const auto in_2048ths = [](float part) { return static_cast<int32_t>(std::lrintf(part * 2048)); };
    places.push_back({from, std::min(from + 1, source - 1), in_2048ths(1 - share), in_2048ths(share)});
  }
  return places;
}

void interpolate(const uint8_t* row, const Layout& layout, const std::vector<Between>& across, int32_t* line) {
  for (const Between& place : across)
    for (const int32_t first : layout.first)
      *line++ = row[first + static_cast<ptrdiff_t>(layout.step) * place.from] * place.near +
                row[first + static_cast<ptrdiff_t>(layout.step) * place.next] * place.far;
}

void resize_linear(const Rows& rows, int32_t width, int32_t height, bool area, uint8_t* out) {
  const std::vector<Between> across = linear_places(rows.width, width, area);
  const std::vector<Between> down = linear_places(rows.height, height, area);
  const Layout layout = rows.layout();
  std::vector<uint8_t> scratch(3 * static_cast<size_t>(rows.width));
  std::vector<int32_t> upper(3 * static_cast<size_t>(width)), lower(upper.size());
  int32_t upper_row = -1, lower_row = -1;
  const auto fill = [&](std::vector<int32_t>& line, int32_t& held, int32_t needed) {
    if (held != needed) interpolate(rows.row(held = needed, scratch.data()), layout, across, line.data());
  };
  for (const Between& place : down) {
    if (lower_row == place.from) std::swap(upper, lower), std::swap(upper_row, lower_row);
    fill(upper, upper_row, place.from);
    fill(lower, lower_row, place.next);
    for (size_t x = 0; x < upper.size(); ++x) {
      const int32_t sum = ((place.near * (upper[x] >> 4)) >> 16) + ((place.far * (lower[x] >> 4)) >> 16);
      *out++ = static_cast<uint8_t>(std::min((sum + 2) >> 2, 255));
    }
  }
}

}  // namespace

void resize(const Rows& rows, int32_t width, int32_t height, bool area, uint8_t* out) {
  const bool shrinks = rows.width >= width && rows.height >= height;
  const bool whole = shrinks && rows.width % width == 0 && rows.height % height == 0;
  const bool halves = whole && rows.width == 2 * width && rows.height == 2 * height;
  if (whole && (area || halves)) resize_blocks(rows, width, height, out);  // OpenCV always averages when it halves
  else if (shrinks && area) resize_area(rows, width, height, out);
  else resize_linear(rows, width, height, area, out);
}

}  // namespace vmp
