#include "manifest.h"

#include <algorithm>
#include <set>

#include "error.h"
#include "names.h"
#include "yaml_tree.h"

namespace vmp {
namespace {

constexpr int64_t kFormat = 1;
constexpr int64_t kWithEmbedding = 2;  // the program takes tokens, which a second program computes
constexpr int64_t kWithSampling = 3;   // `sampling` says how the frames of a clip lie in time
constexpr int64_t kWithStates = 4;     // the program takes a step of a causal model and `states`

// The limits of vmp_edge/bundle/manifest.py and vmp_edge/preprocessing.py.
constexpr int64_t kMostFrames = 1024;
constexpr int64_t kLargestImage = 4096;   // pixels
constexpr int64_t kMostPixels = 1 << 25;  // of all frames together
constexpr int64_t kMostFeatures = 1 << 16;
constexpr double kSlowest = 0.001, kFastest = 1000;    // frames per second
constexpr double kShortest = 0.001, kLongest = 86400;  // seconds of a clip
constexpr double kLargestValue = 1000, kSmallestStd = 1e-6;
constexpr size_t kLongestFileName = 120;

// A mapping of the manifest. Each getter checks that the key is there and has the right type, and names it if not.
class Entry {
 public:
  Entry(const Yaml& yaml, std::string where) : yaml_(yaml), where_(std::move(where)) {
    if (yaml.kind != Yaml::Kind::mapping)
      throw bad_bundle("needs a mapping" + (where_.empty() ? "" : " for " + where_));
  }

  bool has(const std::string& key) const { return yaml_.find(key) != nullptr; }
  const Yaml& yaml() const { return yaml_; }

  const Yaml& at(const std::string& key) const {
    const Yaml* value = yaml_.find(key);
    if (!value) throw bad_bundle("lacks '" + path(key) + "'");
    return *value;
  }

  Entry entry(const std::string& key) const { return Entry(at(key), path(key)); }

  // A text that may be a name.
  std::string text(const std::string& key) const {
    const Yaml& value = at(key);
    if (value.kind != Yaml::Kind::text || value.text.empty()) throw wrong(key, "a text");
    check_name(key, value.text);
    return value.text;
  }

  double number(const std::string& key, double minimum, double maximum) const {
    const Yaml& value = at(key);
    if (!value.is_number()) throw wrong(key, "a number");
    if (value.number < minimum || value.number > maximum) throw wrong(key, "a positive number in a sensible range");
    return value.number;
  }

  int64_t integer(const std::string& key, int64_t minimum, int64_t maximum) const {
    const Yaml& value = at(key);
    if (value.kind != Yaml::Kind::integer) throw wrong(key, "a whole number");
    if (value.integer < minimum || value.integer > maximum)
      throw bad_bundle("needs " + std::to_string(minimum) + " to " + std::to_string(maximum) + " for '" + path(key) +
                       "', found " + value.text);
    return value.integer;
  }

  // A list of texts that may be names.
  std::vector<std::string> texts(const std::string& key) const {
    const std::vector<std::string> texts = labels(key);
    for (const std::string& text : texts) check_name(key, text);
    return texts;
  }

  // A list of texts, whatever the texts are.
  std::vector<std::string> labels(const std::string& key, size_t least = 1) const {
    const Yaml& list = at(key);
    if (list.kind != Yaml::Kind::list || list.items.size() < least) throw wrong(key, "a list of texts");
    std::vector<std::string> texts;
    for (const Yaml& item : list.items) {
      if (item.kind != Yaml::Kind::text)
        throw wrong(key, "a list of texts (in quotes where they look like something else)");
      texts.push_back(item.text);
    }
    return texts;
  }

  void three_numbers(const std::string& key, double minimum, double* numbers) const {
    const Yaml& list = at(key);
    if (list.kind != Yaml::Kind::list || list.items.size() != 3) throw wrong(key, "three numbers");
    for (const Yaml& item : list.items) {
      if (!item.is_number()) throw wrong(key, "three numbers");
      if (item.number < minimum || item.number > kLargestValue) throw wrong(key, "three numbers in a sensible range");
      *numbers++ = item.number;
    }
  }

 private:
  std::string path(const std::string& key) const { return where_.empty() ? key : where_ + "." + key; }
  Error wrong(const std::string& key, const char* expected) const {
    return bad_bundle(std::string("needs ") + expected + " for '" + path(key) + "'");
  }
  void check_name(const std::string& key, const std::string& text) const {
    const std::string problem = unfit_name(text);
    if (!problem.empty()) throw bad_bundle("has " + shown(text) + " for '" + path(key) + "': " + problem);
  }

  const Yaml& yaml_;
  std::string where_;
};

// Return whether a name is that of a file directly inside a folder: no separators, no "..", not hidden. Its characters
// are ASCII, which no file system normalises, and no blank or dot is at its end, which some systems drop.
bool is_plain_name(const Yaml& key) {
  const std::string& name = key.text;
  if (key.kind != Yaml::Kind::text || name.empty() || name.size() > kLongestFileName) return false;
  if (name[0] == '.' || name[0] == ' ' || name.back() == '.' || name.back() == ' ') return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return c >= ' ' && c <= '~' && c != '/' && c != '\\' && c != ':'; });
}

std::string lower(std::string name) {
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return name;
}

// Check that the keys are plain names, of which no two differ only in upper and lower case.
void check_plain_names(const Entry& entry, const char* what) {
  std::set<std::string> names;
  for (const auto& [key, value] : entry.yaml().entries) {
    if (!is_plain_name(key))
      throw bad_bundle(std::string("lists the ") + what + " " + shown(key.text) +
                       ": only plain names inside the bundle's folder are allowed");
    if (!names.insert(lower(key.text)).second)
      throw bad_bundle(std::string("lists the ") + what + " " + shown(key.text) +
                       " twice, in upper and lower case, which is one on some devices");
  }
}

Preprocessing read_preprocessing(const Entry& entry, int32_t image_size) {
  Preprocessing preprocessing;
  preprocessing.image_size = image_size;
  if (entry.yaml().entries.size() != 4)
    throw bad_bundle("needs resize, interpolation, mean and std in 'preprocessing', and nothing else");
  const std::string resize = entry.text("resize"), interpolation = entry.text("interpolation");
  if (resize == "stretch") preprocessing.resize = Resize::stretch;
  else if (resize == "crop") preprocessing.resize = Resize::crop;
  else if (resize == "letterbox") preprocessing.resize = Resize::letterbox;
  else throw bad_bundle("has the unknown preprocessing.resize " + shown(resize));
  if (interpolation != "area" && interpolation != "linear")
    throw bad_bundle("has the unknown preprocessing.interpolation " + shown(interpolation));
  preprocessing.area = interpolation == "area";
  double mean[3], deviation[3];
  entry.three_numbers("mean", -kLargestValue, mean);
  entry.three_numbers("std", kSmallestStd, deviation);
  preprocessing.make_table(mean, deviation);
  return preprocessing;
}

std::map<std::string, FileEntry> read_files(const Entry& entry) {
  check_plain_names(entry, "file");
  std::map<std::string, FileEntry> files;
  for (const auto& [key, value] : entry.yaml().entries) {
    const std::string& name = key.text;
    if (lower(name) == kManifestName)
      throw bad_bundle("lists the file '" + name + "', which is the manifest's own name");
    const Entry file = entry.entry(name);
    const std::string sha256 = file.text("sha256");
    if (sha256.size() != 64 || sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
      throw bad_bundle("has no valid SHA-256 for '" + name + "'");
    files[name] = {file.integer("size", 0, INT64_MAX), sha256};
  }
  return files;
}

void check_gpu(const Entry& gpu) {
  const Yaml& list = gpu.at("architectures");
  const bool whole = std::all_of(list.items.begin(), list.items.end(),
                                 [](const Yaml& item) { return item.kind == Yaml::Kind::integer; });
  if (list.kind != Yaml::Kind::list || list.items.empty() || !whole)
    throw bad_bundle("needs a list of whole numbers for 'gpu.architectures'");
  const std::string cuda = gpu.text("cuda");
  if (cuda[0] == '.' || cuda.size() > 15 || cuda.find_first_not_of("0123456789.") != std::string::npos)
    throw bad_bundle("needs a version such as 12.6 for 'gpu.cuda', found " + shown(cuda));
  gpu.text("device");
}

// Check which family the checkpoint was taken for, beside the model's options.
void check_family(const Entry& family, const Entry& model) {
  const std::string name = family.text("name");
  family.text("reason");
  const bool is_pro = name == "videomambapro";
  if (!is_pro && name != "videomamba") return;  // one that this version does not know
  const Yaml* state = model.yaml().find("initial_state");
  if (state && state->kind == Yaml::Kind::text && state->text == (is_pro ? "zero" : "first_input"))
    throw bad_bundle("contradicts itself: the family is " + name + ", but the model's options are another's");
}

void check_variants(const Entry& variants) {
  check_plain_names(variants, "variant");
  for (const auto& [key, value] : variants.yaml().entries) {
    const Entry facts = variants.entry(key.text);
    if (facts.has("top1")) facts.number("top1", 0, 1);
  }
}

// Read how the frames of a clip lie in time, which older versions have in `input`.
void read_sampling(const Entry& entry, const Entry& video, int64_t format, Manifest& manifest) {
  if (format != kWithSampling) {
    if (entry.has("sampling"))
      throw bad_bundle("has 'sampling', which is for format " + std::to_string(kWithSampling) + ", not " +
                       std::to_string(format));
    manifest.frames = static_cast<int32_t>(video.integer("frames", 1, kMostFrames));
    if (video.has("frame_rate")) manifest.frame_rate = video.number("frame_rate", kSlowest, kFastest);
    return;
  }
  const Entry sampling = entry.entry("sampling");
  for (const char* key : {"frames", "frame_rate"})
    if (video.has(key))
      throw bad_bundle(std::string("has 'input.") + key + "', which is in 'sampling' in format " +
                       std::to_string(format));
  if (sampling.has("span") == sampling.has("rate"))
    throw bad_bundle("needs one of 'sampling.span' and 'sampling.rate'");
  manifest.frames = static_cast<int32_t>(sampling.integer("frames", 1, kMostFrames));
  if (sampling.has("rate")) manifest.frame_rate = sampling.number("rate", kSlowest, kFastest);
  if (sampling.has("span")) manifest.span = sampling.number("span", kShortest, kLongest);
}

// Check the version of the format, and that nothing says that the program is one which this library does not run.
void check_format(const Entry& entry, const Entry& model, int64_t format) {
  if (format == kWithEmbedding || (format == kWithSampling && entry.has("embedding")))
    throw bad_bundle("embeds frame by frame, which this library does not do: build it without --per-frame");
  if (format == kWithStates)
    throw bad_bundle("is of a causal model, whose steps this library does not run yet: use the Python package");
  if (format != kFormat && format != kWithSampling)
    throw bad_bundle("has format " + std::to_string(format) + ", this library reads " + std::to_string(kFormat) +
                     " and " + std::to_string(kWithSampling) + ": " +
                     (format > kWithSampling ? "update the library" : "build the bundle again"));
  if (entry.has("states"))
    throw bad_bundle("has 'states', which is for format " + std::to_string(kWithStates) + ", not " +
                     std::to_string(format));
  const Yaml* causal = model.yaml().find("causal");
  if (causal && causal->kind == Yaml::Kind::boolean && causal->text == "true")
    throw bad_bundle("contradicts itself: it is of a causal model and lacks 'states'");
}

// Check entries that this library does not use, so that it accepts the same bundles as Python.
void check_unused(const Entry& entry) {
  for (const char* key : {"tools", "parity", "accuracy"}) entry.entry(key);
  if (entry.has("libraries")) entry.texts("libraries");
  if (entry.has("gpu")) check_gpu(entry.entry("gpu"));
  if (entry.has("soc")) entry.text("soc");
  if (entry.has("family")) check_family(entry.entry("family"), entry.entry("model"));
  if (entry.has("variants")) check_variants(entry.entry("variants"));
}

// Check the keys and texts of a whole manifest, those that this version does not know included.
void check_texts(const Yaml& yaml, const std::string& where) {
  const auto check = [&](const std::string& text) {
    const std::string problem = forbidden(text);
    if (!problem.empty())
      throw bad_bundle("has " + shown(text) + (where.empty() ? "" : " in " + where) + ": " + problem);
  };
  if (yaml.kind == Yaml::Kind::text) check(yaml.text);
  for (const Yaml& item : yaml.items) check_texts(item, where);
  for (const auto& [key, value] : yaml.entries) {
    if (key.kind != Yaml::Kind::text) throw bad_bundle("has the key " + shown(key.text) + ", which is not a text");
    check(key.text);
    check_texts(value, where.empty() ? key.text : where + "." + key.text);
  }
}

void check_consistency(const Manifest& manifest, const Entry& model) {
  if (!manifest.files.count(manifest.program))
    throw bad_bundle("names the program " + shown(manifest.program) + ", which is not among its files");
  if (manifest.labels.empty() && !manifest.features)
    throw bad_bundle("has neither labels nor features, one of which a model gives");
  const int64_t size = manifest.preprocessing.image_size;
  if (manifest.frames * size * size > kMostPixels)
    throw bad_bundle("needs frames with more than " + std::to_string(kMostPixels) + " pixels");
  std::vector<std::pair<const char*, int64_t>> options = {{"num_classes", static_cast<int64_t>(manifest.labels.size())},
                                                          {"num_frames", manifest.frames},
                                                          {"image_size", size}};
  if (manifest.features) {  // video-text models project their features
    const bool projects = model.has("projection") && model.integer("projection", INT64_MIN, INT64_MAX) != 0;
    options.emplace_back(projects ? "projection" : "embed_dim", manifest.features);
  }
  for (const auto& [option, value] : options)
    if (model.has(option) && model.integer(option, INT64_MIN, INT64_MAX) != value)
      throw bad_bundle(std::string("contradicts itself: the model's ") + option + " is another elsewhere");
  if (manifest.frames % manifest.tubelet)
    throw bad_bundle("has a number of frames that is no multiple of the model's tubelet_size");
}

}  // namespace

Manifest Manifest::parse(const std::string& text) {
  const Yaml yaml = Yaml::parse(text);
  const Entry entry(yaml, "");
  const int64_t format = entry.integer("format", 0, INT64_MAX);
  Manifest manifest;
  const Entry video = entry.entry("input"), model = entry.entry("model");
  check_format(entry, model, format);
  manifest.name = entry.text("name");
  manifest.target = entry.text("target");
  manifest.machine = entry.text("machine");
  manifest.engine = entry.text("engine");
  manifest.precision = entry.text("precision");
  manifest.program = entry.text("program");
  read_sampling(entry, video, format, manifest);
  const bool has_tubelet = model.has("tubelet_size") || model.has("patch_size");
  manifest.tubelet = has_tubelet ? static_cast<int32_t>(model.integer("tubelet_size", 1, kMostFrames)) : 1;
  manifest.preprocessing = read_preprocessing(entry.entry("preprocessing"),
                                              static_cast<int32_t>(video.integer("image_size", 1, kLargestImage)));
  manifest.labels = entry.labels("labels", 0);
  const std::string problem = unfit_labels(manifest.labels);
  if (!problem.empty()) throw bad_bundle("has unfit labels: " + problem);
  if (entry.has("threads")) manifest.threads = static_cast<int32_t>(entry.integer("threads", 1, kMostThreads));
  if (entry.has("features")) manifest.features = static_cast<int32_t>(entry.integer("features", 0, kMostFeatures));
  if (entry.has("cpu_features")) manifest.cpu_features = entry.texts("cpu_features");
  manifest.gpu = entry.has("gpu");
  manifest.files = read_files(entry.entry("files"));
  check_consistency(manifest, model);
  check_unused(entry);
  check_texts(yaml, "");
  return manifest;
}

}  // namespace vmp
