#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace vmp {

// The SHA-256 (FIPS 180-4) of the data that is added.
class Sha256 {
 public:
  void add(const void* data, size_t size);
  std::string hexadecimal();  // in lower case; add nothing afterwards

 private:
  void block(const uint8_t* data);  // (64)

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t buffer_[64] = {};
  uint64_t size_ = 0;
};

}  // namespace vmp
