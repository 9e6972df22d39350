// Everything that differs between architectures. How the numbers were chosen: docs/cuda.md.
#pragma once

namespace vmp_cuda {

struct Tuning {
  int sm;                // compute capability, 10 * major + minor
  int shortest_chunk;    // steps, for a small batch
  int longest_chunk;     // steps; chunks double from the shortest one while enough blocks are left
  int blocks;            // that an SM should have at least before chunks get longer
  int summarise_blocks;  // of two directions, that an SM's registers must allow: 8 leave 64 registers a thread,
  int replay_blocks;     // 5 leave 96, 4 leave 128: as many as the compiler needs to spill nothing
};

constexpr int kLanes = 64;              // threads of a block and direction: as many channels, fewer with many states
constexpr int kStatesPerThread = 16;    // at most
constexpr int kSharedBytes = 48 << 10;  // of a block, without asking for more

// Of the convolution. With 4 taps, a run of 16 steps loads 3 more, which a neighbour in the block has in the L1 cache.
constexpr int kConvSteps = 16;  // of a thread
constexpr int kConvRuns = 4;    // of a block, each of kLanes threads

// The row of a compute capability, the last of its own major version that is not newer; sm is 0 where the library has
// no code. The kernels are compiled for each row.
__host__ __device__ constexpr Tuning tuning_of(int sm) {
  // clang-format off: the code generator and tests read these rows as text, four spaces before each
  constexpr Tuning rows[] = {
    {80, 24, 96, 8, 8, 5},   // A100: 108 SMs, 40 MB of L2
    {87, 24, 96, 8, 8, 5},   // Orin: 16 SMs (8 in NX and Nano), 2 MB of L2
    {90, 16, 64, 8, 8, 5},   // H100, H200: 132 SMs, 50 MB of L2
    {110, 24, 96, 8, 8, 4},  // Thor: 20 SMs
  };
  // clang-format on
  Tuning found{};
  for (const Tuning& row : rows) {
    if (row.sm <= sm && row.sm / 10 == sm / 10) found = row;
  }
  return found;
}

#ifdef __CUDA_ARCH__
constexpr Tuning kCompiled = tuning_of(__CUDA_ARCH__ / 10);
#else
constexpr Tuning kCompiled = tuning_of(80);  // the host's pass compiles no kernels
#endif

}  // namespace vmp_cuda
