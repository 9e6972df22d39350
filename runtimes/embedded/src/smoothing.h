// Steady results from noisy windows: the arithmetic of vmp_edge/stream/smoothing.py.
#pragma once

#include <cstdint>
#include <vector>

namespace vmp {

struct Smoothing {
  double windows;  // time constant of the exponential average of the scores, in windows; 0 does not average
  double seconds;  // the same in seconds, instead; negative for none
  double margin;   // how much a new label's averaged score must exceed that of the label shown ...
  int32_t hold;    // ... in how many windows in a row

  // Throws Error (ARGUMENT): a value is out of range.
  void check() const;
};

class Smoother {
 public:
  explicit Smoother(const Smoothing& smoothing) : smoothing_(smoothing) {}

  void reset() { average_.clear(); }

  // Takes a window's scores (classes) in and makes them the averaged ones; the class to show.
  //   timestamp: of the window's newest frame, in seconds
  int32_t update(std::vector<float>& scores, double timestamp);

 private:
  double weight(double elapsed) const;
  void settle();

  const Smoothing smoothing_;
  std::vector<double> average_;
  double timestamp_ = 0;
  int32_t shown_ = 0, challenger_ = 0, leads_ = 0;  // how many windows in a row the challenger has led
};

}  // namespace vmp
