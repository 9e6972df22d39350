#include "bundle.h"

#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <optional>
#include <set>
#include <sstream>

#include "error.h"
#include "sha256.h"

namespace vmp {
namespace {

// The descriptor of a bundle's folder.
class Folder {
 public:
  explicit Folder(const std::string& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ >= 0) return;
    if (errno == ENOENT) throw bad_bundle(path + " does not exist: build a bundle, or give its folder");
    if (errno == ENOTDIR) throw bad_bundle(path + " is not a bundle: it has no " + kManifestName);
    throw bad_bundle(path + " cannot be read: " + std::strerror(errno));
  }
  ~Folder() { close(descriptor_); }
  Folder(const Folder&) = delete;

  bool has(const std::string& name) const { return !faccessat(descriptor_, name.c_str(), F_OK, 0); }
  File open(const std::string& name) const { return File::open(descriptor_, name, path_ + "/" + name); }

 private:
  const std::string path_;
  const int descriptor_;
};

Manifest read_manifest(const Folder& folder, const std::string& shown) {
  if (!folder.has(kManifestName)) throw bad_bundle(shown + " is not a bundle: it has no " + kManifestName);
  const std::string path = shown + "/" + kManifestName;
  const File file = folder.open(kManifestName);
  std::string text;
  file.read([&](const char* data, size_t size) {
    if (text.size() + size > static_cast<size_t>(kMaxManifestBytes))
      throw bad_bundle(path + " is too large for a manifest");
    text.append(data, size);
  });
  try {
    return Manifest::parse(text);
  } catch (const Error& error) {
    throw Error(error.status, path + " " + error.what());
  }
}

std::string machine() {
  utsname system;
  if (uname(&system)) return "unknown";
  const std::string name = system.machine;
  return name == "amd64" ? "x86_64" : name == "arm64" ? "aarch64" : name;
}

// Return the CPU's features beyond its architecture, by Linux's names; none if they cannot be determined.
std::set<std::string> cpu_features() {
  std::set<std::string> features;
#if defined(__aarch64__)  // ask the kernel; an emulator answers, too
  const char* const names[] = {"fp",      "asimd", "evtstrm", "aes",   "pmull",    "sha1",   "sha2", "crc32",
                               "atomics", "fphp",  "asimdhp", "cpuid", "asimdrdm", "jscvt",  "fcma", "lrcpc",
                               "dcpop",   "sha3",  "sm3",     "sm4",   "asimddp",  "sha512", "sve"};
  for (size_t bit = 0; bit < std::size(names); ++bit)  // in the order of the kernel's asm/hwcap.h
    if (getauxval(AT_HWCAP) >> bit & 1) features.insert(names[bit]);
#else
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0)) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) features.insert(word);
    break;
  }
#endif
  return features;
}

void check_machine(const Bundle& bundle) {
  const Manifest& manifest = bundle.manifest;
  const auto refuse = [&](const std::string& why) {
    throw Error(VMP_EDGE_ERROR_MACHINE, bundle.folder + " " + why + ": build a bundle for this machine's target");
  };
  if (manifest.machine != "any" && manifest.machine != machine())
    refuse("is for " + manifest.machine + ", this machine is " + machine());
  const std::set<std::string> features = cpu_features();
  for (const std::string& needed : manifest.cpu_features)
    if (!features.count(needed)) refuse("needs a CPU with " + needed + ", which this one lacks");
}

// Return whether the loader of shared libraries will get a file: its code is executed.
bool is_library(const Manifest& manifest, const std::string& name) {
  const bool named =
      name.find(".so.") != std::string::npos || (name.size() > 3 && !name.compare(name.size() - 3, 3, ".so"));
  return named || (manifest.engine == "tvm" && name == manifest.program);
}

// The copies of libraries that are in use, by their SHA-256. Bundles with the same library share its copy.
std::shared_ptr<const File> shared_copy(const std::string& sha256, File copy) {
  static std::mutex mutex;
  static auto* const copies = new std::map<std::string, std::weak_ptr<const File>>;  // outlives every other static
  const std::lock_guard<std::mutex> lock(mutex);
  std::weak_ptr<const File>& entry = (*copies)[sha256];
  std::shared_ptr<const File> file = entry.lock();
  if (!file) entry = file = std::make_shared<const File>(std::move(copy));
  return file;
}

// Open a file and check it by its descriptor. Return what was checked. That is the descriptor or, for a library, a
// sealed copy in memory: in the file itself, somebody could still change the code after the check.
std::shared_ptr<const File> open_file(const Folder& folder, const Bundle& bundle, const std::string& name,
                                      const FileEntry& entry) {
  const std::string path = bundle.path(name);
  File file = folder.open(name);
  const int64_t size = file.size();
  if (size != entry.size)
    throw bad_bundle(path + " has " + std::to_string(size) + " bytes, the manifest says " + std::to_string(entry.size) +
                     ": copy or build the bundle again");
  std::optional<File> copy;
  if (is_library(bundle.manifest, name)) copy = File::in_memory(name);
  const bool copies = copy && *copy;
  Sha256 hash;
  file.read([&](const char* data, size_t count) {
    hash.add(data, count);
    if (copies) copy->append(data, count);
  });
  if (hash.hexadecimal() != entry.sha256)
    throw bad_bundle(path + " is damaged: its SHA-256 is not the manifest's: copy or build the bundle again");
  if (!copies) return std::make_shared<const File>(std::move(file));
  copy->seal();
  return shared_copy(entry.sha256, std::move(*copy));
}

}  // namespace

std::shared_ptr<const File> Bundle::file(const std::string& name) const {
  const auto found = files.find(name);
  if (found == files.end())
    throw bad_bundle(
        folder + ": " + name +
        " is not among the bundle's files, so that nothing says what it should be: build the bundle again");
  return found->second;
}

Bundle Bundle::open(const std::string& path) {
  const Folder folder(path);
  Bundle bundle{path, read_manifest(folder, path), {}};
  check_machine(bundle);
  if (bundle.manifest.labels.empty())
    throw bad_bundle(path +
                     " gives features alone and recognises no classes by itself: this library needs a bundle with "
                     "classes; use such a bundle from Python");
  for (const auto& [name, entry] : bundle.manifest.files)
    bundle.files.emplace(name, open_file(folder, bundle, name, entry));
  return bundle;
}

}  // namespace vmp
