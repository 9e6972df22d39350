#include "names.h"

#include <locale>
#include <map>
#include <sstream>

namespace vmp {
namespace {

constexpr size_t kShown = 60;  // characters of a text in a message

struct Range {
  uint32_t first, last;
};

// Control characters, marks and overrides of the writing direction, ends of lines and paragraphs, invisible operators,
// the byte order mark, annotation marks, halves of surrogate pairs, and code points that are no characters.
constexpr Range kForbidden[] = {{0x0, 0x1f},      {0x7f, 0x9f},     {0x61c, 0x61c},   {0x200e, 0x200f},
                                {0x2028, 0x202e}, {0x2060, 0x206f}, {0xd800, 0xdfff}, {0xfeff, 0xfeff},
                                {0xfff9, 0xfffb}, {0xfffe, 0xffff}};
constexpr Range kBlanks[] = {{' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200b},
                             {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};

template <size_t N>
bool is_in(const Range (&ranges)[N], uint32_t character) {
  for (const Range& range : ranges)
    if (character >= range.first && character <= range.last) return true;
  return false;
}

std::string hexadecimal(uint32_t number, int digits) {
  std::string text;
  for (int digit = digits - 1; digit >= 0; --digit) text += "0123456789ABCDEF"[number >> (4 * digit) & 15];
  return text;
}

}  // namespace

uint32_t next_character(const std::string& text, size_t& place) {
  const auto byte = [&](size_t index) { return static_cast<uint32_t>(static_cast<unsigned char>(text[index])); };
  const uint32_t first = byte(place++);
  const int more = first < 0xc0 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
  uint32_t character = more == 0 ? first : first & (0x3fu >> more);
  for (int i = 0; i < more && place < text.size(); ++i) character = character << 6 | (byte(place++) & 0x3f);
  return character;
}

bool is_utf8(const std::string& bytes) {
  const auto byte = [&](size_t index) { return static_cast<uint32_t>(static_cast<unsigned char>(bytes[index])); };
  for (size_t place = 0; place < bytes.size();) {
    const uint32_t first = byte(place);
    const size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
    if ((first >= 0x80 && first < 0xc2) || first > 0xf4 || bytes.size() - place <= more) return false;
    for (size_t i = 1; i <= more; ++i)
      if ((byte(place + i) & 0xc0) != 0x80) return false;
    const uint32_t character = next_character(bytes, place);
    if ((more == 2 && character < 0x800) || (more == 3 && (character < 0x10000 || character > 0x10ffff))) return false;
    if (character >= 0xd800 && character <= 0xdfff) return false;
  }
  return true;
}

void append_character(std::string& text, uint32_t character) {
  const auto add = [&](uint32_t byte) { text += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (character < 0x80) {
    add(character);
  } else if (character < 0x800) {
    add(0xc0 | character >> 6), add(0x80 | (character & 0x3f));
  } else if (character < 0x10000) {
    add(0xe0 | character >> 12), add(0x80 | (character >> 6 & 0x3f)), add(0x80 | (character & 0x3f));
  } else {
    add(0xf0 | character >> 18), add(0x80 | (character >> 12 & 0x3f));
    add(0x80 | (character >> 6 & 0x3f)), add(0x80 | (character & 0x3f));
  }
}

size_t count_characters(const std::string& text) {
  size_t count = 0;
  for (const char byte : text) count += (static_cast<unsigned char>(byte) & 0xc0) != 0x80;
  return count;
}

std::string forbidden(const std::string& text) {
  for (size_t place = 0; place < text.size();) {
    const uint32_t character = next_character(text, place);
    if (is_in(kForbidden, character)) return "it holds the character U+" + hexadecimal(character, 4);
  }
  return "";
}

std::string unfit_name(const std::string& text) {
  uint32_t first = ' ', last = ' ';
  bool blank = true;
  for (size_t place = 0; place < text.size();) {
    const bool at_begin = place == 0;
    last = next_character(text, place);
    if (at_begin) first = last;
    blank = blank && is_in(kBlanks, last);
  }
  if (blank) return "it is empty";
  if (is_in(kBlanks, first) || is_in(kBlanks, last)) return "it begins or ends with a blank";
  if (count_characters(text) > kLongestName) return "it has more than " + std::to_string(kLongestName) + " characters";
  return forbidden(text);
}

std::string unfit_labels(const std::vector<std::string>& labels) {
  if (labels.size() > kMostLabels)
    return "there are " + std::to_string(labels.size()) + " labels; there can be at most " +
           std::to_string(kMostLabels);
  std::map<std::string, size_t> first;
  for (size_t index = 0; index < labels.size(); ++index) {
    const std::string label = "label " + std::to_string(index) + " is " + shown(labels[index]);
    const std::string problem = unfit_name(labels[index]);
    if (!problem.empty()) return label + ": " + problem;
    const auto [entry, is_new] = first.emplace(labels[index], index);
    if (!is_new) return label + ", and so is label " + std::to_string(entry->second);
  }
  return "";
}

std::string shown(const std::string& text) {
  std::string result = "'";
  size_t count = 0;
  for (size_t place = 0; place < text.size();) {
    if (count++ == kShown) {
      result += "...";
      break;
    }
    const uint32_t character = next_character(text, place);
    if (character == '\\' || character == '\'') (result += '\\') += static_cast<char>(character);
    else if (character == '\n') result += "\\n";
    else if (!is_in(kForbidden, character)) append_character(result, character);
    else if (character < 0x100) result += "\\x" + hexadecimal(character, 2);
    else result += "\\u" + hexadecimal(character, 4);
  }
  return result + "'";
}

std::string decimal(double number) {
  std::ostringstream out;
  out.imbue(std::locale::classic());
  out.precision(15);
  out << number;
  return out.str();
}

}  // namespace vmp
