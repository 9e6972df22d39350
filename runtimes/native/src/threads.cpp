#include "threads.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace vmp {
namespace {

// Return the number of pieces that tasks are cut into: several for each thread, to even out the threads' speeds.
int64_t pieces_for(int64_t count, int64_t threads) { return count < 4 * threads ? count : 4 * threads; }

// Tasks that the working threads take piece by piece.
struct Pieces {
  vmp_range_fn range;
  void* job;
  int64_t count, pieces;
  std::atomic<int64_t> next{0};

  void work() {
    for (;;) {
      const int64_t piece = next.fetch_add(1, std::memory_order_relaxed);
      if (piece >= pieces) return;
      range(job, piece * count / pieces, (piece + 1) * count / pieces);
    }
  }
};

// Threads that are started at the first use and live as long as the process. One call at a time uses them; a second
// call meanwhile works in its own thread alone. A pool is never destroyed, on purpose: no thread has to be joined at
// exit.
class Pool {
 public:
  void run(int threads, int64_t count, vmp_range_fn range, void* job) {
    std::unique_lock<std::mutex> only(running_, std::try_to_lock);
    if (!only.owns_lock()) return range(job, 0, count);
    const int helpers = grow(threads - 1);
    if (helpers == 0) return range(job, 0, count);
    Pieces pieces{range, job, count, pieces_for(count, threads)};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      pieces_ = &pieces;
      helpers_ = busy_ = helpers;
      ++round_;
    }
    wake_.notify_all();
    pieces.work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
  }

  std::mutex running_;  // held while a call uses the threads, and while the process forks

 private:
  // Start helper threads until there are `count`. Return how many of them there are, at most `count`.
  int grow(int count) {
    while (started_ < count) {
      try {
        std::thread([this, index = started_] { serve(index); }).detach();
      } catch (const std::system_error&) {
        break;  // the threads that exist do all the work
      }
      ++started_;
    }
    return started_ < count ? started_ : count;
  }

  void serve(int index) {
    uint64_t last_round = 0;
    for (;;) {
      Pieces* pieces = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != last_round; });
        last_round = round_;
        if (index >= helpers_) continue;
        pieces = pieces_;
      }
      pieces->work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  uint64_t round_ = 0;
  int started_ = 0, helpers_ = 0, busy_ = 0;
  Pieces* pieces_ = nullptr;
};

std::atomic<Pool*> the_pool{nullptr};

// A forked child has none of its parent's threads. It starts with a new pool and does not touch the old one.
void before_fork() { the_pool.load()->running_.lock(); }
void in_parent() { the_pool.load()->running_.unlock(); }
void in_child() { the_pool.store(new Pool); }

Pool& pool() {
  static const bool initialised = [] {
    the_pool.store(new Pool);
    pthread_atfork(before_fork, in_parent, in_child);
    return true;
  }();
  (void)initialised;
  return *the_pool.load();
}

}  // namespace

void run_parallel(const vmp_threads* threads, int64_t count, vmp_range_fn range, void* job) {
  if (count <= 0) return;
  if (threads && threads->parallel_for) return threads->parallel_for(threads->pool, count, range, job);
  const int64_t num_threads = threads ? threads->num_threads : 1;
  if (num_threads <= 1 || count == 1) return range(job, 0, count);
  pool().run(static_cast<int>(num_threads < count ? num_threads : count), count, range, job);
}

}  // namespace vmp

extern "C" VMP_API void vmp_parallel_for_openmp(void* pool, int64_t count, vmp_range_fn range, void* job) {
  const auto* team = static_cast<const vmp_openmp*>(pool);
  if (team->num_threads <= 1 || count <= 1) return range(job, 0, count);
  vmp::Pieces pieces{range, job, count, vmp::pieces_for(count, team->num_threads)};
  team->parallel([](void* data) { static_cast<vmp::Pieces*>(data)->work(); }, &pieces, team->num_threads, 0);
}
