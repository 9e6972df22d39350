// Everything that differs between architectures. docs/cuda.md says how the numbers were chosen.
#pragma once

namespace vmp_cuda {

struct Tuning {
  int sm;              // compute capability, 10 * major + minor
  int shortest_chunk;  // in steps, for a small batch
  int longest_chunk;   // in steps; chunks double from the shortest one while enough blocks are left
  int blocks;          // number of blocks that each SM must have before chunks get longer
  // Number of blocks of two directions for which an SM's registers must suffice: 8 blocks leave 64 registers per
  // thread, 5 leave 96, 4 leave 128. The numbers are those with which the compiler spills no register.
  int summarise_blocks;
  int replay_blocks;
};

constexpr int kLanes = 64;              // threads of a block per direction; as many channels, or fewer with many states
constexpr int kStatesPerThread = 16;    // the most states of a thread
constexpr int kSharedBytes = 48 << 10;  // shared memory that a block can have without a special attribute

// The convolution. With 4 taps, a run of 16 steps also loads the 3 inputs before it; a neighbour in the block has them
// in the L1 cache.
constexpr int kConvSteps = 16;  // steps of a thread
constexpr int kConvRuns = 4;    // runs of a block, each of kLanes threads

// Return the row of a compute capability: the newest one of its major version that is not newer. Its sm is 0 if the
// library has no code for the capability. The kernels are compiled for each row.
__host__ __device__ constexpr Tuning tuning_of(int sm) {
  // clang-format off: the code generator and tests read these rows as text, four spaces before each
  constexpr Tuning rows[] = {
    {80, 24, 96, 8, 8, 5},   // A100: 108 SMs, 40 MB of L2
    {87, 24, 96, 8, 8, 5},   // Orin: 16 SMs (8 in NX and Nano), 2 MB of L2
    {90, 16, 64, 8, 8, 5},   // H100, H200: 132 SMs, 50 MB of L2
    {110, 24, 96, 8, 8, 4},  // Thor: 20 SMs
  };
  // clang-format on
  Tuning result{};
  for (const Tuning& row : rows) {
    if (row.sm <= sm && row.sm / 10 == sm / 10) result = row;
  }
  return result;
}

#ifdef __CUDA_ARCH__
constexpr Tuning kCompiled = tuning_of(__CUDA_ARCH__ / 10);
#else
constexpr Tuning kCompiled = tuning_of(80);  // the compiler's host pass compiles no kernels
#endif

}  // namespace vmp_cuda
