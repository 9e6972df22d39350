// Internal functions of the library, for Python's ctypes.
#include <cstring>

#include "error.h"
#include "preprocessing.h"
#include "sha256.h"

extern "C" __attribute__((visibility("default"))) int insides_prepare(const vmp_edge_frame* frame, int size, int mode,
                                                                      int area, const double* mean,
                                                                      const double* deviation, float* out) {
  vmp::Preprocessing preprocessing;
  preprocessing.image_size = size;
  preprocessing.resize = static_cast<vmp::Resize>(mode);
  preprocessing.area = area;
  preprocessing.make_table(mean, deviation);
  try {
    vmp::check_frame(*frame);
    preprocessing.prepare(*frame, out);
    return VMP_EDGE_OK;
  } catch (const vmp::Error& error) {
    return error.status;
  }
}

extern "C" __attribute__((visibility("default"))) void insides_sha256(const void* data, size_t size, size_t piece,
                                                                      char* text) {
  vmp::Sha256 hash;
  for (size_t done = 0; done < size; done += piece)
    hash.add(static_cast<const char*>(data) + done, piece < size - done ? piece : size - done);
  std::strcpy(text, hash.hexadecimal().c_str());
}
