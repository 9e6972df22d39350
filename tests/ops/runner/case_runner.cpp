// case_runner ISA INPUT OUTPUT runs every record of INPUT with one instruction set and writes the results to OUTPUT.
//
// A record has ten int64 (operation, batch, length, channels, states or taps, reverse, first_input, mask, threads, and
// a bit for each optional array that is present), then contiguous float32 arrays in the order in which they are read
// below. The results are float32: the output and, if the gradient of the last state is present, the last state; then the
// gradients of the present inputs in the same order.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "vmp_ops.h"

namespace {

enum Operation { kScan, kBiScan, kConv, kExp, kDecay, kSoftplus, kSilu };

struct Record {
  int64_t operation, batch, length, channels, states, reverse, first_input, mask, threads, present;
};

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "case_runner: %s\n", what);
  std::exit(1);
}

void check(int code) {
  if (code != VMP_OK) fail(vmp_ops_error(code));
}

std::FILE *input, *output;

std::vector<float> read(int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  if (std::fread(values.data(), sizeof(float), values.size(), input) != values.size()) fail("the input ends too early");
  return values;
}

void write(const std::vector<float>& values) {
  if (values.empty()) return;
  if (std::fwrite(values.data(), sizeof(float), values.size(), output) != values.size()) fail("cannot write");
}

// An array that may be absent, with memory for its gradient.
struct Array {
  std::vector<float> values, grad;
  Array(int64_t count, bool present) : values(present ? read(count) : std::vector<float>()), grad(values.size()) {}
  float* data() { return values.empty() ? nullptr : values.data(); }
  float* grad_data() { return grad.empty() ? nullptr : grad.data(); }
};

struct Shape {
  int64_t length, columns;
  vmp_input in(Array& a) const { return {a.data(), length * columns, columns}; }
  vmp_output out(float* data) const { return {data, length * columns, columns}; }
};

void run_scan(const Record& r) {
  const bool both = r.operation == kBiScan;
  const int64_t activation = r.batch * r.length * r.channels, projection = r.batch * r.length * r.states;
  Array x(activation, true), dt(activation, true), A(r.channels * r.states, true), A_b(r.channels * r.states, both);
  Array B(projection, true), C(projection, true), D(r.channels, r.present & 1), z(activation, r.present & 2);
  const int64_t state_size = r.batch * r.channels * r.states;
  Array dt_bias(r.channels, r.present & 4), state(state_size, r.present & 8), grad_y(activation, true);
  Array grad_last(state_size, r.present & 16);
  const Shape rows{r.length, r.channels}, states{r.length, r.states};
  vmp_scan scan{};
  scan.batch = r.batch, scan.length = r.length, scan.channels = r.channels, scan.states = r.states;
  scan.x = rows.in(x), scan.dt = rows.in(dt), scan.B = states.in(B), scan.C = states.in(C), scan.z = rows.in(z);
  scan.A = A.data(), scan.A_b = A_b.data(), scan.D = D.data(), scan.dt_bias = dt_bias.data();
  scan.reverse = static_cast<int32_t>(r.reverse), scan.first_input = static_cast<int32_t>(r.first_input);
  scan.mask = static_cast<int32_t>(r.mask);
  std::vector<float> last(grad_last.values.size());
  scan.state = state.data(), scan.last_state = last.empty() ? nullptr : last.data();
  const vmp_threads threads{static_cast<int32_t>(r.threads), nullptr, nullptr};
  std::vector<float> y(static_cast<size_t>(activation));
  const vmp_scan_grads grads{rows.out(x.grad_data()), rows.out(dt.grad_data()),
                             rows.out(z.grad_data()), B.grad_data(),
                             C.grad_data(),           A.grad_data(),
                             A_b.grad_data(),         D.grad_data(),
                             dt_bias.grad_data(),     state.grad_data(),
                             grad_last.data()};
  const auto forward = both ? vmp_bi_selective_scan : vmp_selective_scan;
  const auto backward = both ? vmp_bi_selective_scan_backward : vmp_selective_scan_backward;
  check(forward(&scan, rows.out(y.data()), &threads));
  check(backward(&scan, rows.in(grad_y), &grads, &threads));
  write(y);
  write(last);
  for (const Array* array : {&x, &dt, &A, &A_b, &B, &C, &D, &z, &dt_bias, &state}) write(array->grad);
}

void run_conv(const Record& r) {
  const int64_t activation = r.batch * r.length * r.channels;
  const int64_t state_size = r.batch * (r.states - 1) * r.channels;
  Array x(activation, true), weight(r.channels * r.states, true), bias(r.channels, r.present & 1);
  Array state(state_size, r.present & 2), grad_y(activation, true), grad_last(state_size, r.present & 4);
  std::vector<float> last(grad_last.values.size());
  const Shape rows{r.length, r.channels};
  const vmp_conv conv{r.batch,      r.length,
                      r.channels,   r.states,
                      rows.in(x),   weight.data(),
                      bias.data(),  static_cast<int32_t>(r.reverse),
                      state.data(), last.empty() ? nullptr : last.data()};
  const vmp_threads threads{static_cast<int32_t>(r.threads), nullptr, nullptr};
  std::vector<float> y(static_cast<size_t>(activation));
  const vmp_conv_grads grads{rows.out(x.grad_data()), weight.grad_data(), bias.grad_data(), state.grad_data(),
                             grad_last.data()};
  check(vmp_causal_conv_silu(&conv, rows.out(y.data()), &threads));
  check(vmp_causal_conv_silu_backward(&conv, rows.in(grad_y), &grads, &threads));
  write(y);
  write(last);
  for (const Array* array : {&x, &weight, &bias, &state}) write(array->grad);
}

void run_elementary(const Record& r) {
  const std::vector<float> in = read(r.length), rate = read(1);
  std::vector<float> out(in.size());
  switch (r.operation) {
    case kExp: check(vmp_exp(in.data(), out.data(), r.length)); break;
    case kDecay: check(vmp_decay(in.data(), rate[0], out.data(), r.length)); break;
    case kSoftplus: check(vmp_softplus(in.data(), out.data(), r.length)); break;
    default: check(vmp_silu(in.data(), out.data(), r.length));
  }
  write(out);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) fail("usage: case_runner ISA INPUT OUTPUT");
  check(vmp_ops_set_isa(argv[1]));
  input = std::fopen(argv[2], "rb");
  output = std::fopen(argv[3], "wb");
  if (!input || !output) fail("cannot open a file");
  Record record;
  while (std::fread(&record, sizeof record, 1, input) == 1) {
    if (record.operation <= kBiScan) {
      run_scan(record);
    } else if (record.operation == kConv) {
      run_conv(record);
    } else {
      run_elementary(record);
    }
  }
  return std::fclose(output) == 0 ? 0 : 1;
}
