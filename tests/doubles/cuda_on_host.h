// A test double of the few words of CUDA C++ that the kernels use, so that g++ compiles them as they are: one thread
// after the other. What needs threads at once (shared memory, __syncthreads) does not exist here.

#pragma once
#include <cmath>
#include <cstdint>

#define __global__
#define __device__

struct Extent {
    unsigned x, y, z;
};

static Extent gridDim, blockDim, blockIdx, threadIdx;

template <class Number, class Added>
static inline Number atomicAdd(Number *at, Added value) {
    Number before = *at;
    *at += (Number)value;
    return before;
}

static inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }

template <class Body>
static inline void every_thread(const unsigned *grid, const unsigned *block, Body body) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; blockIdx.x++)
                for (threadIdx.z = 0; threadIdx.z < block[2]; threadIdx.z++)
                    for (threadIdx.y = 0; threadIdx.y < block[1]; threadIdx.y++)
                        for (threadIdx.x = 0; threadIdx.x < block[0]; threadIdx.x++) body();
}
