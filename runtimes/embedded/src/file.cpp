#include "file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "error.h"

namespace vmp {
namespace {

constexpr unsigned kExecutable = 0x10;  // MFD_EXEC, which Linux has since version 6.3

Error unreadable(const std::string& path) {
  const std::string why = errno == ENOENT ? "is missing: copy or build the bundle again"
                                          : std::string("cannot be read: ") + std::strerror(errno);
  return bad_bundle(path + " " + why);
}

// Return /proc/self/fd/DESCRIPTOR, with numbers of its own written between the folders, as "/" for 0 and "./" for 1.
// glibc recognises a library that it has loaded by the text of its path, and would mistake one library for another
// whose descriptor had the same number before. The counter's address tells apart the copies of this code in a process,
// of which each counts for itself; vmp_edge/bundle/opened.py is one more.
std::string unique_path(int descriptor) {
  static std::atomic<uint64_t> counter{0};
  std::string path = "/proc/self/";
  for (uint64_t number : {++counter, static_cast<uint64_t>(reinterpret_cast<uintptr_t>(&counter))})
    for (int bit = 0; bit < 64; ++bit) path += number >> bit & 1 ? "./" : "/";
  return path + "fd/" + std::to_string(descriptor);
}

}  // namespace

File::File(int descriptor, const std::string& shown)
    : descriptor_(descriptor), shown_(shown), path_(descriptor < 0 ? "" : unique_path(descriptor)) {}

File::File(File&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      shown_(std::move(other.shown_)),
      path_(std::move(other.path_)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(shown_, other.shown_);
  std::swap(path_, other.path_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) close(descriptor_);
}

File File::open(int folder, const std::string& name, const std::string& shown) {
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  File file(openat(folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), shown);
  if (!file) throw unreadable(shown);
  struct stat status;
  if (fstat(file.descriptor_, &status)) throw unreadable(shown);
  if (!S_ISREG(status.st_mode)) throw bad_bundle(shown + " is not a file: build the bundle again");
  return file;
}

File File::in_memory(const std::string& name) {
#if defined(MFD_ALLOW_SEALING) && (!defined(__ANDROID_API__) || __ANDROID_API__ >= 30)
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  int descriptor = memfd_create(name.c_str(), flags | kExecutable);
  if (descriptor < 0) descriptor = memfd_create(name.c_str(), flags);
  return File(descriptor, name);
#else
  return File(-1, name);
#endif
}

int64_t File::size() const {
  struct stat status;
  if (fstat(descriptor_, &status)) throw unreadable(shown_);
  return status.st_size;
}

void File::read(const std::function<void(const char* data, size_t size)>& use) const {
  char piece[1 << 16];
  for (off_t offset = 0;;) {
    const ssize_t count = pread(descriptor_, piece, sizeof piece, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw unreadable(shown_);
    if (count == 0) return;
    use(piece, static_cast<size_t>(count));
    offset += count;
  }
}

void File::append(const char* data, size_t size) {
  while (size > 0) {
    const ssize_t count = write(descriptor_, data, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error(VMP_EDGE_ERROR_MEMORY, shown_ + " cannot be copied to memory: " + std::strerror(errno));
    data += count, size -= static_cast<size_t>(count);
  }
}

void File::seal() {
#if defined(F_ADD_SEALS)
  fcntl(descriptor_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
#endif
}

}  // namespace vmp
