// Logits sharpened by the colours of their crops, as mal_trt/geometry/refine.py does it; and small things done to logits.

#include "common.cuh"

#define BINS 20
#define CELLS (BINS * BINS * BINS)
#define WHOLE 16777216  // weights are whole multiples of 1 / WHOLE, so that their sums are exact
#define LEAST 1e-6

struct Box {  // BOX in refine.py: the box in the crop
    int x0, y0, x1, y1;
};

// Share of cell `at`, `step` crop pixels long, that lies within first..last.
__device__ inline double share(int at, double step, int first, int last) {
    double low = at * step, high = (at + 1) * step;
    if (low < first) low = first;
    if (high > last) high = last;
    double inside = high - low;
    return (inside > 0.0 ? inside : 0.0) / step;
}

// One thread for a pixel of the logits: its probability within the box, the cell of its colour, and both weights added
// to the sums of that cell, uint64 [N,(object,rest),CELLS].
template <class Pixel>
__device__ inline void weigh(const Box *boxes, int count, const Pixel *image, const float *logits, int height, int width,
                             int size, float *probability, int *cells, uint64 *sums) {
    int64 thread = thread_x(), area = (int64)height * width;
    if (thread >= count * area) return;
    int64 index = thread / area;
    int y = (int)(thread % area / width), x = (int)(thread % width);
    Box box = boxes[index];
    float inside = (float)(share(y, (double)size / height, box.y0, box.y1) * share(x, (double)size / width, box.x0, box.x1));
    float q = inside / (1.0f + (float)exp(-(double)logits[thread]));
    int down = size / height, across = size / width, cell = 0;
    for (int channel = 0; channel < 3; channel++) {
        const Pixel *corner = image + ((index * 3 + channel) * size + (int64)y * down) * size + x * across;
        float mean = 0.0f;
        for (int i = 0; i < across; i++) {
            float column = 0.0f;
            for (int j = 0; j < down; j++) column += (float)corner[(int64)j * size + i];
            mean += column;
        }
        mean /= (float)(down * across);
        int level = (int)rintf(mean * (float)((BINS - 1) / 255.0));
        cell = cell * BINS + (level < 0 ? 0 : level >= BINS ? BINS - 1 : level);
    }
    probability[thread] = q;
    cells[thread] = cell;
    uint64 weight = (uint64)rintf(q * (float)WHOLE);
    uint64 *own = sums + index * 2 * CELLS + cell;
    if (weight) atomicAdd(own, weight);
    if (weight != WHOLE) atomicAdd(own + CELLS, WHOLE - weight);
}

extern "C" __global__ void refine_weigh_uint8(const Box *boxes, int count, const uint8 *image, const float *logits,
                                              int height, int width, int size, float *probability, int *cells,
                                              uint64 *sums) {
    weigh(boxes, count, image, logits, height, width, size, probability, cells, sums);
}

extern "C" __global__ void refine_weigh_float32(const Box *boxes, int count, const float *image, const float *logits,
                                                int height, int width, int size, float *probability, int *cells,
                                                uint64 *sums) {
    weigh(boxes, count, image, logits, height, width, size, probability, cells, sums);
}

// One thread for a line of a grid along one axis (0, 1, 2), in place: 1, 2, 1 twice, nothing beyond the ends.
// Where `totals` are given, the line's sum is added to its grid's.
extern "C" __global__ void refine_smooth(uint64 *sums, int grids, int axis, uint64 *totals) {
    int64 thread = thread_x();
    if (thread >= (int64)grids * BINS * BINS) return;
    int64 grid = thread / (BINS * BINS);
    int line = (int)(thread % (BINS * BINS));
    int step = axis == 0 ? BINS * BINS : axis == 1 ? BINS : 1;
    int corner = axis == 0 ? line : axis == 1 ? line / BINS * BINS * BINS + line % BINS : line * BINS;
    uint64 *own = sums + grid * CELLS + corner;
    uint64 values[BINS], total = 0;
    for (int i = 0; i < BINS; i++) total += values[i] = own[i * step];
    for (int pass = 0; pass < 2; pass++) {
        uint64 before = 0;
        for (int i = 0; i < BINS; i++) {
            uint64 here = values[i];
            values[i] = before + 2 * here + (i + 1 < BINS ? values[i + 1] : 0);
            before = here;
        }
    }
    for (int i = 0; i < BINS; i++) own[i * step] = values[i];
    if (totals && total) atomicAdd(totals + grid, total);
}

// One thread for a pixel: its new logit. totals: [N,(object,rest)].
extern "C" __global__ void refine_sharpen(const float *probability, const int *cells, const uint64 *sums,
                                          const uint64 *totals, int count, int area, float *logits) {
    int64 thread = thread_x();
    if (thread >= (int64)count * area) return;
    int64 index = thread / area;
    double shares[2];
    for (int part = 0; part < 2; part++) {
        double total = (double)totals[index * 2 + part];
        double least = LEAST * WHOLE;
        shares[part] = (double)sums[(index * 2 + part) * CELLS + cells[thread]] / ((total > least ? total : least) * 4096.0);
    }
    double likelihood = shares[0] / (shares[0] + shares[1] + 1e-12);
    double refined = sqrt(likelihood * (double)probability[thread]);
    refined = refined < LEAST ? LEAST : refined > 1.0 - LEAST ? 1.0 - LEAST : refined;
    logits[thread] = (float)log(refined / (1.0 - refined));
}

// Images [.., S] turned left to right.
extern "C" __global__ void mirror_uint8(const uint8 *image, int64 total, int width, uint8 *out) {
    int64 thread = thread_x();
    if (thread < total) out[thread] = image[thread - thread % width + width - 1 - thread % width];
}

extern "C" __global__ void mirror_float32(const float *image, int64 total, int width, float *out) {
    int64 thread = thread_x();
    if (thread < total) out[thread] = image[thread - thread % width + width - 1 - thread % width];
}

// logits [.., w] averaged, in place, with those of the mirrored crops.
extern "C" __global__ void logits_average(float *logits, const float *mirrored, int64 total, int width) {
    int64 thread = thread_x();
    if (thread >= total) return;
    float sum = logits[thread] + mirrored[thread - thread % width + width - 1 - thread % width];
    logits[thread] = sum / 2.0f;
}

// The flag is set where a logit is NaN.
extern "C" __global__ void logits_nan(const float *logits, int64 total, int *flag) {
    int64 thread = thread_x();
    if (thread < total && logits[thread] != logits[thread]) *flag = 1;
}
