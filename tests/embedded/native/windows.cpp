// Reads what a camera and a recogniser do, and prints which frames the ring's windows have.
//   windows < CASES
// A case is a line "FRAMES STRIDE FPS HOP SPARSE COUNT" and COUNT lines "TIMESTAMP READS CLEARS": the ring is cleared
// before the frame if CLEARS, and a window is read after it, if one is due, if READS. A line for each frame is printed:
// the numbers of the window's frames, "-" without a window, "!" if the frame is refused; and then "PUSHED DROPPED".
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "error.h"
#include "ring.h"

namespace {

bool run_case() {
  vmp::Window window{};
  int sparse = 0, count = 0;
  if (std::scanf("%d %d %lf %d %d %d", &window.frames, &window.stride, &window.fps, &window.hop, &sparse, &count) != 6)
    return false;
  window.sparse = sparse != 0;
  window.check();
  vmp::Preprocessing preprocessing;
  preprocessing.image_size = 1;
  const double mean[] = {0, 0, 0}, deviation[] = {1 / 255.0, 1 / 255.0, 1 / 255.0};  // a value is its pixel
  preprocessing.make_table(mean, deviation);
  vmp::FrameRing ring(preprocessing, window);
  std::vector<float> out(3 * static_cast<size_t>(window.frames));
  for (int number = 0; number < count; ++number) {
    double timestamp = 0;
    int reads = 0, clears = 0;
    if (std::scanf("%lf %d %d", &timestamp, &reads, &clears) != 3) return false;
    if (clears) ring.clear();
    const uint8_t pixel[] = {static_cast<uint8_t>(number), static_cast<uint8_t>(number >> 8),
                             static_cast<uint8_t>(number >> 16)};
    vmp_edge_frame frame{};
    frame.struct_size = sizeof frame;
    frame.format = VMP_EDGE_RGB;
    frame.width = frame.height = 1;
    frame.data[0] = pixel;
    frame.timestamp = timestamp;
    try {
      ring.push(frame);
    } catch (const vmp::Error&) {
      std::puts("!");
      continue;
    }
    if (!reads || !ring.due() || !ring.read(out.data())) {
      std::puts("-");
      continue;
    }
    for (size_t i = 0; i < out.size(); i += 3)
      std::printf("%ld ", std::lround(out[i]) + (std::lround(out[i + 1]) << 8) + (std::lround(out[i + 2]) << 16));
    std::puts("");
  }
  std::printf("%lld %lld\n", static_cast<long long>(ring.pushed()), static_cast<long long>(ring.dropped()));
  return true;
}

}  // namespace

int main() {
  while (run_case()) {
  }
  return std::feof(stdin) ? 0 : 1;
}
