#include "smoothing.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace vmp {
namespace {

template <class Numbers>
int32_t largest(const Numbers& numbers) {
  return static_cast<int32_t>(std::max_element(numbers.begin(), numbers.end()) - numbers.begin());
}

}  // namespace

void Smoothing::check() const {
  if (!(std::isfinite(windows) && windows >= 0)) throw bad_argument("smoothing_windows must be 0 or more");
  if (!std::isfinite(seconds)) throw bad_argument("smoothing_seconds must be a number");
  if (!(margin >= 0 && margin < 1)) throw bad_argument("smoothing_margin must be at least 0 and under 1");
  if (hold < 1) throw bad_argument("smoothing_hold must be at least 1 window");
}

int32_t Smoother::update(std::vector<float>& scores, double timestamp) {
  if (average_.empty()) {
    average_.assign(scores.begin(), scores.end());
    shown_ = challenger_ = largest(scores);
    leads_ = 0;
  } else {
    const double share = weight(timestamp - timestamp_);
    for (size_t i = 0; i < scores.size(); ++i) average_[i] += share * (scores[i] - average_[i]);
    settle();
  }
  timestamp_ = timestamp;
  std::transform(average_.begin(), average_.end(), scores.begin(), [](double x) { return static_cast<float>(x); });
  return shown_;
}

// Return the weight of the newest window in the average: 1 - exp(-elapsed / time constant).
double Smoother::weight(double elapsed) const {
  const bool by_time = smoothing_.seconds >= 0;
  const double constant = by_time ? smoothing_.seconds : smoothing_.windows;
  return constant > 0 ? -std::expm1(-(by_time ? std::max(elapsed, 0.0) : 1.0) / constant) : 1.0;
}

void Smoother::settle() {
  const int32_t best = largest(average_);
  const auto score = [this](int32_t label) { return average_[static_cast<size_t>(label)]; };
  if (best == shown_ || score(best) - score(shown_) < smoothing_.margin) {
    leads_ = 0;
    return;
  }
  leads_ = best == challenger_ && leads_ ? leads_ + 1 : 1;
  challenger_ = best;
  if (leads_ >= smoothing_.hold) shown_ = best, leads_ = 0;
}

}  // namespace vmp
