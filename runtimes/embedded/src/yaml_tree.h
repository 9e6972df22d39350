// A YAML document as a tree, read by libyaml.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace vmp {

struct Yaml {
  enum class Kind { scalar, list, mapping };

  Kind kind = Kind::scalar;
  std::string text;    // the text of a scalar
  bool plain = false;  // true for a scalar without quotes, which may be a number, a boolean or null
  std::vector<Yaml> items;
  std::vector<std::pair<std::string, Yaml>> entries;

  // Throws Error (BUNDLE) if the text is not YAML, nests too deeply, or has aliases, tags or keys that are not scalars.
  static Yaml parse(const std::string& text);

  const Yaml* find(const std::string& key) const;  // null if there is no such key
  bool is_text() const;                            // true for a scalar that is not a number, a boolean or null
};

}  // namespace vmp
