/* Bytes of images, see pixels.py. */
#include <stdint.h>
#include <string.h>

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
