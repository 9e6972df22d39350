#include "engine.h"

#include <dlfcn.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <vector>

#include "error.h"
#include "vmp_program.h"

namespace vmp {
namespace {

constexpr size_t kErrorSize = 512;

Error engine_error(const std::string& message) { return Error(VMP_EDGE_ERROR_ENGINE, message); }

// The libraries of an engine. Its own library has the functions of vmp_program.h and needs the others to be loaded.
struct Kind {
  std::vector<std::string> needed, needed_for_gpu;
  std::string own;
  bool in_bundle;  // the engine's own library is in the bundle
};

const std::map<std::string, Kind>& kinds() {
  static const std::map<std::string, Kind> known = {
      {"executorch",
       {{"libexecutorch.so", "libexecutorch_threadpool.so", "libexecutorch_kernels_optimized.so",
         "libexecutorch_backend_xnnpack.so"},
        {},
        "libvmp_executorch.so",
        true}},
      {"tvm",
       {{"libtvm_ffi.so", "libtvm_runtime.so"},
        {"libcuda.so.1", "libtvm_runtime_cuda.so"},
        "libvmp_edge_tvm.so",
        false}},
  };
  return known;
}

// Return the folders to search, in order.
std::vector<std::string> search_path(const std::string& libraries) {
  std::vector<std::string> folders;
  const char* environment = std::getenv("VMP_EDGE_LIBRARIES");
  for (const std::string& list : {libraries, std::string(environment ? environment : "")}) {
    std::istringstream words(list);
    for (std::string folder; std::getline(words, folder, ':');)
      if (!folder.empty()) folders.push_back(folder);
  }
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&vmp_edge_abi_version), &self) && self.dli_fname) {
    const std::string path = self.dli_fname;
    folders.push_back(path.find('/') == std::string::npos ? "." : path.substr(0, path.rfind('/')));
  }
  return folders;
}

// Load a library from the first folder that has it, or from the system's folders.
void* load(const std::string& name, const std::vector<std::string>& folders, int visibility) {
  std::string reason;
  for (const std::string& folder : folders) {
    if (void* handle = dlopen((folder + "/" + name).c_str(), RTLD_NOW | visibility)) return handle;
    const std::string why = dlerror();
    if (why.find("cannot open shared object file: No such file") == std::string::npos || why.find(folder) != 0)
      reason = why;
  }
  if (void* handle = dlopen(name.c_str(), RTLD_NOW | visibility)) return handle;
  if (reason.empty()) reason = dlerror();
  throw engine_error(name + " cannot be loaded (" + reason +
                     "): put its folder into the configuration's `libraries` or into VMP_EDGE_LIBRARIES");
}

int32_t all_cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

// The functions of an engine's library. A process loads only one library of each engine: a second libvmp_executorch.so
// would register the operators again.
struct Library {
  decltype(&vmp_program_create) create;
  decltype(&vmp_program_destroy) destroy;
  decltype(&vmp_program_run) run;
  decltype(&vmp_program_set_threads) set_threads;
  int32_t threads = 0;
};

template <class Function>
void find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (!function) throw engine_error(std::string("the engine's library lacks ") + name + ": build the bundle again");
}

Library open_library(const Bundle& bundle, const Kind& kind, const std::vector<std::string>& folders) {
  // Let TVM's threads move between cores: on shared and asymmetric machines pinned threads wait for each other.
  setenv("TVM_BIND_THREADS", "0", 0);
  for (const std::string& name : kind.needed) load(name, folders, RTLD_GLOBAL);
  void* handle = load(kind.own, kind.in_bundle ? std::vector<std::string>{bundle.folder} : folders, RTLD_LOCAL);
  Library library;
  decltype(&vmp_program_abi) abi = nullptr;
  find(handle, "vmp_program_abi", abi);
  if (abi() != VMP_PROGRAM_ABI)
    throw engine_error(kind.own + " belongs to another version of VMP Edge: build the bundle, or the library, again");
  find(handle, "vmp_program_create", library.create);
  find(handle, "vmp_program_destroy", library.destroy);
  find(handle, "vmp_program_run", library.run);
  find(handle, "vmp_program_set_threads", library.set_threads);
  return library;
}

const Library& get_library(const Bundle& bundle, int32_t threads, const std::string& libraries) {
  static std::mutex mutex;
  static std::map<std::string, Library> loaded;
  const std::string& engine = bundle.manifest.engine;
  const auto kind = kinds().find(engine);
  if (kind == kinds().end())
    throw engine_error(
        bundle.folder + " needs the engine '" + engine +
        "', which is not in this library (there are executorch and tvm): build the bundle for one of them");
  const std::lock_guard<std::mutex> lock(mutex);
  auto entry = loaded.find(engine);
  const std::vector<std::string> folders = search_path(libraries);
  if (entry == loaded.end()) entry = loaded.emplace(engine, open_library(bundle, kind->second, folders)).first;
  if (bundle.manifest.gpu) {
    load(bundle.path("libcudart.so.13"), {}, RTLD_GLOBAL);
    for (const std::string& name : kind->second.needed_for_gpu) load(name, folders, RTLD_GLOBAL);
  }
  Library& library = entry->second;
  const int32_t count = threads ? threads : library.threads ? library.threads : all_cores();
  if (count != library.threads) {
    if (engine == "executorch" && library.threads)
      throw bad_argument("ExecuTorch runs on " + std::to_string(library.threads) +
                         " threads in this process and cannot change to " + std::to_string(count) +
                         ": use one number for all bundles of a process");
    if (library.set_threads(count)) throw engine_error(engine + " cannot use " + std::to_string(count) + " threads");
    library.threads = count;
  }
  return library;
}

}  // namespace

struct Engine::Program {
  Program(const Bundle& bundle, const Library& library)
      : library(library),
        classes(bundle.manifest.labels.size()),
        outputs(classes + static_cast<size_t>(bundle.manifest.features)) {
    const Manifest& manifest = bundle.manifest;
    const int32_t side = manifest.preprocessing.image_size;
    const int32_t sizes[] = {manifest.frames / manifest.tubelet, 3 * manifest.tubelet, side, side};
    std::copy(std::begin(sizes), std::end(sizes), shape);
    const std::string path = bundle.path(manifest.program);
    char error[kErrorSize] = "";
    program = library.create(path.c_str(), manifest.gpu, error, kErrorSize);
    if (!program) throw engine_error(path + ": " + error);
  }
  ~Program() { library.destroy(program); }

  const Library& library;
  const size_t classes;
  std::vector<float> outputs;  // the program's output: the logits, then features, which this library does not use
  int32_t shape[4];
  vmp_program* program;
};

Engine::Engine(const Bundle& bundle, int32_t threads, const std::string& libraries)
    : program_(new Program(bundle, get_library(bundle, threads ? threads : bundle.manifest.threads, libraries))) {}

Engine::~Engine() = default;

void Engine::run(const float* input, float* logits) {
  char error[kErrorSize] = "";
  Program& p = *program_;
  const auto count = static_cast<int64_t>(p.outputs.size());
  if (p.library.run(p.program, input, p.shape, 4, p.outputs.data(), count, error, kErrorSize))
    throw engine_error(std::string("running the model failed: ") + error);
  std::copy_n(p.outputs.begin(), p.classes, logits);
}

}  // namespace vmp
