#include "bundle.h"

#include <sys/stat.h>
#include <sys/utsname.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>

#include "error.h"
#include "sha256.h"

namespace vmp {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

// Calls use(data, size) with all of a file, piece by piece.
template <class Use>
void read_file(const std::string& path, Use use) {
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (!file) throw bad_bundle(path + " cannot be read: " + std::strerror(errno));
  char piece[1 << 16];
  while (const size_t got = std::fread(piece, 1, sizeof piece, file.get())) use(piece, got);
  if (std::ferror(file.get())) throw bad_bundle(path + " cannot be read: " + std::strerror(errno));
}

int64_t file_size(const std::string& path) {
  struct stat found;
  if (stat(path.c_str(), &found)) throw bad_bundle(path + " cannot be read: " + std::strerror(errno));
  if (!S_ISREG(found.st_mode)) throw bad_bundle(path + " is not a file: build the bundle again");
  return found.st_size;
}

Manifest read_manifest(const std::string& folder) {
  struct stat found;
  const std::string path = folder + "/" + kManifestName;
  if (stat(folder.c_str(), &found)) throw bad_bundle(folder + " does not exist: build a bundle, or give its folder");
  if (!S_ISDIR(found.st_mode) || stat(path.c_str(), &found))
    throw bad_bundle(folder + " is not a bundle: it has no " + kManifestName);
  if (file_size(path) > kMaxManifestBytes) throw bad_bundle(path + " is too large for a manifest");
  std::string text;
  read_file(path, [&](const char* data, size_t size) { text.append(data, size); });
  try {
    return Manifest::parse(text);
  } catch (const Error& error) {
    throw Error(error.status, path + " " + error.what());
  }
}

std::string machine() {
  utsname found;
  if (uname(&found)) return "unknown";
  const std::string name = found.machine;
  return name == "amd64" ? "x86_64" : name == "arm64" ? "aarch64" : name;
}

// What this CPU can do beyond its architecture, as Linux names it; nothing where that cannot be found out.
std::set<std::string> cpu_features() {
  std::set<std::string> found;
#if defined(__aarch64__)  // the kernel's own answer, which an emulator gives, too
  const char* const names[] = {"fp",      "asimd", "evtstrm", "aes",   "pmull",    "sha1",   "sha2", "crc32",
                               "atomics", "fphp",  "asimdhp", "cpuid", "asimdrdm", "jscvt",  "fcma", "lrcpc",
                               "dcpop",   "sha3",  "sm3",     "sm4",   "asimddp",  "sha512", "sve"};
  for (size_t bit = 0; bit < std::size(names); ++bit)  // in the order of the kernel's asm/hwcap.h
    if (getauxval(AT_HWCAP) >> bit & 1) found.insert(names[bit]);
#else
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0)) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string word; words >> word;) found.insert(word);
    break;
  }
#endif
  return found;
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

void check_file(const std::string& path, const FileEntry& entry) {
  const int64_t size = file_size(path);
  if (size != entry.size)
    throw bad_bundle(path + " has " + std::to_string(size) + " bytes, the manifest says " + std::to_string(entry.size) +
                     ": copy or build the bundle again");
  Sha256 hash;
  read_file(path, [&](const char* data, size_t count) { hash.add(data, count); });
  if (hash.hexadecimal() != entry.sha256)
    throw bad_bundle(path + " is damaged: its SHA-256 is not the manifest's: copy or build the bundle again");
}

}  // namespace

Bundle Bundle::open(const std::string& folder) {
  Bundle found{folder, read_manifest(folder)};
  check_machine(found);
  for (const auto& [name, entry] : found.manifest.files) check_file(found.path(name), entry);
  return found;
}

}  // namespace vmp
