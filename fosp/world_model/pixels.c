/* Bytes of images, see pixels.py. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bfloat16.h"

/* Cameras (batch, time, lines, width, 3) side by side on channels; of sequences that are `mirrored` left is right. */
void stack(
    const uint8_t *const *views, const uint8_t *mirrored, uint8_t *to, int64_t cameras, int64_t batch, int64_t time,
    int64_t lines, int64_t width, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t image = 0; image < batch * time; image++) {
        int64_t first = mirrored && mirrored[image / time] ? 3 * (width - 1) : 0, step = first ? -3 : 3;
        for (int64_t line = image * lines; line < (image + 1) * lines; line++)
            for (int64_t camera = 0; camera < cameras; camera++) {
                const uint8_t *from = views[camera] + line * 3 * width + first;
                uint8_t *pixel = to + (line * width * cameras + camera) * 3;
                for (int64_t k = 0; k < width; k++, from += step, pixel += 3 * cameras) memcpy(pixel, from, 3);
            }
    }
}

/* As bfloat16 minus 127.5, which is exact. */
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

/* What was said of images (n, cells, cells, 3 cameras), bfloat16 or float32, minus what should have been said: bytes
   (n, cells side, cells side, 3 cameras), summed over squares of side x side and mapped by `matrix` (3, 3), colours in
   and out, and `offset` (3). Of each image the sum of squares. A line takes five products of shifted rows, for a colour
   depends on itself and at most two numbers to either side. */
void image_error(
    const void *said, const uint8_t *images, const float *matrix, const float *offset, void *difference, float *error,
    int64_t n, int64_t cells, int64_t side, int64_t cameras, int64_t half, int64_t threads) {
    const int64_t channels = 3 * cameras, length = cells * channels;
    float *factors = malloc(6 * length * sizeof(float)), *constant = factors + 5 * length;
    for (int64_t j = 0; j < length; j++) {
        constant[j] = offset[j % 3];
        for (int64_t d = -2; d <= 2; d++) {
            int64_t from = j % 3 + d;
            factors[(d + 2) * length + j] = from >= 0 && from < 3 ? matrix[3 * from + j % 3] : 0.0f;
        }
    }
#pragma omp parallel num_threads(threads)
    {
        float *space = malloc((2 * length + 4) * sizeof(float)), *x = space + 2, *off = x + length + 2;
        for (int k = 1; k <= 2; k++) x[-k] = x[length + k - 1] = 0.0f;
#pragma omp for schedule(static)
        for (int64_t image = 0; image < n; image++) {
            float sum = 0.0f;
            for (int64_t line = image * cells; line < (image + 1) * cells; line++) {
                const uint8_t *bytes = images + line * side * side * length;
                for (int64_t j = 0; j < length; j++) x[j] = 0.0f;
                for (int64_t s = 0; s < side; s++, bytes += side * length) {
                    if (side == 1)
                        for (int64_t j = 0; j < length; j++) x[j] += (float)(int32_t)bytes[j];
                    else
                        for (int64_t cell = 0; cell < cells; cell++)
                            for (int64_t k = 0; k < side * channels; k++)
                                x[cell * channels + k % channels] += bytes[cell * side * channels + k];
                }
                if (half) widen(length, (const uint16_t *)said + line * length, off);
                else memcpy(off, (const float *)said + line * length, length * sizeof(float));
#pragma omp simd reduction(+ : sum)
                for (int64_t j = 0; j < length; j++) {
                    float target = constant[j];
                    for (int d = 0; d < 5; d++) target += factors[d * length + j] * x[j + d - 2];
                    off[j] -= target;
                    sum += off[j] * off[j];
                }
                if (half) narrow(length, off, (uint16_t *)difference + line * length);
                else memcpy((float *)difference + line * length, off, length * sizeof(float));
            }
            error[image] = sum;
        }
        free(space);
    }
    free(factors);
}
