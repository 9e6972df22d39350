/* This library stands between ExecuTorch, which is built with the headers of QNN 2.37 (interface 2.27), and Qualcomm's
   libQnnHtp.so of the onnxruntime-qnn wheel (interface 2.40). Between these versions, the union in
   QnnHtpDevice_CustomConfig_t moved from byte 4 to byte 8. The library hands on all functions as they are except
   deviceCreate, whose configurations it converts: it moves the union.

   Layouts: QnnInterface.h, QnnDevice.h and HTP/QnnHtpDevice.h of Qualcomm's AI Engine Direct. */
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

enum {
  kProviders = 4,
  kFunctions = 96,    /* more than either version has */
  kDeviceCreate = 40, /* the place of deviceCreate among the functions */
  kConfigs = 16,
  kCustom = 0, /* a value of QnnDevice_ConfigOption_t */
  kUnion = 8,  /* the bytes of the older union */
};
static const uint64_t kFailed = 1;

typedef void (*Function)(void);
typedef struct {
  uint32_t backend;
  const char* name;
  uint32_t version[6];
  Function functions[kFunctions];
} Provider;
typedef struct {
  uint32_t option;
  void* custom;
} DeviceConfig;
typedef struct {
  uint32_t option;
  unsigned char value[kUnion];
} OldCustom;
typedef struct {
  uint32_t option;
  uint32_t padding;
  unsigned char value[4 * kUnion];
} NewCustom;
typedef uint64_t (*GetProviders)(const Provider***, uint32_t*);
typedef uint64_t (*DeviceCreate)(void*, const DeviceConfig**, void**);

static Provider providers[kProviders];
static const Provider* listed[kProviders];
static uint32_t provider_count;
static DeviceCreate device_create;

static uint64_t create_device(void* log, const DeviceConfig** old_configs, void** device) {
  NewCustom customs[kConfigs];
  DeviceConfig configs[kConfigs];
  const DeviceConfig* pointers[kConfigs + 1];
  uint32_t count = 0;
  memset(customs, 0, sizeof customs);
  for (; old_configs && old_configs[count]; ++count) {
    if (count == kConfigs) return kFailed;
    configs[count] = *old_configs[count];
    if (configs[count].option == kCustom) {
      const OldCustom* old = configs[count].custom;
      customs[count].option = old->option;
      memcpy(customs[count].value, old->value, kUnion);
      configs[count].custom = &customs[count];
    }
    pointers[count] = &configs[count];
  }
  pointers[count] = NULL;
  return device_create(log, old_configs ? pointers : NULL, device);
}

/* Load Qualcomm's library. Return NULL, or a text that says what is wrong. To be called once, before anything else. */
const char* vmp_qnn_open(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return dlerror();
  GetProviders get = (GetProviders)dlsym(library, "QnnInterface_getProviders");
  const Provider** originals = NULL;
  uint32_t count = 0;
  if (!get || get(&originals, &count) || !count || count > kProviders) return "it is not a QNN library";
  for (uint32_t i = 0; i < count; ++i) {
    memcpy(&providers[i], originals[i], sizeof providers[i]);
    device_create = (DeviceCreate)providers[i].functions[kDeviceCreate];
    providers[i].functions[kDeviceCreate] = (Function)create_device;
    listed[i] = &providers[i];
  }
  provider_count = count;
  return NULL;
}

uint64_t QnnInterface_getProviders(const Provider*** list, uint32_t* count) {
  *list = listed;
  *count = provider_count;
  return provider_count ? 0 : kFailed;
}
