// A fuzz target, for Clang's libFuzzer, of the data that comes from outside: the text of a manifest, and the
// description and pixels of a frame. `make fuzz` builds and runs it.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "error.h"
#include "manifest.h"
#include "preprocessing.h"

namespace {

void parse_manifest(const uint8_t* data, size_t size) {
  try {
    vmp::Manifest::parse(std::string(reinterpret_cast<const char*>(data), size));
  } catch (const vmp::Error&) {
  }
}

// The first bytes of `data` are the numbers of the frame and of the preprocessing. The rest, repeated, are the pixels.
void prepare_frame(const uint8_t* data, size_t size) {
  struct Numbers {
    int16_t width, height, stride[2];
    uint8_t format, mode, area, side;
  } numbers;
  if (size < sizeof numbers) return;
  std::memcpy(&numbers, data, sizeof numbers);
  data += sizeof numbers, size -= sizeof numbers;
  vmp_edge_frame frame = VMP_EDGE_FRAME;
  frame.format = static_cast<vmp_edge_format>(numbers.format % 6);  // including one format that does not exist
  frame.width = numbers.width % 300, frame.height = numbers.height % 300;
  for (int plane = 0; plane < 2; ++plane) frame.stride[plane] = numbers.stride[plane] % 1024;
  std::vector<uint8_t> planes[2];
  for (int plane = 0; plane < 2; ++plane) {  // exactly as large as vmp_edge.h requires
    const bool three = numbers.format % 6 < 2, two = numbers.format % 6 == 4;
    const int64_t row = frame.width * (three ? 3 : two ? 2 : 1);
    const int64_t stride = frame.stride[plane] ? frame.stride[plane] : row;
    const int64_t rows = plane ? frame.height / 2 : frame.height;
    if (row > 0 && rows > 0 && stride >= row) planes[plane].resize(static_cast<size_t>(stride * (rows - 1) + row));
    for (size_t i = 0; size && i < planes[plane].size(); i += size)
      std::memcpy(&planes[plane][i], data, std::min(size, planes[plane].size() - i));
    frame.data[plane] = planes[plane].empty() ? nullptr : planes[plane].data();
  }
  vmp::Preprocessing preprocessing;
  preprocessing.image_size = 1 + numbers.side % 64;
  preprocessing.resize = static_cast<vmp::Resize>(numbers.mode % 3);
  preprocessing.area = numbers.area % 2;
  const double mean[] = {0.4, 0.5, 0.6}, deviation[] = {0.2, 0.2, 0.2};
  preprocessing.make_table(mean, deviation);
  const auto side = static_cast<size_t>(preprocessing.image_size);
  std::vector<float> out(3 * side * side);
  try {
    vmp::check_frame(frame);
    preprocessing.prepare(frame, out.data());
  } catch (const vmp::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) (data[0] & 1 ? parse_manifest : prepare_frame)(data + 1, size - 1);
  return 0;
}
