// Which frames make up what the model sees at once, and how often it looks: `Window` of vmp_edge/stream/ring.py.
#pragma once

#include <cstdint>
#include <vector>

namespace vmp {

struct Window {
  int32_t frames;  // T
  int32_t stride;  // every how many-th frame; 0: by `fps`
  double fps;      // frames per second, by the timestamps
  int32_t hop;     // frames between one window and the next

  // Throws Error (ARGUMENT): a value is out of range.
  void check() const;

  // How many frames must be kept for a window to be found in them.
  int32_t capacity() const;

  // Seconds that kept frames are at least apart: what comes closer is passed over, unprepared.
  double min_spacing() const;

  // The frames of the newest window: `frames` indices, oldest first, or none if what is at hand does not reach back far
  // enough. By fps, a frame is chosen twice if the camera is slower than the window.
  //   timestamps: of the frames at hand, in seconds, oldest first
  std::vector<int32_t> select(const std::vector<double>& timestamps) const;
};

}  // namespace vmp
