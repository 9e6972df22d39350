// Makes steady results of noisy windows, with the same arithmetic as vmp_edge/stream/smoothing.py.
#pragma once

#include <cstdint>
#include <vector>

namespace vmp {

struct Smoothing {
  double windows;  // time constant of the exponential average of the scores, in windows; 0 does not average
  double seconds;  // time constant in seconds, instead of `windows`; negative for none
  double margin;   // how much the averaged score of a new label must exceed that of the shown label
  int32_t hold;    // number of windows in a row in which it must do so

  // Throws Error (ARGUMENT) if a value is out of range.
  void check() const;
};

class Smoother {
 public:
  explicit Smoother(const Smoothing& smoothing) : smoothing_(smoothing) {}

  void reset() { average_.clear(); }

  // Average a window's scores (classes) in place with those of earlier windows. Return the class to show.
  //   timestamp: timestamp of the window's newest frame, in seconds
  int32_t update(std::vector<float>& scores, double timestamp);

 private:
  double weight(double elapsed) const;
  void settle();

  const Smoothing smoothing_;
  std::vector<double> average_;
  double timestamp_ = 0;
  int32_t shown_ = 0, challenger_ = 0, leads_ = 0;  // leads_: windows in a row that the challenger has led
};

}  // namespace vmp
