/* Layer norm and SiLU of a perceptron's layer in one pass, and its gradient, in bfloat16. See perceptron.py.

   x is (rows, members, units) where members share their input, so that `row_step` is members units, or
   (members, rows, units); y is (members, rows, units). Sums are float32. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "bfloat16.h"
#include "exponential.h"
#include "norm.h"

typedef struct {
    int64_t members, rows, units, threads;
    int64_t row_step, member_step; /* of x and d_x */
    const uint16_t *x;
    const float *gain, *offset; /* (members, units) */
    uint16_t *y;
    float *moments; /* (members, rows, 2): mean, one over the deviation */
    const uint16_t *d_y;
    uint16_t *d_x;
    float *d_gain, *d_offset; /* (members, units), or null */
} arguments;

static void forward_row(const arguments *a, int64_t member, int64_t row, float *x) {
    int64_t n = a->units, cell = member * a->rows + row;
    widen(n, a->x + member * a->member_step + row * a->row_step, x);
    a->moments[2 * cell + 1] = normalise(n, x, a->moments + 2 * cell);
    silu(n, x, a->gain + member * n, a->offset + member * n, x);
    narrow(n, x, a->y + cell * n);
}

static void backward_row(const arguments *a, int64_t member, int64_t row, float *hat, float *d, float *d_norms) {
    int64_t n = a->units, cell = member * a->rows + row;
    const float *gain = a->gain + member * n, *offset = a->offset + member * n;
    float mean = a->moments[2 * cell], scale = a->moments[2 * cell + 1];
    widen(n, a->x + member * a->member_step + row * a->row_step, hat);
    widen(n, a->d_y + cell * n, d);
    for (int64_t k = 0; k < n; k++) hat[k] = (hat[k] - mean) * scale;
    silu_gradient(n, hat, gain, offset, d);
    float *d_gain = d_norms ? d_norms + 2 * member * n : NULL;
    norm_gradient(n, hat, scale, gain, d, d_gain, d_gain ? d_gain + n : NULL);
    narrow(n, d, a->d_x + member * a->member_step + row * a->row_step);
}

static int shares(int64_t numbers, int64_t most) { /* threads; few numbers are left to one */
    int64_t wanted = (numbers + 8191) / 8192;
    return (int)(wanted < 1 ? 1 : wanted < most ? wanted : most);
}

void forward(const arguments *a) {
    int threads = shares(a->members * a->rows * a->units, a->threads);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int part = 0; part < threads; part++) {
        float *space = malloc(a->units * sizeof(float));
        for (int64_t member = 0; member < a->members; member++)
            for (int64_t row = a->rows * part / threads; row < a->rows * (part + 1) / threads; row++)
                forward_row(a, member, row, space);
        free(space);
    }
}

void backward(const arguments *a) {
    int threads = shares(a->members * a->rows * a->units, a->threads);
    int64_t norms = a->d_gain ? 2 * a->members * a->units : 0;
    float *sums = norms ? calloc(threads * norms, sizeof(float)) : NULL;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int part = 0; part < threads; part++) {
        float *space = malloc(2 * a->units * sizeof(float)), *own = norms ? sums + part * norms : NULL;
        for (int64_t member = 0; member < a->members; member++)
            for (int64_t row = a->rows * part / threads; row < a->rows * (part + 1) / threads; row++)
                backward_row(a, member, row, space, space + a->units, own);
        free(space);
    }
    for (int64_t member = 0; norms && member < a->members; member++)
        for (int64_t k = 0; k < a->units; k++) {
            float gain = 0.0f, offset = 0.0f;
            for (int part = 0; part < threads; part++) {
                const float *of = sums + part * norms + 2 * member * a->units;
                gain += of[k];
                offset += of[a->units + k];
            }
            a->d_gain[member * a->units + k] = gain;
            a->d_offset[member * a->units + k] = offset;
        }
    free(sums);
}

/* (outputs, inputs) -> (inputs, outputs), rounded. */
void turn(const float *from, uint16_t *to, int64_t outputs, int64_t inputs, int64_t most) {
    int threads = shares(outputs * inputs, most);
    enum { BLOCK = 32 };
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t first = 0; first < inputs; first += BLOCK)
        for (int64_t begin = 0; begin < outputs; begin += BLOCK) {
            int64_t last = first + BLOCK < inputs ? first + BLOCK : inputs;
            int64_t end = begin + BLOCK < outputs ? begin + BLOCK : outputs;
            float row[BLOCK];
            for (int64_t i = first; i < last; i++) {
                for (int64_t o = begin; o < end; o++) row[o - begin] = from[o * inputs + i];
                narrow(end - begin, row, to + i * outputs + begin);
            }
        }
}
