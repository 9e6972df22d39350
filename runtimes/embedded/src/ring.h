// The frame ring: where a camera's thread leaves prepared frames and a recogniser picks its windows.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <limits>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "preprocessing.h"
#include "window.h"

namespace vmp {

// What was gathered.
struct Gathered {
  double first_timestamp, timestamp;  // of the oldest and the newest frame, in seconds
  int64_t frame;                      // how many frames were pushed before the newest
};

// Prepared frames, the newest `window.capacity()` of them. Every function may be called from any thread.
//
// When it is full, the oldest frame goes; one that no window ever reached over counts as dropped. A frame that is being
// gathered is never written over: there are as many spare slots as a window has frames. Frames are prepared and
// gathered outside the lock, so that neither side waits for the other's pixels.
class FrameRing {
 public:
  FrameRing(const Preprocessing& preprocessing, const Window& window);

  // Throws Error (ARGUMENT): the frame is none, or its time is before the last one's.
  void push(const vmp_edge_frame& frame);

  bool due() const;  // a window is complete that ends `hop` frames or more after the last one that was read
  bool wait();       // until a window is due or the ring is closed; whether one is due

  // Gathers the newest window into out (T, 3, S, S); nothing if there are too few frames as yet.
  std::optional<Gathered> read(float* out);

  void clear();  // forgets all frames; timestamps may start again; the counts go on
  void close();  // wakes who waits
  void open();   // lets them wait again

  int64_t pushed() const;
  int64_t dropped() const;

 private:
  struct Kept {
    int64_t sequence;
    double timestamp;
    int32_t slot;
    bool seen;  // a window has reached over it
  };

  float* slot(int32_t index) { return slots_.data() + static_cast<size_t>(index) * frame_size_; }
  std::optional<int32_t> reserve(double timestamp);
  void commit(std::optional<int32_t> slot, double timestamp);
  std::vector<Kept> pin();
  void unpin();
  bool is_due() const;
  std::vector<double> timestamps() const;

  const Preprocessing& preprocessing_;
  const Window window_;
  const size_t frame_size_;
  std::vector<float> slots_;  // (slots, 3, S, S)
  std::mutex writing_, reading_;
  mutable std::mutex mutex_;  // over what follows
  std::condition_variable changed_;
  std::vector<int32_t> free_;
  std::deque<Kept> kept_;
  std::set<int32_t> pinned_;  // slots that a window is being gathered from
  int64_t pushed_ = 0, dropped_ = 0;
  std::optional<int64_t> read_at_;  // how many frames had come in when the last window was picked
  double last_timestamp_ = -std::numeric_limits<double>::infinity();
  bool closed_ = false;
};

}  // namespace vmp
