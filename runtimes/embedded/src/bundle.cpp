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

// Read a file piece by piece, and call use(data, size) with each piece.
template <class Use>
void read_file(const std::string& path, Use use) {
  const std::unique_ptr<std::FILE, Close> file(std::fopen(path.c_str(), "rb"));
  if (!file) throw bad_bundle(path + " cannot be read: " + std::strerror(errno));
  char piece[1 << 16];
  while (const size_t count = std::fread(piece, 1, sizeof piece, file.get())) use(piece, count);
  if (std::ferror(file.get())) throw bad_bundle(path + " cannot be read: " + std::strerror(errno));
}

int64_t file_size(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status)) throw bad_bundle(path + " cannot be read: " + std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw bad_bundle(path + " is not a file: build the bundle again");
  return status.st_size;
}

Manifest read_manifest(const std::string& folder) {
  struct stat status;
  const std::string path = folder + "/" + kManifestName;
  if (stat(folder.c_str(), &status)) throw bad_bundle(folder + " does not exist: build a bundle, or give its folder");
  if (!S_ISDIR(status.st_mode) || stat(path.c_str(), &status))
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
  Bundle bundle{folder, read_manifest(folder)};
  check_machine(bundle);
  for (const auto& [name, entry] : bundle.manifest.files) check_file(bundle.path(name), entry);
  return bundle;
}

}  // namespace vmp
