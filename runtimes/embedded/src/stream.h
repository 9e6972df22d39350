// Turns a stream of frames into a stream of results: frame ring, sliding window, engine, smoothing.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "error.h"
#include "recognizer.h"
#include "ring.h"
#include "smoothing.h"

namespace vmp {

class Stream {
 public:
  // Throws Error (ARGUMENT) if a value of the configuration is out of range.
  Stream(std::shared_ptr<Recognizer> recognizer, const vmp_edge_stream_config& config);
  ~Stream();

  void push(const vmp_edge_frame& frame);
  bool is_ready() const;
  std::unique_ptr<Result> get_result();  // null if there is none
  void start(vmp_edge_callback callback, void* user);
  void stop();
  void reset();
  void get_statistics(vmp_edge_statistics& statistics) const;

 private:
  std::unique_ptr<Result> recognise();
  void work(vmp_edge_callback callback, void* user);
  void end_thread();
  void check_thread() const;  // throw the error with which the stream's own thread failed, if it did

  const std::shared_ptr<Recognizer> recognizer_;
  const int32_t top_;
  FrameRing ring_;
  std::mutex recognising_;  // held while a window is read and recognised; guards video_
  std::vector<float> video_;
  std::mutex control_;  // held while the thread is started or stopped
  std::thread thread_;
  mutable std::mutex mutex_;  // guards the members below
  Smoother smoother_;
  std::optional<Error> failure_;
  std::unique_ptr<Result> latest_;  // with a thread and no callback: the newest result, if not taken yet
  bool running_ = false;
  int64_t epoch_ = 0;  // number of resets: results from before a reset are discarded after it
  int64_t windows_ = 0;
  std::deque<double> arrivals_, pushes_, latencies_;
};

}  // namespace vmp
