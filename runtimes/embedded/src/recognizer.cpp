#include "recognizer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "error.h"

namespace vmp {
namespace {

// In double precision, and relative to the largest logit, so that no exponential overflows.
void softmax(std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  std::vector<double> exponentials;
  for (const float logit : logits) {
    exponentials.push_back(std::exp(logit - largest));
    sum += exponentials.back();
  }
  std::transform(exponentials.begin(), exponentials.end(), logits.begin(),
                 [sum](double x) { return static_cast<float>(x / sum); });
}

}  // namespace

Recognizer::Recognizer(const Bundle& bundle, int32_t threads, const std::string& libraries)
    : folder_(bundle.folder), manifest_(bundle.manifest), engine_(bundle, threads, libraries) {}

Recognizer::Turn::Turn(Recognizer& recognizer) : recognizer_(recognizer) {
  std::unique_lock<std::mutex> lock(recognizer.mutex_);
  const uint64_t ours = recognizer.asked_++;
  recognizer.turn_over_.wait(lock, [&] { return recognizer.over_ == ours; });
}

Recognizer::Turn::~Turn() {
  const std::lock_guard<std::mutex> lock(recognizer_.mutex_);
  ++recognizer_.over_;
  recognizer_.turn_over_.notify_all();
}

size_t Recognizer::frame_size() const {
  const auto side = static_cast<size_t>(manifest().preprocessing.image_size);
  return 3 * side * side;
}

std::vector<float> Recognizer::run(const Turn&, const std::vector<float>& video) {
  std::vector<float> scores(manifest().labels.size());
  engine_.run(video.data(), scores.data());
  if (!std::all_of(scores.begin(), scores.end(), [](float x) { return std::isfinite(x); }))
    throw Error(VMP_EDGE_ERROR_ENGINE,
                folder_ + " gave values that are not finite: build it again and check its weights");
  softmax(scores);
  return scores;
}

std::vector<float> Recognizer::predict(const vmp_edge_frame* frames, int32_t count) {
  const int64_t picked = manifest().frames;
  std::vector<float> video(static_cast<size_t>(picked) * frame_size());
  for (int32_t i = 0; i < count; ++i) check_frame(frames[i]);
  for (int64_t i = 0; i < picked; ++i)  // pick the middle of each of as many equal parts
    manifest().preprocessing.prepare(frames[(2 * i + 1) * count / (2 * picked)],
                                     video.data() + static_cast<size_t>(i) * frame_size());
  return run(Turn(*this), video);
}

Result::Result(std::shared_ptr<const Recognizer> recognizer, std::vector<float> all_scores, int32_t class_index,
               int32_t count)
    : vmp_edge_result{}, recognizer_(std::move(recognizer)), scores_(std::move(all_scores)) {
  const std::vector<std::string>& labels = recognizer_->manifest().labels;
  std::vector<int32_t> order(scores_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto score = [this](int32_t label) { return scores_[static_cast<size_t>(label)]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
  for (int32_t i = 0; i < std::min(count, static_cast<int32_t>(order.size())); ++i) {
    const int32_t index = order[static_cast<size_t>(i)];
    top_.push_back({index, score(index), labels[static_cast<size_t>(index)].c_str()});
  }
  struct_size = sizeof(vmp_edge_result);
  label = class_index < 0 ? order[0] : class_index;
  name = labels[static_cast<size_t>(label)].c_str();
  vmp_edge_result::score = score(label);
  classes = static_cast<int32_t>(scores_.size());
  scores = scores_.data();
  num_top = static_cast<int32_t>(top_.size());
  top = top_.data();
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace vmp
