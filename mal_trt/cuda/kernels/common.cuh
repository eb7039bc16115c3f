// What the kernels share. Compiled without contraction of a * b + c, so that they round as NumPy does.

typedef unsigned char uint8;
typedef unsigned int uint32;
typedef long long int64;
typedef unsigned long long uint64;

__device__ inline int64 thread_x() { return (int64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline int64 thread_y() { return (int64)blockIdx.y * blockDim.y + threadIdx.y; }

// The last of `count` items whose start is `at` or before; items lie in the order of their starts.
template <class Item>
__device__ inline const Item &item_at(const Item *items, int64 Item::*start, int count, int64 at) {
    int low = 0, high = count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (items[middle].*start <= at)
            low = middle;
        else
            high = middle - 1;
    }
    return items[low];
}
