#include "manifest.h"

#include <cerrno>
#include <cmath>
#include <cstdlib>

#include "error.h"
#include "yaml_tree.h"

namespace vmp {
namespace {

constexpr int64_t kFormat = 1;
constexpr int64_t kWithEmbedding = 2;  // the program takes tokens, which a second program computes
constexpr int64_t kLargest = 1 << 20;  // a larger number of frames, pixels or threads is an error

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

  std::string text(const std::string& key) const {
    const Yaml& value = at(key);
    if (!value.is_text() || value.text.empty()) throw wrong(key, "a text");
    return value.text;
  }

  double number(const std::string& key) const {
    double value = 0;
    if (!to_number(at(key), value)) throw wrong(key, "a number");
    return value;
  }

  int64_t integer(const std::string& key, int64_t minimum, int64_t maximum) const {
    const Yaml& value = at(key);
    char* end = nullptr;
    errno = 0;
    const long long number = std::strtoll(value.text.c_str(), &end, 10);
    if (value.kind != Yaml::Kind::scalar || !value.plain || value.text.empty() || *end || errno)
      throw wrong(key, "a whole number");
    if (number < minimum || number > maximum)
      throw bad_bundle("needs " + std::to_string(minimum) + " to " + std::to_string(maximum) + " for '" + path(key) +
                       "', found " + value.text);
    return number;
  }

  std::vector<std::string> texts(const std::string& key) const {
    const Yaml& list = at(key);
    if (list.kind != Yaml::Kind::list || list.items.empty()) throw wrong(key, "a list of texts");
    std::vector<std::string> texts;
    for (const Yaml& item : list.items) {
      if (!item.is_text()) throw wrong(key, "a list of texts (in quotes where they look like something else)");
      texts.push_back(item.text);
    }
    return texts;
  }

  void three_numbers(const std::string& key, double* numbers) const {
    const Yaml& list = at(key);
    if (list.kind != Yaml::Kind::list || list.items.size() != 3) throw wrong(key, "three numbers");
    for (const Yaml& item : list.items) {
      double value = 0;
      if (!to_number(item, value)) throw wrong(key, "three numbers");
      *numbers++ = value;
    }
  }

 private:
  std::string path(const std::string& key) const { return where_.empty() ? key : where_ + "." + key; }
  Error wrong(const std::string& key, const char* expected) const {
    return bad_bundle(std::string("needs ") + expected + " for '" + path(key) + "'");
  }
  static bool to_number(const Yaml& value, double& number) {
    char* end = nullptr;
    number = std::strtod(value.text.c_str(), &end);
    return value.kind == Yaml::Kind::scalar && value.plain && !value.text.empty() && !*end && std::isfinite(number);
  }

  const Yaml& yaml_;
  std::string where_;
};

// Return whether a name is that of a file directly inside a folder: no separators, no "..", not hidden.
bool is_plain_name(const std::string& name) {
  if (name.empty() || name[0] == '.') return false;
  for (const unsigned char c : name)
    if (c < 32 || c == 127 || c == '/' || c == '\\' || c == ':') return false;
  return true;
}

Preprocessing read_preprocessing(const Entry& entry, int32_t image_size) {
  Preprocessing preprocessing;
  preprocessing.image_size = image_size;
  const std::string resize = entry.text("resize"), interpolation = entry.text("interpolation");
  if (resize == "stretch") preprocessing.resize = Resize::stretch;
  else if (resize == "crop") preprocessing.resize = Resize::crop;
  else if (resize == "letterbox") preprocessing.resize = Resize::letterbox;
  else throw bad_bundle("has the unknown preprocessing.resize '" + resize + "'");
  if (interpolation != "area" && interpolation != "linear")
    throw bad_bundle("has the unknown preprocessing.interpolation '" + interpolation + "'");
  preprocessing.area = interpolation == "area";
  double mean[3], deviation[3];
  entry.three_numbers("mean", mean);
  entry.three_numbers("std", deviation);
  for (int channel = 0; channel < 3; ++channel)
    if (deviation[channel] <= 0) throw bad_bundle("needs positive numbers for 'preprocessing.std'");
  preprocessing.make_table(mean, deviation);
  return preprocessing;
}

std::map<std::string, FileEntry> read_files(const Entry& entry) {
  std::map<std::string, FileEntry> files;
  for (const auto& [name, value] : entry.yaml().entries) {
    if (!is_plain_name(name) || name == kManifestName)
      throw bad_bundle("lists the file '" + name + "': only plain names inside the bundle's folder are allowed");
    const Entry file = entry.entry(name);
    const std::string sha256 = file.text("sha256");
    if (sha256.size() != 64 || sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
      throw bad_bundle("has no valid SHA-256 for '" + name + "'");
    files[name] = {file.integer("size", 0, INT64_MAX), sha256};
  }
  return files;
}

void check_consistency(const Manifest& manifest, const Entry& model) {
  if (!manifest.files.count(manifest.program))
    throw bad_bundle("names the program '" + manifest.program + "', which is not among its files");
  const std::pair<const char*, int64_t> options[] = {{"num_classes", static_cast<int64_t>(manifest.labels.size())},
                                                     {"num_frames", manifest.frames},
                                                     {"image_size", manifest.preprocessing.image_size}};
  for (const auto& [option, value] : options)
    if (model.has(option) && model.integer(option, 1, kLargest) != value)
      throw bad_bundle(std::string("contradicts itself: the model's ") + option + " is another elsewhere");
  if (manifest.frames % manifest.tubelet)
    throw bad_bundle("has a number of frames that is no multiple of the model's tubelet_size");
}

}  // namespace

Manifest Manifest::parse(const std::string& text) {
  const Yaml yaml = Yaml::parse(text);
  const Entry entry(yaml, "");
  const int64_t format = entry.integer("format", 0, INT64_MAX);
  if (format == kWithEmbedding)
    throw bad_bundle("embeds frame by frame, which this library does not do: build it without --per-frame");
  if (format != kFormat)
    throw bad_bundle("has format " + std::to_string(format) + ", this library reads " + std::to_string(kFormat) + ": " +
                     (format > kFormat ? "update the library" : "build the bundle again"));
  Manifest manifest;
  const Entry video = entry.entry("input"), model = entry.entry("model");
  manifest.name = entry.text("name");
  manifest.target = entry.text("target");
  manifest.machine = entry.text("machine");
  manifest.engine = entry.text("engine");
  manifest.precision = entry.text("precision");
  manifest.program = entry.text("program");
  manifest.frames = static_cast<int32_t>(video.integer("frames", 1, kLargest));
  manifest.tubelet = model.has("tubelet_size") ? static_cast<int32_t>(model.integer("tubelet_size", 1, kLargest)) : 1;
  manifest.preprocessing =
      read_preprocessing(entry.entry("preprocessing"), static_cast<int32_t>(video.integer("image_size", 1, kLargest)));
  manifest.labels = entry.texts("labels");
  if (video.has("frame_rate") && !((manifest.frame_rate = video.number("frame_rate")) > 0))
    throw bad_bundle("needs a positive number for 'input.frame_rate'");
  if (entry.has("threads")) manifest.threads = static_cast<int32_t>(entry.integer("threads", 1, kLargest));
  if (entry.has("features")) manifest.features = static_cast<int32_t>(entry.integer("features", 0, kLargest));
  if (entry.has("cpu_features")) manifest.cpu_features = entry.texts("cpu_features");
  manifest.gpu = entry.has("gpu");
  manifest.files = read_files(entry.entry("files"));
  check_consistency(manifest, model);
  return manifest;
}

}  // namespace vmp
