#include "yaml_tree.h"

#include <yaml.h>

#include <cstdlib>
#include <memory>

#include "error.h"

namespace vmp {
namespace {

constexpr int kDepth = 32;

class Reader {
 public:
  explicit Reader(const std::string& text) {
    if (!yaml_parser_initialize(&parser_)) throw std::bad_alloc();
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~Reader() { yaml_parser_delete(&parser_); }
  Reader(const Reader&) = delete;

  Yaml document() {
    expect(YAML_STREAM_START_EVENT);
    expect(YAML_DOCUMENT_START_EVENT);
    Yaml root = node(next(), 0);
    expect(YAML_DOCUMENT_END_EVENT);
    expect(YAML_STREAM_END_EVENT);
    return root;
  }

 private:
  struct Delete {
    void operator()(yaml_event_t* event) const {
      yaml_event_delete(event);
      delete event;
    }
  };
  using Event = std::unique_ptr<yaml_event_t, Delete>;

  [[noreturn]] void fail(const std::string& what) {
    throw bad_bundle("is not valid YAML (" + what + " in line " + std::to_string(parser_.mark.line + 1) + ")");
  }

  Event next() {
    Event event(new yaml_event_t());
    if (!yaml_parser_parse(&parser_, event.get())) fail(parser_.problem ? parser_.problem : "unreadable");
    return event;
  }

  void expect(yaml_event_type_t type) {
    if (next()->type != type) fail("not one document");
  }

  Yaml node(const Event& event, int depth) {
    if (depth > kDepth) fail("nested too deeply");
    Yaml yaml;
    switch (event->type) {
      case YAML_SCALAR_EVENT: scalar(*event, yaml); return yaml;
      case YAML_SEQUENCE_START_EVENT:
        yaml.kind = Yaml::Kind::list;
        for (Event item = next(); item->type != YAML_SEQUENCE_END_EVENT; item = next())
          yaml.items.push_back(node(item, depth + 1));
        return yaml;
      case YAML_MAPPING_START_EVENT:
        yaml.kind = Yaml::Kind::mapping;
        for (Event key = next(); key->type != YAML_MAPPING_END_EVENT; key = next()) {
          if (key->type != YAML_SCALAR_EVENT) fail("a key that is no scalar");
          Yaml name;
          scalar(*key, name);
          yaml.entries.emplace_back(std::move(name.text), node(next(), depth + 1));
        }
        return yaml;
      default: fail("an alias");
    }
  }

  void scalar(const yaml_event_t& event, Yaml& yaml) {
    const auto& data = event.data.scalar;
    if (data.tag) fail("a tag");
    yaml.text.assign(reinterpret_cast<const char*>(data.value), data.length);
    yaml.plain = data.style == YAML_PLAIN_SCALAR_STYLE;
  }

  yaml_parser_t parser_;
};

}  // namespace

Yaml Yaml::parse(const std::string& text) { return Reader(text).document(); }

const Yaml* Yaml::find(const std::string& key) const {
  const Yaml* result = nullptr;
  for (const auto& [name, value] : entries)
    if (name == key) result = &value;  // the last one counts if a key is there twice, as in Python
  return result;
}

bool Yaml::is_text() const {
  if (kind != Kind::scalar) return false;
  if (!plain) return true;
  for (const char* special :
       {"",    "~",   "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "yes",
        "Yes", "YES", "no",   "No",   "NO",   "on",   "On",   "ON",   "off",   "Off",   "OFF"})
    if (text == special) return false;
  char* end = nullptr;
  std::strtod(text.c_str(), &end);
  return *end != '\0' || text.find_first_not_of("0123456789+-.") != std::string::npos;
}

}  // namespace vmp
