#include "ring.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <string>

#include "error.h"
#include "names.h"

namespace vmp {
namespace {

// In seconds. Clocks that count from 1970 are far below; milliseconds since 1970, a likely mistake, are above.
constexpr double kLargestTimestamp = 1e11;

double monotonic() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

FrameRing::FrameRing(const Preprocessing& preprocessing, const Window& window)
    : preprocessing_(preprocessing),
      window_(window),
      frame_size_(3 * static_cast<size_t>(preprocessing.image_size) * static_cast<size_t>(preprocessing.image_size)) {
  const int32_t count = window.capacity() + window.frames + 1;  // kept, being read, being written
  slots_.resize(static_cast<size_t>(count) * frame_size_);
  for (int32_t i = 0; i < count; ++i) free_.push_back(i);
}

void FrameRing::push(const vmp_edge_frame& frame) {
  check_frame(frame);
  if (!(std::abs(frame.timestamp) <= kLargestTimestamp))  // also true of NaN
    throw bad_argument("the frame's timestamp is " + decimal(frame.timestamp) +
                       ": it must be a finite number of seconds, below 1e11");
  const std::lock_guard<std::mutex> writing(writing_);  // one frame at a time, so that frames stay in order
  const double timestamp = frame.timestamp < 0 ? monotonic() : frame.timestamp;
  const std::optional<int32_t> reserved = reserve(timestamp);
  try {
    if (reserved) preprocessing_.prepare(frame, slot(*reserved));
  } catch (...) {  // there was no memory
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(*reserved);
    throw;
  }
  commit(reserved, timestamp);
}

bool FrameRing::due() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return is_due();
}

bool FrameRing::wait() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return closed_ || is_due(); });
  return is_due();
}

std::optional<Gathered> FrameRing::read(float* out) {
  const std::lock_guard<std::mutex> reading(reading_);
  int64_t generation = 0;
  const std::vector<Kept> chosen = pin(generation);
  if (chosen.empty()) return std::nullopt;
  for (const Kept& kept : chosen) {
    std::memcpy(out, slot(kept.slot), frame_size_ * sizeof(float));
    out += frame_size_;
  }
  unpin();
  return Gathered{chosen.front().timestamp, chosen.back().timestamp, chosen.back().sequence, generation};
}

void FrameRing::clear() {
  const std::lock_guard<std::mutex> writing(writing_);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Kept& kept : kept_)
    if (!pinned_.count(kept.slot)) free_.push_back(kept.slot);
  kept_.clear();
  read_at_.reset();
  last_timestamp_ = next_period_ = -std::numeric_limits<double>::infinity();
  ++generation_;
}

void FrameRing::close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

void FrameRing::open() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = false;
}

int64_t FrameRing::generation() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return generation_;
}

int64_t FrameRing::pushed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return pushed_;
}

int64_t FrameRing::dropped() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return dropped_;
}

// Take a free slot, of which there is always one. Return nothing if the frame is to be skipped.
std::optional<int32_t> FrameRing::reserve(double timestamp) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!(timestamp >= last_timestamp_))
    throw bad_argument("timestamps must not run backwards (" + decimal(timestamp) + " after " +
                       decimal(last_timestamp_) + "): reset the stream when its source starts again");
  last_timestamp_ = timestamp;
  const bool wanted = window_.sparse ? timestamp >= next_period_ || is_due_with(timestamp)
                                     : kept_.empty() || timestamp - kept_.back().timestamp >= window_.min_spacing();
  if (!wanted) return std::nullopt;
  const int32_t slot = free_.back();
  free_.pop_back();
  return slot;
}

void FrameRing::commit(std::optional<int32_t> slot, double timestamp) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (slot) {
    // Remove frames only now: until the new frame was complete, a window needed them.
    if (!kept_.empty() && kept_.back().passing) {
      release(kept_.back().slot);
      kept_.pop_back();
    }
    if (static_cast<int32_t>(kept_.size()) == window_.capacity()) {
      const Kept oldest = kept_.front();
      kept_.pop_front();
      const bool late = !read_at_ || pushed_ >= *read_at_ + window_.hop;
      // A frame that a long hop leaves out on purpose is not late and not dropped.
      dropped_ += late && !oldest.seen;
      release(oldest.slot);
    }
    const bool passing = window_.sparse && timestamp < next_period_;
    if (window_.sparse && !passing) next_period_ = window_.next_period(next_period_, timestamp);
    kept_.push_back({pushed_, timestamp, *slot, false, passing});
  }
  ++pushed_;
  if (is_due()) changed_.notify_all();
}

// Choose the newest window, and keep its slots from being reused.
std::vector<FrameRing::Kept> FrameRing::pin(int64_t& generation) {
  const std::lock_guard<std::mutex> lock(mutex_);
  generation = generation_;
  std::vector<Kept> chosen;
  for (const int32_t index : window_.select(timestamps())) chosen.push_back(kept_[static_cast<size_t>(index)]);
  if (chosen.empty()) return chosen;
  for (const Kept& kept : chosen) pinned_.insert(kept.slot);
  // Frames between windows that a long hop leaves out on purpose do not count as dropped either.
  const int64_t first = std::min(chosen.front().sequence, pushed_ - window_.hop);
  for (Kept& kept : kept_) kept.seen |= kept.sequence >= first;
  read_at_ = pushed_;
  return chosen;
}

void FrameRing::unpin() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const int32_t slot : pinned_) {
    const bool kept = std::any_of(kept_.begin(), kept_.end(), [slot](const Kept& k) { return k.slot == slot; });
    if (!kept) free_.push_back(slot);
  }
  pinned_.clear();
}

void FrameRing::release(int32_t slot) {
  if (!pinned_.count(slot)) free_.push_back(slot);  // otherwise `unpin` frees it
}

// Return whether a sparse window would be due if this frame were in the ring.
bool FrameRing::is_due_with(double timestamp) const {
  if (read_at_ && pushed_ + 1 - *read_at_ < window_.hop) return false;
  std::vector<double> times;
  for (const Kept& kept : kept_)
    if (!kept.passing) times.push_back(kept.timestamp);
  times.push_back(timestamp);
  return !window_.select(times).empty();
}

bool FrameRing::is_due() const {
  if (read_at_) {
    const bool nothing_new = kept_.empty() || kept_.back().sequence < *read_at_;
    if (nothing_new || pushed_ - *read_at_ < window_.hop) return false;
  }
  return !window_.select(timestamps()).empty();
}

std::vector<double> FrameRing::timestamps() const {
  std::vector<double> result;
  for (const Kept& kept : kept_) result.push_back(kept.timestamp);
  return result;
}

}  // namespace vmp
