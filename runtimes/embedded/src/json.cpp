#include <cmath>
#include <locale>
#include <sstream>

#include "recognizer.h"

namespace vmp {
namespace {

double rounded(double value, int places) {
  const double scale = std::pow(10.0, places);
  return std::round(value * scale) / scale;
}

void write_text(std::ostream& out, const char* text) {
  out << '"';
  for (const char* p = text; *p; ++p) {
    const auto c = static_cast<unsigned char>(*p);
    if (c == '"' || c == '\\') out << '\\' << *p;
    else if (c < 32) out << "\\u00" << (c < 16 ? '0' : '1') << "0123456789abcdef"[c & 15];
    else out << *p;
  }
  out << '"';
}

}  // namespace

std::string to_json(const vmp_edge_result& result) {
  std::ostringstream out;
  out.imbue(std::locale::classic());  // no decimal comma
  out.precision(15);
  out << "{\"time\": " << rounded(result.timestamp, 3) << ", \"frame\": " << result.frame << ", \"label\": ";
  write_text(out, result.name);
  out << ", \"score\": " << rounded(result.score, 4) << ", \"top\": [";
  for (int32_t i = 0; i < result.num_top; ++i) {
    out << (i ? ", [" : "[");
    write_text(out, result.top[i].name);
    out << ", " << rounded(result.top[i].score, 4) << "]";
  }
  out << "], \"latency_ms\": " << rounded(result.latency * 1e3, 3) << ", \"dropped\": " << result.dropped << "}";
  return out.str();
}

}  // namespace vmp
