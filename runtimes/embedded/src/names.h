// What labels and names may be, with the rules of vmp_edge/texts.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vmp {

inline constexpr size_t kLongestName = 256;  // characters
inline constexpr size_t kMostLabels = 32768;

// Return whether the bytes are UTF-8: no byte out of place, no overlong form, no half of a surrogate pair.
bool is_utf8(const std::string& bytes);

// Return the character that begins at `place` of a text in UTF-8, and go behind it.
uint32_t next_character(const std::string& text, size_t& place);

void append_character(std::string& text, uint32_t character);

size_t count_characters(const std::string& text);

// Return what makes a text unfit for a manifest, or an empty text if it is fit.
std::string forbidden(const std::string& text);

// Return what makes a text unfit as a label or a name, or an empty text if it is fit.
std::string unfit_name(const std::string& text);

// Return what makes texts unfit as the labels of a model, or an empty text if they are fit.
std::string unfit_labels(const std::vector<std::string>& labels);

// Return a text in quotes for a message: cut to a readable length, and with what is invisible escaped.
std::string shown(const std::string& text);

// Return a number for a message, with a decimal point whatever the program's locale is.
std::string decimal(double number);

}  // namespace vmp
