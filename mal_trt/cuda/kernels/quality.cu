// How sure the network is of its masks, as mal_trt/geometry/quality.py says it.

#include "common.cuh"

struct QualityBox {      // QUALITY_BOX in quality.py
    int x0, y0, x1, y1;  // cells of the logits that the box touches
    double threshold;
};

// One thread for a row of one mask's logits: the sums of the probabilities above the threshold, and of all with those
// counted as one. sums: [N,height,2].
extern "C" __global__ void quality_rows(const QualityBox *boxes, int count, const float *logits, int height, int width,
                                        double *sums) {
    int64 thread = thread_x();
    if (thread >= (int64)count * height) return;
    const QualityBox &box = boxes[thread / height];
    int row = (int)(thread % height);
    double inside = 0.0, either = 0.0;
    if (row >= box.y0 && row < box.y1) {
        for (int column = box.x0; column < box.x1; column++) {
            double sure = 1.0 / (1.0 + exp(-(double)logits[thread * width + column]));
            bool own = sure > box.threshold;
            if (own) inside += sure;
            either += own ? 1.0 : sure;
        }
    }
    sums[thread * 2] = inside;
    sums[thread * 2 + 1] = either;
}

// One thread for a mask: its quality.
extern "C" __global__ void quality_shares(int count, int height, const double *sums, double *quality) {
    int64 thread = thread_x();
    if (thread >= count) return;
    double inside = 0.0, either = 0.0;
    for (int64 row = thread * height; row < (thread + 1) * height; row++) {
        inside += sums[row * 2];
        either += sums[row * 2 + 1];
    }
    quality[thread] = either > 0.0 ? inside / either : 0.0;
}
