#include "yaml_tree.h"

#include <locale.h>

#include <cmath>
#include <cstdlib>
#include <set>
#include <stdexcept>
#include <utility>

#include "error.h"
#include "names.h"

namespace vmp {
namespace {

constexpr int kMostValues = 100000;
constexpr size_t kLongestText = 65536;  // characters
constexpr int kDeepest = 32;
constexpr size_t kLongestNumber = 40;  // characters
constexpr size_t kNone = std::string::npos;
const std::string kFlow = ",[]{}";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_allowed(uint32_t c) {
  return c == '\n' || (c >= 0x20 && c <= 0x7e) ||
         (c >= 0xa0 && c <= 0xfffd && c != 0x2028 && c != 0x2029 && c != 0xfeff) || c >= 0x10000;
}

std::string stripped_right(std::string text) {
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

enum class NumberForm { none, whole, real };

// -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
NumberForm number_form(const std::string& text) {
  size_t place = 0;
  const auto digits = [&] {
    const size_t begin = place;
    while (place < text.size() && is_digit(text[place])) ++place;
    return place - begin;
  };
  if (place < text.size() && text[place] == '-') ++place;
  const size_t begin = place;
  if (digits() == 0 || (text[begin] == '0' && place > begin + 1)) return NumberForm::none;
  if (place == text.size()) return NumberForm::whole;
  if (text[place] == '.') {
    ++place;
    if (digits() == 0) return NumberForm::none;
  }
  if (place < text.size() && (text[place] == 'e' || text[place] == 'E')) {
    ++place;
    if (place < text.size() && (text[place] == '+' || text[place] == '-')) ++place;
    if (digits() == 0) return NumberForm::none;
  }
  return place == text.size() ? NumberForm::real : NumberForm::none;
}

// Return the value of a number, whose decimal point is a point whatever the program's locale is.
double to_double(const std::string& text) {
  static const locale_t classic = newlocale(LC_ALL_MASK, "C", nullptr);
  if (!classic) throw std::bad_alloc();
  return strtod_l(text.c_str(), nullptr, classic);
}

// Return false if the number does not fit into 64 bits.
bool to_integer(const std::string& text, int64_t& value) {
  const bool negative = text[0] == '-';
  const uint64_t limit = (uint64_t{1} << 63) - (negative ? 0 : 1);
  uint64_t magnitude = 0;
  for (size_t i = negative; i < text.size(); ++i) {
    const auto digit = static_cast<uint64_t>(text[i] - '0');
    if (magnitude > (limit - digit) / 10) return false;
    magnitude = magnitude * 10 + digit;
  }
  value = static_cast<int64_t>(negative ? ~magnitude + 1 : magnitude);
  return true;
}

// Reads a document line by line. `row_` and `column_` are the place where the next value begins.
class Reader {
 public:
  explicit Reader(const std::string& bytes) {
    if (!is_utf8(bytes)) throw bad_bundle("is not valid YAML (it is not text in UTF-8)");
    std::string line;
    for (size_t place = 0; place < bytes.size();) {
      const size_t begin = place;
      if (bytes.compare(place, 2, "\r\n") == 0) ++place;
      const uint32_t character = next_character(bytes, place);
      if (!is_allowed(character)) fail("a character that is not allowed here");
      if (character != '\n') {
        line.append(bytes, begin, place - begin);
        continue;
      }
      lines_.push_back(std::move(line));
      line.clear();
      ++row_;
    }
    lines_.push_back(std::move(line));
    row_ = 0;
  }

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

  [[noreturn]] void fail(const std::string& what) const {
    throw bad_bundle("is not valid YAML (" + what + " in line " + std::to_string(row_ + 1) + ")");
  }

  void count(int depth = 0) {
    if (++values_ > kMostValues) fail("too many values, more than " + std::to_string(kMostValues) + " up to the one");
    if (depth > kDeepest) fail("more than " + std::to_string(kDeepest) + " lists and mappings inside each other");
  }

  // Return the character at a column, or a blank behind the end of the line.
  char at(size_t column) const {
    const std::string& line = lines_[row_];
    return column < line.size() ? line[column] : ' ';
  }

  // Lines

  static bool begins_document(const std::string& line) {
    if (line.compare(0, 3, "---") != 0) return false;
    const size_t content = line.find_first_not_of(' ', 3);
    return content == kNone || (line[content] == '#' && content > 3);
  }

  bool is_blank() const { return lines_[row_].find_first_not_of(' ') == kNone; }
  size_t indent() const { return lines_[row_].find_first_not_of(' '); }

  // Go to the next line that is neither blank nor a comment.
  void skip_blank_lines() {
    while (row_ < lines_.size() && (is_blank() || lines_[row_][indent()] == '#')) ++row_;
  }

  // Go to the next line with content. Return its indentation, or kNone at the end.
  size_t next_line() {
    skip_blank_lines();
    if (row_ >= lines_.size()) return kNone;
    check_one_document();
    return indent();
  }

  void check_one_document() const {
    const std::string& line = lines_[row_];
    if ((line.compare(0, 3, "---") == 0 || line.compare(0, 3, "...") == 0) && at(3) == ' ')
      fail("the mark of a second document");
  }

  // Check that nothing but a comment follows a value in its line, and go to the next line.
  void check_rest() {
    const size_t content = lines_[row_].find_first_not_of(' ', column_);
    if (content != kNone && (lines_[row_][content] != '#' || content == column_))
      fail("something after the end of a value");
    ++row_;
  }

  bool begins_item(size_t column) const { return at(column) == '-' && at(column + 1) == ' '; }

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

  // Go to the next character that is neither blank nor in a comment, and return it.
  char flow_next() {
    for (;; column_ = 0) {
      const std::string& line = lines_[row_];
      while (column_ < line.size() && line[column_] == ' ') ++column_;
      if (column_ < line.size() && (line[column_] != '#' || (column_ > 0 && line[column_ - 1] != ' ')))
        return line[column_];
      if (row_ + 1 >= lines_.size()) fail("a bracket that is never closed");
      ++row_;
      check_one_document();
    }
  }

  bool ends_plain(size_t column) const { return at(column) == ' ' || kFlow.find(at(column)) != kNone; }

  // Read a text without quotes, which may go on in the next lines.
  std::string flow_plain() {
    check_first(column_, kFlow);
    std::string text = flow_piece();
    while (column_ >= lines_[row_].size() && continues_flow_plain()) text += ' ' + flow_piece();
    return text;
  }

  // Read what a text without quotes has in this line.
  std::string flow_piece() {
    const size_t begin = column_;
    const std::string& line = lines_[row_];
    for (; column_ < line.size(); ++column_) {
      const char c = line[column_];
      if (kFlow.find(c) != kNone || (c == ':' && ends_plain(column_ + 1)) || (c == '#' && line[column_ - 1] == ' '))
        break;
    }
    return stripped_right(line.substr(begin, column_ - begin));
  }

  // Go to the next line if a text without quotes goes on there. Return whether it does.
  bool continues_flow_plain() {
    const size_t row = row_;
    ++row_;
    while (row_ < lines_.size() && is_blank()) ++row_;
    const size_t column = row_ < lines_.size() ? indent() : 0;
    const char first = row_ < lines_.size() ? lines_[row_][column] : '#';
    if (first == '#' || kFlow.find(first) != kNone || (first == ':' && ends_plain(column + 1))) {
      row_ = row;
      return false;
    }
    if (row_ > row + 1) fail("a text without quotes that goes on after a blank line");
    column_ = column;
    check_one_document();
    return true;
  }

  // Scalars

  // Read a text without quotes, which goes on in lines that are indented more than `parent`.
  std::string plain_lines(size_t column, size_t parent) {
    std::string text;
    for (bool commented = false; !commented;) {
      const std::string& line = lines_[row_];
      const size_t comment = line.find(" #", column);
      commented = comment != kNone;
      const std::string piece = stripped_right(line.substr(column, commented ? comment - column : kNone));
      if (piece.find(": ") != kNone || (!piece.empty() && piece.back() == ':'))
        fail("a text with ':', which needs quotes,");
      if (!text.empty()) text += ' ';
      text += piece;
      const size_t next = ++row_;
      while (row_ < lines_.size() && is_blank()) ++row_;
      if (row_ >= lines_.size()) break;
      column = indent();
      if ((parent != kNone && column <= parent) || lines_[row_][column] == '#') break;
      check_one_document();
      if (row_ > next && !commented) fail("a text without quotes that goes on after a blank line");
    }
    return text;
  }

  Yaml resolved(const std::string& text) const {
    check_length(text);
    Yaml yaml;
    yaml.text = text;
    yaml.kind = Yaml::Kind::text;
    if (text == "null" || text == "~") yaml.kind = Yaml::Kind::null;
    if (text == "true" || text == "false") yaml.kind = Yaml::Kind::boolean;
    const NumberForm form = number_form(text);
    if (form == NumberForm::none) return yaml;
    yaml.kind = form == NumberForm::whole ? Yaml::Kind::integer : Yaml::Kind::real;
    bool fits = text.size() <= kLongestNumber;
    if (fits && form == NumberForm::whole) fits = to_integer(text, yaml.integer);
    if (fits) yaml.number = to_double(text);
    if (!fits || !std::isfinite(yaml.number)) fail("a number that is too large or too long");
    return yaml;
  }

  void check_length(const std::string& text) const {
    if (text.size() > kLongestText && count_characters(text) > kLongestText) fail_by_length();
  }

  [[noreturn]] void fail_by_length() const {
    fail("a text of more than " + std::to_string(kLongestText) + " characters");
  }

  // Check that a text without quotes may begin here. It ends before the characters `stops`.
  void check_first(size_t column, const std::string& stops) const {
    const char first = at(column), after = at(column + 1);
    const std::string misplaced = std::string("a misplaced '") + first + "'";
    switch (first) {
      case '&': fail("an anchor");
      case '*': fail("an alias");
      case '!': fail("a tag");
      case '%': fail("a directive");
      case '|':
      case '>': fail("a block text, which needs quotes instead,");
      case '?':
        if (after == ' ') fail("a key behind '?', but only plain names are keys,");
        fail("a text that begins with '?' and needs quotes,");
      case ':': fail("a text that begins with ':' and needs quotes,");
      case ',':
      case ']':
      case '}':
      case '#':
      case '@':
      case '`': fail(misplaced);
      case '-':
        if (after == ' ' || stops.find(after) != kNone) fail(misplaced);
        break;
      default: break;
    }
  }

  // Read a text in quotes. Afterwards the place is behind it.
  Yaml quoted() {
    const char quote = at(column_);
    const std::string special = quote == '\'' ? "'" : "\"\\";
    ++column_;
    Yaml yaml;
    yaml.kind = Yaml::Kind::text;
    std::string& text = yaml.text;
    for (size_t step = 0; step <= kLongestText; ++step) {  // an escape or the end of a line each
      const std::string& line = lines_[row_];
      const size_t found = line.find_first_of(special, column_);
      if (found == kNone) {
        if (column_ < line.size()) text += stripped_right(line.substr(column_));
        const size_t breaks = continue_quoted();
        text += breaks ? std::string(breaks, '\n') : " ";
        continue;
      }
      text.append(line, column_, found - column_);
      column_ = found + 1;
      if (line[found] == '\\') {
        if (column_ < line.size()) append_character(text, escape());
        else text += std::string(continue_quoted(), '\n');
      } else if (quote == '\'' && at(column_) == '\'') {
        text += '\'';
        ++column_;
      } else {
        check_length(text);
        return yaml;
      }
    }
    fail_by_length();
  }

  // Go to the first character of the next line that is not blank. Return how many blank lines are before it.
  size_t continue_quoted() {
    const size_t begin = row_++;
    while (row_ < lines_.size() && is_blank()) ++row_;
    if (row_ >= lines_.size()) {
      row_ = begin;
      fail("a quote that is never closed, begun or continued");
    }
    check_one_document();
    column_ = indent();
    return row_ - begin - 1;
  }

  uint32_t escape() {
    static constexpr char kNames[] = " \"/\\0abtnvfreN_LP";
    static constexpr uint32_t kValues[] = {' ',  '"',  '/',  '\\', 0,    7,    8,      9,     10,
                                           0x0b, 0x0c, 0x0d, 0x1b, 0x85, 0xa0, 0x2028, 0x2029};
    const std::string& line = lines_[row_];
    const char name = line[column_++];
    const size_t known = std::string(kNames).find(name);
    if (known != kNone) return kValues[known];
    const size_t digits = name == 'x' ? 2 : name == 'u' ? 4 : name == 'U' ? 8 : 0;
    uint32_t character = 0;
    bool valid = digits > 0;
    for (size_t i = 0; i < digits; ++i) {
      const char digit = at(column_++);
      const size_t value = std::string("0123456789abcdefABCDEF").find(digit);
      valid = valid && value != kNone;
      if (valid) character = character << 4 | static_cast<uint32_t>(value < 16 ? value : value - 6);
    }
    if (!valid || character > 0x10ffff) fail("an escape that does not exist");
    return character;
  }

  std::vector<std::string> lines_;
  size_t row_ = 0, column_ = 0;
  int values_ = 0;
};

}  // namespace

Yaml Yaml::parse(const std::string& text) { return Reader(text).document(); }

const Yaml* Yaml::find(const std::string& key) const {
  for (const auto& [name, value] : entries)
    if (name.kind == Kind::text && name.text == key) return &value;
  return nullptr;
}

}  // namespace vmp
