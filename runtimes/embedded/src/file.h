// A file that is opened once: what its descriptor gives is checked, and the same is used.
#pragma once

#include <functional>
#include <string>

namespace vmp {

class File {
 public:
  // Open a plain file, or a link to one. `shown` is the path for messages. Throws Error (BUNDLE).
  //   folder: the descriptor of a folder, so that files come from one folder even if it is renamed in the meantime
  static File open(int folder, const std::string& name, const std::string& shown);

  // Make an empty file in memory that only this process has. Return nothing (`*this` is false) where the system has
  // no such files.
  static File in_memory(const std::string& name);

  explicit operator bool() const { return descriptor_ >= 0; }
  int64_t size() const;

  // Read the file from its beginning, piece by piece. Throws Error (BUNDLE).
  void read(const std::function<void(const char* data, size_t size)>& use) const;

  void append(const char* data, size_t size);  // Throws Error (MEMORY).
  void seal();                                 // let nobody change a file in memory any more

  // Return a path of exactly this file, whatever its name stands for by now. No two files of a process ever have the
  // same path, even if their descriptors have the same number one after the other.
  const std::string& path() const { return path_; }

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

 private:
  File(int descriptor, const std::string& shown);

  int descriptor_;
  std::string shown_, path_;
};

}  // namespace vmp
