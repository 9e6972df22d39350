// The frame ring: a camera's thread puts prepared frames in, and a recogniser takes windows out.
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

// The frames of a window that was read.
struct Gathered {
  double first_timestamp, timestamp;  // timestamps of the oldest and the newest frame, in seconds
  int64_t frame;                      // number of the newest frame, counted from 0
  int64_t generation;                 // number of calls of `clear` before the frames came in
};

// The newest `window.capacity()` prepared frames. Any thread may call any function.
//
// When the ring is full, a new frame replaces the oldest one, which counts as dropped if no window ever covered it. A
// frame that is being read is never overwritten: there are as many spare slots as a window has frames. Frames are
// written and read outside the lock, so that neither side waits for the other's pixels.
//
// Of frames that come faster than windows by time can tell apart, only some are kept. The others are not prepared:
// - The ring passes over a frame that comes less than `window.min_spacing()` after the last one that it kept.
// - For a sparse window with the period P = 1 / fps, time is cut into periods from the first frame on. The ring keeps
//   the first frame of each period. It also keeps the newest frame if a window is due with it, until the next frame that
//   it keeps. A window takes the newest frame and T - 1 of the others, which are up to half a period (and half the
//   camera's frame interval) from where a ring with all frames would take them.
class FrameRing {
 public:
  FrameRing(const Preprocessing& preprocessing, const Window& window);

  // Prepare a frame and put it in. Throws Error (ARGUMENT) if the frame is invalid or older than the previous one, or
  // its timestamp cannot be seconds.
  void push(const vmp_edge_frame& frame);

  bool due() const;  // whether there is a complete window that ends `hop` frames or more after the last one read
  bool wait();       // wait until a window is due or the ring is closed; return whether one is due

  // Copy the newest window to out (T, 3, S, S). Return nothing if there are too few frames.
  std::optional<Gathered> read(float* out);

  void clear();  // forget all frames, so that timestamps may start again; the counts continue
  void close();  // wake the threads in `wait`, and let no thread wait
  void open();   // let threads wait again

  int64_t generation() const;  // number of calls of `clear`
  int64_t pushed() const;
  int64_t dropped() const;

 private:
  struct Kept {
    int64_t sequence;
    double timestamp;
    int32_t slot;
    bool seen;     // a window has covered it
    bool passing;  // it stays only until the next one, because a sparse window is due with it
  };

  float* slot(int32_t index) { return slots_.data() + static_cast<size_t>(index) * frame_size_; }
  std::optional<int32_t> reserve(double timestamp);
  void commit(std::optional<int32_t> slot, double timestamp);
  std::vector<Kept> pin(int64_t& generation);
  void unpin();
  bool is_due() const;
  bool is_due_with(double timestamp) const;
  void release(int32_t slot);
  std::vector<double> timestamps() const;

  const Preprocessing& preprocessing_;
  const Window window_;
  const size_t frame_size_;
  std::vector<float> slots_;  // (slots, 3, S, S)
  std::mutex writing_, reading_;
  mutable std::mutex mutex_;  // guards the members below
  std::condition_variable changed_;
  std::vector<int32_t> free_;
  std::deque<Kept> kept_;
  std::set<int32_t> pinned_;  // slots of the window that is being read
  int64_t pushed_ = 0, dropped_ = 0, generation_ = 0;
  std::optional<int64_t> read_at_;  // number of pushed frames when the last window was chosen
  double last_timestamp_ = -std::numeric_limits<double>::infinity();
  double next_period_ = -std::numeric_limits<double>::infinity();  // when a sparse window's next period begins
  bool closed_ = false;
};

}  // namespace vmp
