// The lines and scalars of the language of manifests: what `yaml_tree.cpp` puts together to lists and mappings, as
// vmp_edge/bundle/scanning.py does in Python.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "yaml_tree.h"

namespace vmp {

// Reads a document line by line. `row_` and `column_` are the place where the next value begins. All errors are Error
// (BUNDLE).
class YamlScanner {
 protected:
  static constexpr size_t kNone = std::string::npos;

  explicit YamlScanner(const std::string& bytes);

  // Throw Error (BUNDLE), which names the line.
  [[noreturn]] void fail(const std::string& what) const;
  // Note one more value of the document, which is within `depth` lists and mappings.
  void count(int depth = 0);

  // Return the character at a column, or a blank behind the end of the line.
  char at(size_t column) const;
  bool begins_item(size_t column) const;
  bool is_blank() const;
  size_t indent() const;

  // Go to the next line that is neither blank nor a comment.
  void skip_blank_lines();
  // Go to the next line with content. Return its indentation, or kNone at the end.
  size_t next_line();
  // Check that nothing but a comment follows a value in its line, and go to the next line.
  void check_rest();

  // Return a text without blanks at its end.
  static std::string stripped_right(std::string text);
  static bool begins_document(const std::string& line);
  void check_one_document() const;

  // Return what a scalar without quotes is: a number, a boolean, null or, as anything else, a text.
  Yaml resolved(const std::string& text) const;
  // Read a text without quotes, which goes on in lines that are indented more than `parent`.
  std::string plain_lines(size_t column, size_t parent);
  // Check that a text without quotes may begin here. It ends before the characters `stops`.
  void check_first(size_t column, const std::string& stops) const;
  // Read a text in quotes. Afterwards the place is behind it.
  Yaml quoted();

  // Go to the next character that is neither blank nor in a comment, and return it.
  char flow_next();
  // Read a text without quotes, which may go on in the next lines.
  std::string flow_plain();
  bool ends_plain(size_t column) const;

  std::vector<std::string> lines_;
  size_t row_ = 0, column_ = 0;

 private:
  void check_length(const std::string& text) const;
  [[noreturn]] void fail_by_length() const;
  // Go to the first character of the next line that is not blank. Return how many blank lines are before it.
  size_t continue_quoted();
  uint32_t escape();
  // Read what a text without quotes has in this line.
  std::string flow_piece();
  // Go to the next line if a text without quotes goes on there. Return whether it does.
  bool continues_flow_plain();

  int values_ = 0;
};

}  // namespace vmp
