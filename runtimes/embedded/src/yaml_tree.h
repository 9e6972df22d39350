// The language of manifests as a tree: a small, bounded part of YAML (docs/bundle.md), which
// vmp_edge/bundle/language.py reads in the same way. No locale has an effect on it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace vmp {

struct Yaml {
  enum class Kind { null, boolean, integer, real, text, list, mapping };

  Kind kind = Kind::null;
  std::string text;     // as the document has it, without quotes and escapes; empty for lists and mappings
  int64_t integer = 0;  // the value of an integer
  double number = 0;    // the value of an integer or a real number
  std::vector<Yaml> items;
  std::vector<std::pair<Yaml, Yaml>> entries;  // keys are scalars

  // Throws Error (BUNDLE) if the text is not in the language.
  static Yaml parse(const std::string& text);

  const Yaml* find(const std::string& key) const;  // null if there is no such key
  bool is_number() const { return kind == Kind::integer || kind == Kind::real; }
};

}  // namespace vmp
