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
  return static_cast<int32_t>(std::ceil((frames - 1) / kMinSpacing)) + 2;
}

double Window::min_spacing() const { return stride ? 0.0 : kMinSpacing / fps; }

std::vector<int32_t> Window::select(const std::vector<double>& timestamps) const {
  const int32_t newest = static_cast<int32_t>(timestamps.size()) - 1;
  std::vector<int32_t> chosen;
  if (stride) {
    for (int32_t i = newest - (frames - 1) * stride; i >= 0 && i <= newest; i += stride) chosen.push_back(i);
    return chosen;
  }
  const double period = 1.0 / fps;  // a window may be 0.05 of it too short, for rounding and jitter
  if (newest < 0 || timestamps[0] > timestamps.back() - (frames - 1.05) * period) return chosen;
  for (int32_t i = frames - 1; i >= 0; --i) {
    const double target = timestamps.back() - period * i;
    const auto not_before = std::lower_bound(timestamps.begin(), timestamps.end(), target) - timestamps.begin();
    const int32_t after = std::min(std::max(static_cast<int32_t>(not_before), 1), std::max(newest, 1));
    const int32_t at = std::min(after, newest);
    const bool nearer_before =
        target - timestamps[static_cast<size_t>(after - 1)] <= timestamps[static_cast<size_t>(at)] - target;
    chosen.push_back(nearer_before ? after - 1 : at);
  }
  return chosen;
}

}  // namespace vmp
