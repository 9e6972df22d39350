// The reader of manifests for ctypes (tests/embedded/test_language.py), which compares it with Python's.
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>

#include "error.h"
#include "manifest.h"
#include "names.h"
#include "yaml_tree.h"

namespace {

// Write a tree without ambiguity: numbers by their bits, texts with their lengths.
void describe(const vmp::Yaml& yaml, std::string& out) {
  char number[32];
  switch (yaml.kind) {
    case vmp::Yaml::Kind::null: out += "null "; break;
    case vmp::Yaml::Kind::boolean: out += yaml.text + " "; break;
    case vmp::Yaml::Kind::integer: out += "int " + std::to_string(yaml.integer) + " "; break;
    case vmp::Yaml::Kind::real:
      uint64_t bits;
      std::memcpy(&bits, &yaml.number, sizeof bits);
      std::snprintf(number, sizeof number, "float %016" PRIx64 " ", bits);
      out += number;
      break;
    case vmp::Yaml::Kind::text: out += "text " + std::to_string(yaml.text.size()) + " " + yaml.text + " "; break;
    case vmp::Yaml::Kind::list:
      out += "[ ";
      for (const vmp::Yaml& item : yaml.items) describe(item, out);
      out += "] ";
      break;
    case vmp::Yaml::Kind::mapping:
      out += "{ ";
      for (const auto& [key, value] : yaml.entries) describe(key, out), describe(value, out);
      out += "} ";
      break;
  }
}

// Call `read`, and keep what it returns or the error's text. Return whether it returned.
template <class Read>
bool kept(Read read, std::string& text) {
  try {
    text = read();
    return true;
  } catch (const vmp::Error& error) {
    text = error.what();
    return false;
  }
}

std::string result;

}  // namespace

extern "C" {

const char* language_result() { return result.c_str(); }
size_t language_result_size() { return result.size(); }

int language_parse(const char* data, size_t size) {
  return kept(
      [&] {
        std::string description;
        describe(vmp::Yaml::parse(std::string(data, size)), description);
        return description;
      },
      result);
}

int language_manifest(const char* data, size_t size) {
  return kept([&] { return vmp::Manifest::parse(std::string(data, size)).name; }, result);
}

// Why a text in UTF-8 cannot be a name; empty if it can.
void language_unfit_name(const char* data, size_t size) { result = vmp::unfit_name(std::string(data, size)); }

}  // extern "C"
