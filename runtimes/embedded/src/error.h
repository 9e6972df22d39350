// The exception that the C interface turns into a status and a message.
#pragma once

#include <stdexcept>
#include <string>

#include "vmp_edge.h"

namespace vmp {

class Error : public std::runtime_error {
 public:
  Error(vmp_edge_status status, const std::string& message) : std::runtime_error(message), status(status) {}
  const vmp_edge_status status;
};

inline Error bad_argument(const std::string& message) { return Error(VMP_EDGE_ERROR_ARGUMENT, message); }
inline Error bad_bundle(const std::string& message) { return Error(VMP_EDGE_ERROR_BUNDLE, message); }

}  // namespace vmp
