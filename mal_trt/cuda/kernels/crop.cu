// Crops of many boxes at once: pixels wrapped around the picture's borders, resized as Pillow's BICUBIC does, bit for
// bit: weights in double, rounded to 22 bits, and 8-bit pixels between the two passes.

#include "common.cuh"

#define PRECISION 22

struct Crop {              // CROP in crop.py
    uint64 picture;        // uint8 [height,width,3]
    uint64 image;          // [3,S,S]
    int64 weights[2];      // where the weights of x and of y start, int32 [taps,S]
    int64 row;             // rows of the crops before it in the scratch, where its own are uint8 [3,y1-y0,S]
    int width, height;     // of the picture
    int x0, y0, x1, y1;    // the extended box
};

__device__ inline double bicubic(double x) {
    if (x < 0.0) x = -x;
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
    return 0.0;
}

__device__ inline uint8 rounded(int sum) {
    int value = sum >> PRECISION;
    return (uint8)(value < 0 ? 0 : value > 255 ? 255 : value);
}

__device__ inline int wrapped(int at, int side) {
    int rest = at % side;
    return rest < 0 ? rest + side : rest;
}

// One thread for each crop, axis and output pixel: its first source pixel, how many, and their weights.
// bounds: int32 [count,axis,(first,taps),S].
extern "C" __global__ void crop_weights(const Crop *crops, int count, int size, int *weights, int *bounds) {
    int64 thread = thread_x();
    if (thread >= (int64)count * 2 * size) return;
    int at = (int)(thread % size), axis = (int)(thread / size % 2);
    const Crop &crop = crops[thread / size / 2];
    int side = axis ? crop.y1 - crop.y0 : crop.x1 - crop.x0;
    double scale = (double)(float)side / size;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * filter_scale, inverse = 1.0 / filter_scale;
    double centre = (at + 0.5) * scale;
    int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
    if (first < 0) first = 0;
    if (last > side) last = side;
    double sum = 0.0;
    for (int x = first; x < last; x++) sum += bicubic((x - centre + 0.5) * inverse);
    int *own = weights + crop.weights[axis] + at;
    for (int x = first; x < last; x++) {
        double weight = bicubic((x - centre + 0.5) * inverse);
        if (sum != 0.0) weight /= sum;
        double fixed = weight * (1 << PRECISION);
        own[(int64)(x - first) * size] = (int)(weight < 0 ? -0.5 + fixed : 0.5 + fixed);
    }
    int *bound = bounds + thread / size * 2 * size + at;
    bound[0] = first;
    bound[size] = last - first;
}

// Rows of the pictures resized to S columns. Grid: x all rows of all crops, y columns.
extern "C" __global__ void crop_rows(const Crop *crops, int first, int count, int64 total, int size, const int *weights,
                                     const int *bounds, uint8 *scratch) {
    int64 row = (int64)blockIdx.x * blockDim.y + threadIdx.y;
    int column = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= total || column >= size) return;
    const Crop &crop = item_at(crops + first, &Crop::row, count, row);
    int y = (int)(row - crop.row);
    const uint8 *line =
        (const uint8 *)crop.picture + (int64)wrapped(crop.y0 + y, crop.height) * crop.width * 3;
    const int *bound = bounds + (&crop - crops) * 4 * size + column;
    const int *weight = weights + crop.weights[0] + column;
    int x = wrapped(crop.x0 + bound[0], crop.width);
    int red = 1 << (PRECISION - 1), green = red, blue = red;
    for (int tap = 0; tap < bound[size]; tap++, weight += size) {
        const uint8 *pixel = line + 3 * (int64)x;
        red += pixel[0] * *weight;
        green += pixel[1] * *weight;
        blue += pixel[2] * *weight;
        if (++x == crop.width) x = 0;
    }
    int64 plane = (int64)(crop.y1 - crop.y0) * size;
    uint8 *out = scratch + crop.row * 3 * size + (int64)y * size + column;
    out[0] = rounded(red);
    out[plane] = rounded(green);
    out[2 * plane] = rounded(blue);
}

// Those rows resized to S rows, into the images. Grid: x columns, y rows, z crops.
template <class Pixel>
__device__ inline void columns(const Crop *crops, int first, int size, const int *weights, const int *bounds,
                               const uint8 *scratch) {
    int column = (int)thread_x(), y = (int)thread_y();
    if (column >= size || y >= size) return;
    int index = first + blockIdx.z;
    const Crop &crop = crops[index];
    const int *bound = bounds + ((int64)index * 4 + 2) * size + y;
    const int *weight = weights + crop.weights[1] + y;
    int64 plane = (int64)(crop.y1 - crop.y0) * size;
    const uint8 *from = scratch + crop.row * 3 * size + (int64)bound[0] * size + column;
    int red = 1 << (PRECISION - 1), green = red, blue = red;
    for (int tap = 0; tap < bound[size]; tap++, weight += size, from += size) {
        red += from[0] * *weight;
        green += from[plane] * *weight;
        blue += from[2 * plane] * *weight;
    }
    int64 area = (int64)size * size;
    Pixel *out = (Pixel *)crop.image + (int64)y * size + column;
    out[0] = (Pixel)rounded(red);
    out[area] = (Pixel)rounded(green);
    out[2 * area] = (Pixel)rounded(blue);
}

extern "C" __global__ void crop_columns_uint8(const Crop *crops, int first, int size, const int *weights,
                                              const int *bounds, const uint8 *scratch) {
    columns<uint8>(crops, first, size, weights, bounds, scratch);
}

extern "C" __global__ void crop_columns_float32(const Crop *crops, int first, int size, const int *weights,
                                                const int *bounds, const uint8 *scratch) {
    columns<float>(crops, first, size, weights, bounds, scratch);
}
