// Which frames make up a window, and how often there is a window; the same as `Window` of vmp_edge/stream/window.py.
#pragma once

#include <cstdint>
#include <vector>

namespace vmp {

struct Window {
  int32_t frames;  // T, the number of frames
  int32_t stride;  // the window takes every stride-th frame; 0 chooses frames by `fps`
  double fps;      // frames per second that the window takes, by their timestamps
  int32_t hop;     // number of frames between one window and the next
  // Keep one frame of each period of `fps` and the newest frame, for windows of many seconds. The chosen frames are then
  // up to half a period from the wanted times.
  bool sparse = false;

  // Throws Error (ARGUMENT) if a value is out of range.
  void check() const;

  // Return the number of frames that must be kept so that they contain a window.
  int32_t capacity() const;

  // Return the shortest time between kept frames in seconds. Frames that come sooner are skipped without being
  // prepared.
  double min_spacing() const;

  // Return when the next period of a sparse window begins.
  //   start: the beginning of any of its periods in seconds, or minus infinity if there was none yet
  //   timestamp: the frame that was just kept, which is not before `start`
  double next_period(double start, double timestamp) const;

  // Choose the frames of the newest window. Return `frames` indices, oldest first, or none if the frames do not reach
  // back far enough. By fps, a frame is chosen more than once if the camera is slower than the window.
  //   timestamps: timestamps of the kept frames in seconds, oldest first
  std::vector<int32_t> select(const std::vector<double>& timestamps) const;
};

}  // namespace vmp
