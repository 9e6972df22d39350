#include "stream.h"

#include <algorithm>
#include <cmath>
#include <exception>

namespace vmp {
namespace {

constexpr size_t kRecent = 512, kRecentArrivals = 64;  // number of values of the statistics

Window make_window(const Manifest& manifest, const vmp_edge_stream_config& config) {
  if (config.stride && config.fps != 0) throw bad_argument("give stride or fps, not both");
  Window window{manifest.frames, config.stride, config.fps, config.hop};
  if (!window.stride && window.fps == 0) {
    window.fps = manifest.window_rate();
    window.stride = window.fps > 0 ? 0 : 1;
    window.sparse = manifest.span > 0;
  }
  window.check();
  return window;
}

Smoothing make_smoothing(const vmp_edge_stream_config& config) {
  const Smoothing smoothing{config.smoothing_windows, config.smoothing_seconds, config.smoothing_margin,
                            config.smoothing_hold};
  smoothing.check();
  return smoothing;
}

void remember(std::deque<double>& values, double value, size_t count) {
  values.push_back(value);
  if (values.size() > count) values.pop_front();
}

// Return the percentile, interpolated between the two nearest values like numpy's; 0 if there are no values.
double percentile(const std::deque<double>& values, double share) {
  if (values.empty()) return 0;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const double above = sorted[std::min(below + 1, sorted.size() - 1)];
  return sorted[below] + (place - static_cast<double>(below)) * (above - sorted[below]);
}

}  // namespace

Stream::Stream(std::shared_ptr<Recognizer> recognizer, const vmp_edge_stream_config& config)
    : recognizer_(std::move(recognizer)),
      top_(config.top),
      ring_(recognizer_->manifest().preprocessing, make_window(recognizer_->manifest(), config)),
      video_(static_cast<size_t>(recognizer_->manifest().frames) * recognizer_->frame_size()),
      smoother_(make_smoothing(config)) {
  if (top_ < 0) throw bad_argument("top is " + std::to_string(top_) + "; it must be 0 or more");
}

Stream::~Stream() {
  if (!thread_.joinable()) return;
  ring_.close();
  // The own thread may be the last that held the stream: it ends right after this.
  thread_.get_id() == std::this_thread::get_id() ? thread_.detach() : thread_.join();
}

void Stream::push(const vmp_edge_frame& frame) {
  check_thread();
  const double start = seconds();
  ring_.push(frame);
  const double end = seconds();
  const std::lock_guard<std::mutex> lock(mutex_);
  remember(arrivals_, end, kRecentArrivals);
  remember(pushes_, end - start, kRecent);
}

bool Stream::is_ready() const {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (latest_) return true;
    if (running_) return false;
  }
  return ring_.due();
}

std::unique_ptr<Result> Stream::get_result() {
  check_thread();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (latest_) return std::move(latest_);
    if (running_) return nullptr;
  }
  std::optional<Scored> scored = recognise();
  return scored ? finish(std::move(*scored)) : nullptr;
}

std::optional<Stream::Scored> Stream::recognise() {
  const std::lock_guard<std::mutex> recognising(recognising_);
  if (!ring_.due()) return std::nullopt;
  const double start = seconds();
  const Recognizer::Turn turn(*recognizer_);
  // The window is read when its turn has come: while the stream waited, newer frames may have come in.
  const std::optional<Gathered> window = ring_.read(video_.data());
  if (!window) return std::nullopt;
  return Scored{*window, recognizer_->run(turn, video_), start};
}

std::unique_ptr<Result> Stream::finish(Scored scored) {
  const Gathered& window = scored.window;
  const int64_t dropped = ring_.dropped();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (window.generation != ring_.generation()) return nullptr;
  if (window.generation != generation_) smoother_.reset();
  generation_ = window.generation;
  const int32_t label = smoother_.update(scored.scores, window.timestamp);
  auto result = std::make_unique<Result>(recognizer_, std::move(scored.scores), label, top_);
  result->first_timestamp = window.first_timestamp;
  result->timestamp = window.timestamp;
  result->frame = window.frame;
  result->dropped = dropped;
  result->latency = seconds() - scored.start;
  remember(latencies_, result->latency, kRecent);
  ++windows_;
  return result;
}

void Stream::deliver(Scored scored, vmp_edge_callback callback, void* user) {
  const std::lock_guard<std::mutex> delivering(delivering_);
  std::unique_ptr<Result> result = finish(std::move(scored));
  if (!result) return;
  if (callback) return callback(result.get(), nullptr, user);
  const std::lock_guard<std::mutex> lock(mutex_);
  latest_ = std::move(result);
}

void Stream::start(vmp_edge_callback callback, void* user) {
  if (in_own_thread()) throw Error(VMP_EDGE_ERROR_STATE, "the stream was started already");
  const std::lock_guard<std::mutex> control(control_);
  if (closed_) throw Error(VMP_EDGE_ERROR_STATE, "the stream is being destroyed");
  if (thread_.joinable()) throw Error(VMP_EDGE_ERROR_STATE, "the stream was started already");
  ring_.open();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_.reset();
    running_ = true;
  }
  try {
    thread_ = std::thread([self = shared_from_this(), callback, user] { self->work(callback, user); });
  } catch (...) {
    const std::lock_guard<std::mutex> lock(mutex_);
    running_ = false;
    throw;
  }
}

void Stream::work(vmp_edge_callback callback, void* user) {
  worker_ = std::this_thread::get_id();
  std::optional<Error> failure;
  try {
    while (ring_.wait() && !closed_)
      if (std::optional<Scored> scored = recognise()) deliver(std::move(*scored), callback, user);
  } catch (const Error& error) {
    failure.emplace(error);
  } catch (const std::bad_alloc&) {
    failure.emplace(VMP_EDGE_ERROR_MEMORY, "out of memory");
  } catch (const std::exception& error) {
    failure.emplace(VMP_EDGE_ERROR_INTERNAL, error.what());
  }
  if (failure && callback) callback(nullptr, failure->what(), user);
  worker_ = std::thread::id();
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failure) failure_.emplace(*failure);
}

void Stream::end_thread(bool for_good) {
  const std::lock_guard<std::mutex> control(control_);
  if (thread_.joinable()) {
    ring_.close();
    thread_.join();
    const std::lock_guard<std::mutex> lock(mutex_);
    running_ = false;
  }
  if (for_good) closed_ = true;
}

void Stream::stop() {
  if (in_own_thread())
    throw Error(VMP_EDGE_ERROR_STATE,
                "the stream cannot be stopped from its own callback: stop it from another thread");
  {
    const std::lock_guard<std::mutex> control(control_);
    if (!thread_.joinable()) throw Error(VMP_EDGE_ERROR_STATE, "the stream was not started");
  }
  end_thread(false);
  check_thread();
}

void Stream::close() {
  if (!in_own_thread()) return end_thread(true);
  closed_ = true;  // no window that is due is recognised after the callback
  ring_.close();
}

void Stream::check_thread() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (failure_) throw *failure_;
}

void Stream::reset() {
  ring_.clear();
  std::unique_lock<std::mutex> delivering(delivering_, std::defer_lock);
  if (!in_own_thread()) delivering.lock();  // otherwise the own thread calls this function from the callback
  const std::lock_guard<std::mutex> lock(mutex_);
  latest_.reset();
  arrivals_.clear();
  if (generation_ != ring_.generation()) smoother_.reset();
}

void Stream::get_statistics(vmp_edge_statistics& statistics) const {
  statistics.frames = ring_.pushed();
  statistics.dropped = ring_.dropped();
  const std::lock_guard<std::mutex> lock(mutex_);
  const double elapsed = arrivals_.size() > 1 ? arrivals_.back() - arrivals_.front() : 0;
  statistics.windows = windows_;
  statistics.frames_per_second = elapsed > 0 ? static_cast<double>(arrivals_.size() - 1) / elapsed : 0;
  statistics.latency_p50 = percentile(latencies_, 0.5);
  statistics.latency_p95 = percentile(latencies_, 0.95);
  statistics.push_p50 = percentile(pushes_, 0.5);
  statistics.push_p95 = percentile(pushes_, 0.95);
}

}  // namespace vmp
