#include "window.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "error.h"

namespace vmp {
namespace {

// In periods of the window's frame rate: frames that are closer than a quarter, with a little less for jitter, are
// never chosen together.
constexpr double kMinSpacing = 0.24;
constexpr int32_t kLargestCapacity = 1 << 16;

// Return the index of the timestamp nearest to a moment; the earlier one of two that are as near.
int32_t nearest(const std::vector<double>& timestamps, double moment) {
  const int32_t newest = static_cast<int32_t>(timestamps.size()) - 1;
  const auto not_before = std::lower_bound(timestamps.begin(), timestamps.end(), moment) - timestamps.begin();
  const int32_t after = std::min(std::max(static_cast<int32_t>(not_before), 1), std::max(newest, 1));
  const int32_t at = std::min(after, newest);
  const bool nearer_before =
      moment - timestamps[static_cast<size_t>(after - 1)] <= timestamps[static_cast<size_t>(at)] - moment;
  return nearer_before ? after - 1 : at;
}

}  // namespace

void Window::check() const {
  if (hop < 1) throw bad_argument("hop is " + std::to_string(hop) + "; it must be at least 1 frame");
  if (stride < 0) throw bad_argument("stride is " + std::to_string(stride) + "; it must be at least 1 frame, or 0");
  if (stride == 0 && !(std::isfinite(fps) && fps > 0)) throw bad_argument("fps must be positive, or 0");
  if (int64_t{frames} * std::max(stride, 1) > kLargestCapacity)
    throw bad_argument("a window over more than " + std::to_string(kLargestCapacity) + " frames");
}

int32_t Window::capacity() const {
  if (stride) return (frames - 1) * stride + 1;
  if (sparse) return frames + 2;
  return static_cast<int32_t>(std::ceil((frames - 1) / kMinSpacing)) + 2;
}

double Window::min_spacing() const { return stride ? 0.0 : kMinSpacing / fps; }

double Window::next_period(double start, double timestamp) const {
  if (std::isinf(start)) return timestamp + 1 / fps;
  return start + (std::floor((timestamp - start) * fps) + 1) / fps;
}

std::vector<int32_t> Window::select(const std::vector<double>& timestamps) const {
  const int32_t newest = static_cast<int32_t>(timestamps.size()) - 1;
  std::vector<int32_t> chosen;
  if (stride) {
    for (int32_t i = newest - (frames - 1) * stride; i >= 0 && i <= newest; i += stride) chosen.push_back(i);
    return chosen;
  }
  const double period = 1.0 / fps;  // a window may be 0.05 of it too short, for rounding and jitter
  if (newest < 0 || timestamps[0] > timestamps.back() - (frames - 1.05) * period) return chosen;
  double shift = 0;
  if (sparse && frames > 1) {
    // All frames but the newest are off by the same time. Rounded one by one, two of them could be one frame.
    const double second = timestamps.back() - period;
    const int32_t index = nearest(timestamps, second);
    // Otherwise the camera is slow, and frames are chosen twice in any case.
    if (index < newest) shift = timestamps[static_cast<size_t>(index)] - second;
  }
  for (int32_t i = frames - 1; i >= 0; --i)
    chosen.push_back(nearest(timestamps, timestamps.back() - period * i + (i ? shift : 0)));
  return chosen;
}

}  // namespace vmp
