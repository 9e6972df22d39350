// YAML as a tree, by libyaml.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace vmp {

struct Yaml {
  enum class Kind { scalar, list, mapping };

  Kind kind = Kind::scalar;
  std::string text;    // of a scalar
  bool plain = false;  // a scalar without quotes, which may be a number, a boolean or nothing
  std::vector<Yaml> items;
  std::vector<std::pair<std::string, Yaml>> entries;

  // Throws Error (BUNDLE): it is not YAML, nests too deeply, or has aliases, tags or keys that are no scalars.
  static Yaml parse(const std::string& text);

  const Yaml* find(const std::string& key) const;  // null if there is none
  bool is_text() const;                            // and no number, boolean or nothing
};

}  // namespace vmp
