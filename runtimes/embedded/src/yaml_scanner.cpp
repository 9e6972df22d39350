#include "yaml_scanner.h"

#include <locale.h>

#include <cmath>
#include <cstdlib>
#include <new>
#include <utility>

#include "error.h"
#include "names.h"

namespace vmp {
namespace {

constexpr int kMostValues = 100000;
constexpr size_t kLongestText = 65536;  // characters
constexpr int kDeepest = 32;
constexpr size_t kLongestNumber = 40;  // characters
const std::string kFlow = ",[]{}";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_allowed(uint32_t c) {
  return c == '\n' || (c >= 0x20 && c <= 0x7e) ||
         (c >= 0xa0 && c <= 0xfffd && c != 0x2028 && c != 0x2029 && c != 0xfeff) || c >= 0x10000;
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

}  // namespace

std::string YamlScanner::stripped_right(std::string text) {
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

YamlScanner::YamlScanner(const std::string& bytes) {
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

void YamlScanner::fail(const std::string& what) const {
  throw bad_bundle("is not valid YAML (" + what + " in line " + std::to_string(row_ + 1) + ")");
}

void YamlScanner::count(int depth) {
  if (++values_ > kMostValues) fail("too many values, more than " + std::to_string(kMostValues) + " up to the one");
  if (depth > kDeepest) fail("more than " + std::to_string(kDeepest) + " lists and mappings inside each other");
}

char YamlScanner::at(size_t column) const {
  const std::string& line = lines_[row_];
  return column < line.size() ? line[column] : ' ';
}

bool YamlScanner::begins_document(const std::string& line) {
  if (line.compare(0, 3, "---") != 0) return false;
  const size_t content = line.find_first_not_of(' ', 3);
  return content == kNone || (line[content] == '#' && content > 3);
}

bool YamlScanner::is_blank() const { return lines_[row_].find_first_not_of(' ') == kNone; }

size_t YamlScanner::indent() const { return lines_[row_].find_first_not_of(' '); }

void YamlScanner::skip_blank_lines() {
  while (row_ < lines_.size() && (is_blank() || lines_[row_][indent()] == '#')) ++row_;
}

size_t YamlScanner::next_line() {
  skip_blank_lines();
  if (row_ >= lines_.size()) return kNone;
  check_one_document();
  return indent();
}

void YamlScanner::check_one_document() const {
  const std::string& line = lines_[row_];
  if ((line.compare(0, 3, "---") == 0 || line.compare(0, 3, "...") == 0) && at(3) == ' ')
    fail("the mark of a second document");
}

void YamlScanner::check_rest() {
  const size_t content = lines_[row_].find_first_not_of(' ', column_);
  if (content != kNone && (lines_[row_][content] != '#' || content == column_))
    fail("something after the end of a value");
  ++row_;
}

bool YamlScanner::begins_item(size_t column) const { return at(column) == '-' && at(column + 1) == ' '; }

char YamlScanner::flow_next() {
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

bool YamlScanner::ends_plain(size_t column) const { return at(column) == ' ' || kFlow.find(at(column)) != kNone; }

std::string YamlScanner::flow_plain() {
  check_first(column_, kFlow);
  std::string text = flow_piece();
  while (column_ >= lines_[row_].size() && continues_flow_plain()) text += ' ' + flow_piece();
  return text;
}

std::string YamlScanner::flow_piece() {
  const size_t begin = column_;
  const std::string& line = lines_[row_];
  for (; column_ < line.size(); ++column_) {
    const char c = line[column_];
    if (kFlow.find(c) != kNone || (c == ':' && ends_plain(column_ + 1)) || (c == '#' && line[column_ - 1] == ' '))
      break;
  }
  return stripped_right(line.substr(begin, column_ - begin));
}

bool YamlScanner::continues_flow_plain() {
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

std::string YamlScanner::plain_lines(size_t column, size_t parent) {
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

Yaml YamlScanner::resolved(const std::string& text) const {
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

void YamlScanner::check_length(const std::string& text) const {
  if (text.size() > kLongestText && count_characters(text) > kLongestText) fail_by_length();
}

void YamlScanner::fail_by_length() const {
  fail("a text of more than " + std::to_string(kLongestText) + " characters");
}

void YamlScanner::check_first(size_t column, const std::string& stops) const {
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

Yaml YamlScanner::quoted() {
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

size_t YamlScanner::continue_quoted() {
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

uint32_t YamlScanner::escape() {
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

}  // namespace vmp
