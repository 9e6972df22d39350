#include "yaml_tree.h"

#include <set>
#include <utility>

#include "names.h"
#include "yaml_scanner.h"

namespace vmp {
namespace {

// Puts the lines and scalars of a document together to lists and mappings.
class Reader : private YamlScanner {
 public:
  explicit Reader(const std::string& bytes) : YamlScanner(bytes) {}

  Yaml document() {
    skip_blank_lines();
    if (row_ < lines_.size() && begins_document(lines_[row_])) ++row_;
    const size_t indent = next_line();
    if (indent == kNone) return Yaml();
    Yaml root = block(indent, kNone, 1);
    if (next_line() != kNone) fail("an indentation that fits nothing above it");
    return root;
  }

 private:
  struct Key {
    Yaml name;
    size_t after;  // the column after its colon
  };

  // Block style

  // Read the value that begins in this line at `indent`; what contains it has the indentation `parent`.
  Yaml block(size_t indent, size_t parent, int depth) {
    if (begins_item(indent)) return list(indent, depth);
    Key key;
    if (find_key(indent, key)) return mapping(indent, depth);
    return inline_value(indent, parent, depth);
  }

  Yaml list(size_t indent, int depth) {
    count(depth);
    Yaml list;
    list.kind = Yaml::Kind::list;
    while (next_line() == indent && begins_item(indent)) {
      Key key;
      const size_t column = lines_[row_].find_first_not_of(' ', indent + 1);
      if (column == kNone || lines_[row_][column] == '#') {
        list.items.push_back(value_below(indent, false, depth));
      } else if (begins_item(column) || find_key(column, key)) {
        lines_[row_].replace(0, column, column, ' ');  // a list or mapping that begins in the item's line
        list.items.push_back(block(column, indent, depth + 1));
      } else {
        list.items.push_back(inline_value(column, indent, depth + 1));
      }
    }
    return list;
  }

  Yaml mapping(size_t indent, int depth) {
    count(depth);
    Yaml mapping;
    mapping.kind = Yaml::Kind::mapping;
    std::set<std::pair<Yaml::Kind, std::string>> seen;
    while (next_line() == indent) {
      Key key;
      if (!find_key(indent, key)) fail("no 'key: value', where one is needed,");
      note_key(seen, key.name);
      const size_t column = lines_[row_].find_first_not_of(' ', key.after);
      Yaml value = column == kNone || lines_[row_][column] == '#' ? value_below(indent, true, depth)
                                                                  : inline_value(column, indent, depth + 1);
      mapping.entries.emplace_back(std::move(key.name), std::move(value));
    }
    return mapping;
  }

  void note_key(std::set<std::pair<Yaml::Kind, std::string>>& seen, const Yaml& name) const {
    if (!seen.emplace(name.kind, name.text).second) fail("the key " + shown(name.text) + " for the second time");
  }

  // Read the value of a key or an item, which begins in the next lines.
  Yaml value_below(size_t indent, bool in_mapping, int depth) {
    ++row_;
    const size_t below = next_line();
    if (below != kNone && below > indent) return block(below, indent, depth + 1);
    if (in_mapping && below == indent && begins_item(indent)) return list(indent, depth + 1);
    count();
    return Yaml();
  }

  // Find the key that begins at a column of this line. Return false if there is none.
  bool find_key(size_t column, Key& key) {
    const std::string& line = lines_[row_];
    if (line[column] == '[' || line[column] == '{') return false;
    if (line[column] == '"' || line[column] == '\'') {
      const size_t row = row_;
      column_ = column;
      key.name = quoted();
      const bool multiline = row_ != row;
      row_ = row;
      if (multiline) return false;
      size_t colon = column_;
      while (colon < line.size() && line[colon] == ' ') ++colon;
      key.after = colon + 1;
      return at(colon) == ':' && at(colon + 1) == ' ';
    }
    size_t colon = line.find(": ", column);
    if (colon == kNone && line.back() == ':') colon = line.size() - 1;
    const size_t comment = line.find(" #", column);
    if (colon == kNone || (comment != kNone && comment < colon)) return false;
    check_first(column, "");
    key.name = plain_key(stripped_right(line.substr(column, colon - column)));
    key.after = colon + 1;
    return true;
  }

  Yaml plain_key(const std::string& text) const {
    if (text == "<<") fail("a merge");
    return resolved(text);
  }

  // Read a scalar or a flow collection that begins in this line, and go to the line after it.
  Yaml inline_value(size_t column, size_t parent, int depth) {
    column_ = column;
    if (std::string("[{'\"").find(lines_[row_][column]) != kNone) {
      Yaml value = flow(depth);
      check_rest();
      return value;
    }
    check_first(column, "");
    count();
    return resolved(plain_lines(column, parent));
  }

  // Flow style

  // Read the value that begins at the place. Afterwards the place is behind it.
  Yaml flow(int depth) {
    const char first = at(column_);
    if (first == '[') return flow_list(depth);
    if (first == '{') return flow_mapping(depth);
    count();
    return first == '"' || first == '\'' ? quoted() : resolved(flow_plain());
  }

  Yaml flow_list(int depth) {
    count(depth);
    Yaml list;
    list.kind = Yaml::Kind::list;
    ++column_;
    while (flow_next() != ']') {
      list.items.push_back(flow(depth + 1));
      flow_separator(']');
    }
    ++column_;
    return list;
  }

  Yaml flow_mapping(int depth) {
    count(depth);
    Yaml mapping;
    mapping.kind = Yaml::Kind::mapping;
    std::set<std::pair<Yaml::Kind, std::string>> seen;
    ++column_;
    for (char first = flow_next(); first != '}'; first = flow_next()) {
      if (first == '[' || first == '{') fail("a key that is no text");
      const bool is_quoted = first == '"' || first == '\'';
      const size_t row = row_;
      Yaml name = is_quoted ? quoted() : plain_key(flow_plain());
      if (row_ > row) fail("a key of more than one line, which ends");
      note_key(seen, name);
      while (column_ < lines_[row_].size() && lines_[row_][column_] == ' ') ++column_;
      if (at(column_) != ':' || !(is_quoted || ends_plain(column_ + 1))) fail("a key without ': '");
      ++column_;
      const char next = flow_next();
      Yaml value;
      if (next == ',' || next == '}') count();
      else value = flow(depth + 1);
      mapping.entries.emplace_back(std::move(name), std::move(value));
      flow_separator('}');
    }
    ++column_;
    return mapping;
  }

  void flow_separator(char end) {
    const char found = flow_next();
    if (found == ',') ++column_;
    else if (found != end) fail(std::string("no ',' or '") + end + "', where one is needed,");
  }
};

}  // namespace

Yaml Yaml::parse(const std::string& text) { return Reader(text).document(); }

const Yaml* Yaml::find(const std::string& key) const {
  for (const auto& [name, value] : entries)
    if (name.kind == Kind::text && name.text == key) return &value;
  return nullptr;
}

}  // namespace vmp
