/* Two-hot numbers, row by row: the softmax of the logits is never written down. See twohot.py.

   Rows are (n, bins), bfloat16 or float32. `bins` is antisymmetric: bins[k] = -bins[count - 1 - k]. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "bfloat16.h"
#include "exponential.h"

#define MOST 1024 /* bins, as in twohot.py */
#define LANES 16  /* numbers that a processor takes at once; MOST is a multiple */

static inline int64_t filled(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

typedef struct {
    int64_t rows, count, half_precision, threads; /* threads at most */
    const void *logits;
    const float *bins;
    double limit;       /* bins are symexp(-limit .. limit) */
    const float *given; /* (rows), of a loss: the target */
    float *result;      /* (rows), mean or loss */
    float *level;       /* (rows), log of the sum of e^logit */
    const float *d_result;
    void *d_logits;
} arguments;

/* Behind the row minus infinity up to a multiple of LANES (loops say so once more, for the compiler to see it), since what is left over would take as long as the rest. */
static void read_row(const arguments *a, int64_t row, float *x) {
    for (int64_t k = a->count; k < filled(a->count); k++) x[k] = -INFINITY;
    if (a->half_precision) widen(a->count, (const uint16_t *)a->logits + row * a->count, x);
    else memcpy(x, (const float *)a->logits + row * a->count, a->count * sizeof(float));
}

static void write_row(const arguments *a, int64_t row, const float *x) {
    if (a->half_precision) narrow(a->count, x, (uint16_t *)a->d_logits + row * a->count);
    else memcpy((float *)a->d_logits + row * a->count, x, a->count * sizeof(float));
}

/* x becomes e^(x - its highest). Returns the sum, and the highest at `top`. */
static float powers(int64_t count, float *x, float *top) {
    float most = -INFINITY, sum = 0.0f;
    int64_t vectors = filled(count) / LANES;
#pragma omp simd reduction(max : most)
    for (int64_t k = 0; k < vectors * LANES; k++) most = x[k] > most ? x[k] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < vectors * LANES; k++) sum += x[k] = exponential(x[k] - most);
    *top = most;
    return sum;
}

/* The lower of the two bins that bracket a target, and the share of the upper one. */
static int64_t bracket(const arguments *a, float target, float *share) {
    float size = log1pf(fabsf(target)), place = ((target < 0 ? -size : size) + (float)a->limit);
    place = floorf(place * (float)((a->count - 1) / (2 * a->limit)));
    float highest = (float)(a->count - 2);
    int64_t low = (int64_t)(place > 0.0f ? (place < highest ? place : highest) : 0.0f);
    float part = (target - a->bins[low]) / (a->bins[low + 1] - a->bins[low]);
    *share = part < 0.0f ? 0.0f : part > 1.0f ? 1.0f : part;
    return low;
}

static void mean_row(const arguments *a, int64_t row) {
    float x[MOST], top, sum, total = 0.0f;
    int64_t count = a->count, half = count / 2;
    read_row(a, row, x);
    sum = powers(count, x, &top);
    const float *upper = x + half + 1, *bins = a->bins + half + 1;
#pragma omp simd reduction(+ : total)
    for (int64_t k = 0; k < half; k++) total += (upper[k] - x[half - 1 - k]) * bins[k]; /* uniform: exactly 0 */
    a->result[row] = total / sum;
    a->level[row] = top + logf(sum);
}

static void mean_gradient_row(const arguments *a, int64_t row) {
    float x[MOST], level = a->level[row], mean = a->result[row], d = a->d_result[row];
    read_row(a, row, x);
    for (int64_t k = 0; k < filled(a->count) / LANES * LANES; k++) x[k] = d * exponential(x[k] - level);
    for (int64_t k = 0; k < a->count; k++) x[k] *= a->bins[k] - mean;
    write_row(a, row, x);
}

static void loss_row(const arguments *a, int64_t row) {
    float x[MOST], top, share;
    int64_t low = bracket(a, a->given[row], &share);
    read_row(a, row, x);
    float said = (1.0f - share) * x[low] + share * x[low + 1];
    float level = logf(powers(a->count, x, &top));
    a->level[row] = top + level;
    a->result[row] = level - (said - top);
}

static void loss_gradient_row(const arguments *a, int64_t row) {
    float x[MOST], share, level = a->level[row], d = a->d_result[row];
    int64_t low = bracket(a, a->given[row], &share);
    read_row(a, row, x);
    for (int64_t k = 0; k < filled(a->count) / LANES * LANES; k++) x[k] = d * exponential(x[k] - level);
    x[low] -= d * (1.0f - share);
    x[low + 1] -= d * share;
    write_row(a, row, x);
}

#define EACH_ROW(name)                                                                  \
    void name(const arguments *a) {                                                     \
        int64_t wanted = (a->rows * a->count + 8191) / 8192; /* fewer than pay off */   \
        int threads = (int)(wanted < 1 ? 1 : wanted < a->threads ? wanted : a->threads);               \
        _Pragma("omp parallel for schedule(static) num_threads(threads)")               \
        for (int64_t row = 0; row < a->rows; row++) name##_row(a, row);                 \
    }

EACH_ROW(mean)
EACH_ROW(mean_gradient)
EACH_ROW(loss)
EACH_ROW(loss_gradient)
