/* Bytes of images as bfloat16 minus 127.5, which is exact. See vision.py. */
#include <stdint.h>

void centre(const uint8_t *x, uint16_t *y, int64_t count, int64_t threads) {
    const int64_t piece = 4096;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t first = 0; first < count; first += piece) {
        int64_t last = first + piece < count ? first + piece : count;
        for (int64_t i = first; i < last; i++) {
            union { float f; uint32_t i; } wide = {(float)(int32_t)x[i] - 127.5f};
            y[i] = (uint16_t)(wide.i >> 16);
        }
    }
}
