#include "threads.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace vmp {
namespace {

// How many pieces to cut tasks into: several for each thread evens out their speeds.
int64_t pieces_for(int64_t count, int64_t threads) { return count < 4 * threads ? count : 4 * threads; }

// Tasks that whoever works on them takes piece by piece.
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

// Threads that live as long as the process, started when first asked for. One call uses them at a time; another call
// meanwhile runs on its own thread alone. Deliberately never destroyed: nothing has to be joined at exit.
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
      wanted_ = busy_ = helpers;
      ++round_;
    }
    wake_.notify_all();
    pieces.work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
  }

  std::mutex running_;  // held while a call uses the threads, and while the process forks

 private:
  int grow(int wanted) {  // how many helpers there are, at most `wanted`
    while (started_ < wanted) {
      try {
        std::thread([this, index = started_] { serve(index); }).detach();
      } catch (const std::system_error&) {
        break;  // fewer threads do the same work
      }
      ++started_;
    }
    return started_ < wanted ? started_ : wanted;
  }

  void serve(int index) {
    uint64_t seen = 0;
    for (;;) {
      Pieces* pieces = nullptr;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (index >= wanted_) continue;
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
  int started_ = 0, wanted_ = 0, busy_ = 0;
  Pieces* pieces_ = nullptr;
};

std::atomic<Pool*> the_pool{nullptr};

// A forked child has none of its parent's threads: it starts with a new pool and leaves the old one alone.
void before_fork() { the_pool.load()->running_.lock(); }
void in_parent() { the_pool.load()->running_.unlock(); }
void in_child() { the_pool.store(new Pool); }

Pool& pool() {
  static const bool once = [] {
    the_pool.store(new Pool);
    pthread_atfork(before_fork, in_parent, in_child);
    return true;
  }();
  (void)once;
  return *the_pool.load();
}

}  // namespace

void run_parallel(const vmp_threads* threads, int64_t count, vmp_range_fn range, void* job) {
  if (count <= 0) return;
  if (threads && threads->parallel_for) return threads->parallel_for(threads->pool, count, range, job);
  const int64_t wanted = threads ? threads->num_threads : 1;
  if (wanted <= 1 || count == 1) return range(job, 0, count);
  pool().run(static_cast<int>(wanted < count ? wanted : count), count, range, job);
}

}  // namespace vmp

extern "C" VMP_API void vmp_parallel_for_openmp(void* pool, int64_t count, vmp_range_fn range, void* job) {
  const auto* team = static_cast<const vmp_openmp*>(pool);
  if (team->num_threads <= 1 || count <= 1) return range(job, 0, count);
  vmp::Pieces pieces{range, job, count, vmp::pieces_for(count, team->num_threads)};
  team->parallel([](void* data) { static_cast<vmp::Pieces*>(data)->work(); }, &pieces, team->num_threads, 0);
}
