// From logits to where each mask switches on and off in its picture, column by column, as mal_trt/geometry/paste.py does it.

#include "common.cuh"

#define SEGMENT 64  // rows of a column that one thread looks at
#define CHUNK 32    // columns whose switches are counted together

struct Mask {                  // MASK in paste.py
    int64 logits;              // where its logits start, float32 [h,w]
    int64 probability;         // where its probabilities start, float32 of the inner box
    int64 word;                // its first word of switches, uint64 [segments,columns]
    int64 column;              // its first column among those of all masks
    int chunk;                 // its first chunk of columns
    int ix0, iy0, ix1, iy1;    // inner box, crop pixels
    int left, top;             // the extended box's corner, picture pixels
    float scale_x, scale_y;    // crop pixels per picture pixel
    int x0, y0;                // corner of the window that is looked at, picture pixels
    int columns, rows;         // its size
    int height;                // of the picture
    float threshold;
};

// Bilinear from `source` samples at index `at` of the target: half-pixel, edges repeated.
struct Taps {
    int low, high;
    float weight_low, weight_high;
};

__device__ inline Taps taps(int source, float scale, int at) {
    float position = scale * ((float)at + 0.5f) - 0.5f;
    if (position < 0.0f) position = 0.0f;
    Taps result;
    result.low = (int)position;
    if (result.low > source - 1) result.low = source - 1;
    result.high = result.low + 1 < source ? result.low + 1 : source - 1;
    result.weight_high = position - (float)result.low;
    result.weight_low = 1.0f - result.weight_high;
    return result;
}

// The same from first..last of the crop's pixels; those outside weigh nothing. Indices count from `first`.
__device__ inline Taps inner_taps(int size, float scale, int at, int first, int last) {
    Taps result = taps(size, scale, at);
    if (result.low < first || result.low >= last) result.weight_low = 0.0f;
    if (result.high < first || result.high >= last) result.weight_high = 0.0f;
    result.low = (result.low < first ? first : result.low >= last ? last - 1 : result.low) - first;
    result.high = (result.high < first ? first : result.high >= last ? last - 1 : result.high) - first;
    return result;
}

__device__ inline float mixed(float low, float weight_low, float high, float weight_high) {
    float left = low * weight_low, right = high * weight_high;
    return left + right;
}

// Probabilities of the inner box's crop pixels. Grid: x columns, y rows, z masks.
extern "C" __global__ void paste_probability(const Mask *masks, int first, const float *logits, int height, int width,
                                             float scale_y, float scale_x, float *probability) {
    const Mask &mask = masks[first + blockIdx.z];
    int column = (int)thread_x(), row = (int)thread_y(), across = mask.ix1 - mask.ix0;
    if (column >= across || row >= mask.iy1 - mask.iy0) return;
    Taps y = taps(height, scale_y, mask.iy0 + row), x = taps(width, scale_x, mask.ix0 + column);
    const float *low = logits + mask.logits + (int64)y.low * width;
    const float *high = logits + mask.logits + (int64)y.high * width;
    float left = mixed(low[x.low], y.weight_low, high[x.low], y.weight_high);
    float right = mixed(low[x.high], y.weight_low, high[x.high], y.weight_high);
    float logit = mixed(left, x.weight_low, right, x.weight_high);
    float power = (float)exp(-(double)logit);
    probability[mask.probability + (int64)row * across + column] = 1.0f / (power + 1.0f);
}

// One thread for a segment of one column: bit i of its word tells whether the mask switches before row i of the
// segment. counts: of each column; chunks: of each chunk of columns; both start at zero.
extern "C" __global__ void paste_switches(const Mask *masks, int first, int count, int64 total, int size,
                                          const float *probability, uint64 *words, uint32 *counts, uint32 *chunks) {
    int64 thread = thread_x();
    if (thread >= total) return;
    const Mask &mask = item_at(masks + first, &Mask::word, count, thread);
    int column = (int)((thread - mask.word) % mask.columns);
    int begin = (int)((thread - mask.word) / mask.columns) * SEGMENT;
    int across = mask.ix1 - mask.ix0;
    Taps x = inner_taps(size, mask.scale_x, mask.x0 + column - mask.left, mask.ix0, mask.ix1);
    const float *left = probability + mask.probability + x.low;
    const float *right = probability + mask.probability + x.high;
    bool before = false;
    uint64 word = 0;
    for (int row = begin ? begin - 1 : 0; row < begin + SEGMENT && row <= mask.rows; row++) {
        bool now = false;
        if (row < mask.rows) {
            Taps y = inner_taps(size, mask.scale_y, mask.y0 + row - mask.top, mask.iy0, mask.iy1);
            int64 low = (int64)y.low * across, high = (int64)y.high * across;
            float soft_left = mixed(left[low], y.weight_low, left[high], y.weight_high);
            float soft_right = mixed(right[low], y.weight_low, right[high], y.weight_high);
            now = mixed(soft_left, x.weight_low, soft_right, x.weight_high) > mask.threshold;
        }
        if (row >= begin && now != before) word |= (uint64)1 << (row - begin);
        before = now;
    }
    words[thread] = word;
    uint32 switches = (uint32)__popcll(word);
    if (!switches) return;
    atomicAdd(counts + mask.column + column, switches);
    atomicAdd(chunks + mask.chunk + column / CHUNK, switches);
}

// One thread for a mask: from the counts of its chunks to where each starts among the mask's switches; their total.
extern "C" __global__ void paste_offsets(const Mask *masks, int first, int count, uint32 *chunks, int64 *totals) {
    int64 thread = thread_x();
    if (thread >= count) return;
    const Mask &mask = masks[first + thread];
    uint32 *own = chunks + mask.chunk;
    uint32 sum = 0;
    for (int chunk = 0; chunk < (mask.columns + CHUNK - 1) / CHUNK; chunk++) {
        uint32 here = own[chunk];
        own[chunk] = sum;
        sum += here;
    }
    totals[first + thread] = sum;
}

// One thread for a column: the column-major picture indices of its switches, behind those of all columns and masks
// before it. What finds no room is left out; the totals tell.
extern "C" __global__ void paste_edges(const Mask *masks, int first, int count, int64 total, const uint64 *words,
                                       const uint32 *counts, const uint32 *chunks, const int64 *totals, uint32 *edges,
                                       int64 capacity) {
    int64 thread = thread_x();
    if (thread >= total || !counts[thread]) return;
    const Mask &mask = item_at(masks + first, &Mask::column, count, thread);
    int column = (int)(thread - mask.column);
    int64 at = 0;
    for (const Mask *other = masks; other < &mask; other++) at += totals[other - masks];
    at += chunks[mask.chunk + column / CHUNK];
    for (int64 other = thread - column % CHUNK; other < thread; other++) at += counts[other];
    uint32 start = (uint32)((int64)(mask.x0 + column) * mask.height + mask.y0);
    for (int segment = 0; segment <= mask.rows / SEGMENT; segment++) {
        uint64 word = words[mask.word + (int64)segment * mask.columns + column];
        for (; word; word &= word - 1, at++)
            if (at < capacity) edges[at] = start + segment * SEGMENT + __popcll((word & (0 - word)) - 1);
    }
}
