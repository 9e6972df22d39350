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
constexpr const char* kCudaRuntime = "libcudart.so.13";  // in the bundles that run on a GPU

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

// Remove a path that means nothing to the user from a message, with the ": " after it.
std::string without(std::string message, const std::string& path) {
  const size_t at = message.find(path);
  if (at == std::string::npos) return message;
  const bool colon = !message.compare(at + path.size(), 2, ": ");
  return message.erase(at, path.size() + (colon ? 2 : 0));
}

// Load a library of the bundle: exactly what was checked, by its descriptor.
void* load_from(const Bundle& bundle, const std::string& name, int visibility) {
  const std::shared_ptr<const File> file = bundle.file(name);
  // The path is unique, so that the loader cannot take another library for this one once the descriptor is closed.
  if (void* handle = dlopen(file->path().c_str(), RTLD_NOW | visibility)) return handle;
  const std::string why = without(dlerror(), file->path());
  throw engine_error(bundle.path(name) + " cannot be loaded (" + why + "): build the bundle again");
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
  void* handle = kind.in_bundle ? load_from(bundle, kind.own, RTLD_LOCAL) : load(kind.own, folders, RTLD_LOCAL);
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
  if (kind->second.in_bundle) bundle.file(kind->second.own);  // also if another bundle's was loaded already
  if (bundle.manifest.gpu) bundle.file(kCudaRuntime);
  const std::lock_guard<std::mutex> lock(mutex);
  auto entry = loaded.find(engine);
  const std::vector<std::string> folders = search_path(libraries);
  if (entry == loaded.end()) entry = loaded.emplace(engine, open_library(bundle, kind->second, folders)).first;
  static bool cuda_runtime_loaded = false;
  if (bundle.manifest.gpu) {
    if (!cuda_runtime_loaded) load_from(bundle, kCudaRuntime, RTLD_GLOBAL);
    cuda_runtime_loaded = true;
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
        outputs(classes + static_cast<size_t>(bundle.manifest.features)),
        file(bundle.file(bundle.manifest.program)) {
    const Manifest& manifest = bundle.manifest;
    const int32_t side = manifest.preprocessing.image_size;
    const int32_t sizes[] = {manifest.frames / manifest.tubelet, 3 * manifest.tubelet, side, side};
    std::copy(std::begin(sizes), std::end(sizes), shape);
    char error[kErrorSize] = "";
    program = library.create(file->path().c_str(), manifest.gpu, error, kErrorSize);
    if (!program) throw engine_error(bundle.path(manifest.program) + ": " + without(error, file->path()));
  }
  ~Program() { library.destroy(program); }

  const Library& library;
  const size_t classes;
  std::vector<float> outputs;  // the program's output: the logits, then features, which this library does not use
  const std::shared_ptr<const File> file;  // other bundles share it as long as it is in use
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
  const vmp_program_input frames{input, p.shape, 4};
  const vmp_program_output outputs{p.outputs.data(), count};
  if (p.library.run(p.program, &frames, 1, &outputs, 1, error, kErrorSize))
    throw engine_error(std::string("running the model failed: ") + error);
  std::copy_n(p.outputs.begin(), p.classes, logits);
}

}  // namespace vmp
