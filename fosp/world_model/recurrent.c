/* The recurrent state-space model over several steps, and its gradient, for a processor. Float32, but where it is asked
   for and the processor can, the factors of products are rounded to bfloat16, which takes a quarter of the time (but for
   columns beyond the last multiple of 64, actions, and rows that are only added).

   Called from recurrent.py, which says what each array holds. Rows (sequences, or imagined rollouts) are independent of
   each other, so each thread takes its share of the rows through all steps. A cell is one row at one step; every array
   of cells holds that of row b and step t at b * row_stride + t * step_stride, times its width.

   Products are y += a w with w laid out (inputs, outputs): each row of w is read once for four rows of a. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define LANES 16
#define WIDE 4 /* vectors of a row that are summed in registers; with four rows 16 of 32, or 8 of 16 registers */
#else
#define LANES 8
#define WIDE 2
#endif
#define ROWS 4
#define MAX_LAYERS 4

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4)));

typedef struct { /* a layer without bias, layer norm, SiLU; weight (inputs, outputs) */
    const float *weight, *gain, *offset;
} layer;

typedef struct {
    int64_t steps, rows, row_stride, step_stride, threads;
    int64_t half; /* whether factors of products may be rounded */
    int64_t memory, groups, classes, units, actions; /* D S K U A */
    int64_t actor_units, actor_layers;
    double unimix;
    /* cells: action before the state (A), 0 where an episode begins (1) or null, what was seen (U) or null, noise (S K) */
    float *action;
    const float *keep, *seen, *noise;
    /* rows: state before the first step, memory (D) and the class of each group (S); null for zero */
    const float *start_memory;
    const int32_t *start_class;
    /* weights (inputs, outputs): inputs (S K + A, U), gates (U + D, 3 D), memory (D, U), logits (U, S K) and bias */
    layer inputs, gates, post;
    const float *logits, *bias;
    /* the policy, for actions that are chosen on the way, or null: layers, outputs (U', 2 A) and bias, noise cells (A),
       first actions (rows, A) of those rows that explore (rows) */
    layer actor[MAX_LAYERS];
    const float *actor_out, *actor_bias, *actor_noise, *first_action;
    const uint8_t *exploring;
    double min_std, max_std;
    /* results, cells: D, S K one-hot, log-probabilities S K or null */
    float *h, *z, *log_probs;
    /* what the gradient needs, cells, or null: U 1, U + D, 3 D 1, D D D, U 1, U, S K */
    float *x_hat, *x_scale, *both, *gates_hat, *gates_scale, *reset, *update, *fresh, *y_hat, *y_scale, *hidden, *probs;
} forward_arguments;

typedef struct {
    forward_arguments f; /* weights are laid out (outputs, inputs) here */
    const float *d_h, *d_z, *d_log_probs; /* cells, derivatives of the loss: D, S K, S K or null */
    /* cells: derivatives with respect to what comes out of each product: U, 3 D, U, S K, and to the action, A */
    float *d_x, *d_gates, *d_y, *d_logits, *d_action;
    float *d_start_h, *d_start_z; /* rows: D, S K, or null */
    float *d_norms; /* threads: gain and offset of the norms of inputs, gates, post: 2 U, 6 D, 2 U */
} backward_arguments;

#include "exponential.h"
#include "norm.h"

static inline float logarithm(float x) { /* Cephes, of normal positive numbers; what is not a number stays so */
    union { float f; int32_t i; } bits = {x};
    int32_t e = ((bits.i >> 23) & 255) - 126;
    bits.i = (bits.i & 0x007fffff) | 0x3f000000; /* in [0.5, 1) */
    int low = bits.f < 0.707106781f;
    float m = low ? bits.f + bits.f - 1.0f : bits.f - 1.0f;
    float n = (float)(low ? e - 1 : e);
    float s = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float y = m + (m * s * p - 2.12194440e-4f * n - 0.5f * s) + 0.693359375f * n;
    return x == x ? y : x;
}

static inline float hyperbolic(float x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

static inline __attribute__((always_inline)) void strip(
    int rows, int64_t inputs, const float *a, int64_t a_stride, const float *w, int64_t outputs, float *y,
    int64_t y_stride) {
    vector sum[ROWS][WIDE];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) sum[r][v] = *(const vector *)(y + r * y_stride + v * LANES);
    for (int64_t k = 0; k < inputs; k++) {
        const float *line = w + k * outputs;
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            float factor = a[r * a_stride + k];
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) sum[r][v] += factor * *(const vector *)(line + v * LANES);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) *(vector *)(y + r * y_stride + v * LANES) = sum[r][v];
}

typedef struct { /* the right factor of a product: (inputs, outputs), and pairs of rows in bfloat16, or null */
    int64_t inputs, outputs;
    const float *w;
    uint32_t *pairs; /* (inputs / 2, outputs) */
} matrix;

#ifdef __AVX512BF16__
static inline uint32_t rounded(float x) {
    union { __m128bh vector; uint16_t of[8]; } half = {_mm_cvtneps_pbh(_mm_set_ss(x))};
    return half.of[0];
}

/* Each number of a row with the next one. */
static void pair_up(int64_t n, const float *x, uint32_t *pairs) {
    int64_t k = 0;
    for (; k + 32 <= n; k += 32)
        _mm512_storeu_si512(pairs + k / 2, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + k + 16), _mm512_loadu_ps(x + k)));
    for (; k < n; k += 2) pairs[k / 2] = rounded(x[k]) | (k + 1 < n ? rounded(x[k + 1]) << 16 : 0);
}

static inline __attribute__((always_inline)) void strip_of_pairs(
    int rows, int64_t pairs, const uint32_t *a, const uint32_t *w, int64_t outputs, float *y, int64_t y_stride) {
    __m512 sum[ROWS][WIDE];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) sum[r][v] = _mm512_loadu_ps(y + r * y_stride + v * LANES);
    for (int64_t k = 0; k < pairs; k++) {
        const uint32_t *line = w + k * outputs;
        __m512i of[WIDE];
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) of[v] = _mm512_loadu_si512(line + v * LANES);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m512bh factor = (__m512bh)_mm512_set1_epi32((int)a[r * pairs + k]);
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], factor, (__m512bh)of[v]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < WIDE; v++) _mm512_storeu_ps(y + r * y_stride + v * LANES, sum[r][v]);
}
#endif

static matrix prepared(const forward_arguments *f, const float *w, int64_t inputs, int64_t outputs) {
    matrix m = {inputs, outputs, w, NULL};
#ifdef __AVX512BF16__
    if (!f->half) return m;
    m.pairs = malloc(sizeof(uint32_t) * ((inputs + 1) / 2) * outputs);
#pragma omp parallel for schedule(static) num_threads(f->threads)
    for (int64_t k = 0; k < (inputs + 1) / 2; k++) {
        const float *first = w + 2 * k * outputs, *second = first + outputs;
        uint32_t *to = m.pairs + k * outputs;
        int64_t j = 0;
        for (; j + 16 <= outputs; j += 16) {
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(first + j)));
            if (2 * k + 1 < inputs) {
                __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(second + j)));
                low = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
            }
            _mm512_storeu_si512(to + j, low);
        }
        for (; j < outputs; j++) to[j] = rounded(first[j]) | (2 * k + 1 < inputs ? rounded(second[j]) << 16 : 0);
    }
#endif
    return m;
}

/* y (rows, outputs) += a (rows, inputs) m. */
static void multiply(const matrix *m, int64_t rows, const float *a, int64_t a_stride, float *y, int64_t y_stride) {
    const int64_t width = LANES * WIDE, inputs = m->inputs, outputs = m->outputs;
    int64_t column = 0;
#ifdef __AVX512BF16__
    if (m->pairs) {
        const int64_t pairs = (inputs + 1) / 2;
        uint32_t *factors = malloc(sizeof(uint32_t) * rows * pairs);
        for (int64_t row = 0; row < rows; row++) pair_up(inputs, a + row * a_stride, factors + row * pairs);
        for (; column + width <= outputs; column += width) {
            const uint32_t *w = m->pairs + column;
            int64_t row = 0;
            for (; row + ROWS <= rows; row += ROWS)
                strip_of_pairs(ROWS, pairs, factors + row * pairs, w, outputs, y + row * y_stride + column, y_stride);
            for (; row < rows; row++)
                strip_of_pairs(1, pairs, factors + row * pairs, w, outputs, y + row * y_stride + column, y_stride);
        }
        free(factors);
    }
#endif
    for (; column + width <= outputs; column += width) {
        const float *w = m->w + column;
        int64_t row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            strip(ROWS, inputs, a + row * a_stride, a_stride, w, outputs, y + row * y_stride + column, y_stride);
        for (; row < rows; row++)
            strip(1, inputs, a + row * a_stride, a_stride, w, outputs, y + row * y_stride + column, y_stride);
    }
    if (column < outputs)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t k = 0; k < inputs; k++) {
                float factor = a[row * a_stride + k];
                for (int64_t j = column; j < outputs; j++) y[row * y_stride + j] += factor * m->w[k * outputs + j];
            }
}

static inline void add(int64_t n, const float *x, float *y) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

static void softmax(int64_t n, float *x) {
    float top = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++) top = x[i] > top ? x[i] : top;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i] = exponential(x[i] - top);
    float share = 1.0f / sum;
    for (int64_t i = 0; i < n; i++) x[i] *= share;
}

typedef struct {
    matrix inputs, gates, post, logits, actor[MAX_LAYERS];
} matrices;

/* Actions of rows first .. last - 1 in the states that they are in. */
static void act(const forward_arguments *f, const matrices *m, int64_t t, int64_t first, int64_t last, const float *h,
                const int32_t *class, float *space) {
    const int64_t rows = last - first, units = f->actor_units, A = f->actions;
    float *x = space, *y = space + rows * units;
    for (int64_t l = 0; l < f->actor_layers; l++) {
        const layer *of = f->actor + l;
        memset(y, 0, sizeof(float) * rows * units);
        if (l == 0) {
            multiply(&m->actor[0], rows, h, f->memory, y, units);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t g = 0; g < f->groups; g++) {
                    int32_t one = class[r * f->groups + g];
                    if (one >= 0)
                        add(units, of->weight + (f->memory + g * f->classes + one) * units, y + r * units);
                }
        } else
            multiply(&m->actor[l], rows, x, units, y, units);
        for (int64_t r = 0; r < rows; r++) {
            normalise(units, y + r * units, NULL);
            silu(units, y + r * units, of->gain, of->offset, x + r * units);
        }
    }
    float out[2 * A];
    for (int64_t r = 0; r < rows; r++) {
        int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
        float *action = f->action + cell * A;
        memcpy(out, f->actor_bias, sizeof out);
        for (int64_t k = 0; k < units; k++)
            for (int64_t j = 0; j < 2 * A; j++) out[j] += x[r * units + k] * f->actor_out[k * 2 * A + j];
        for (int64_t j = 0; j < A; j++) {
            float std = f->min_std + (f->max_std - f->min_std) * sigmoid(out[A + j]);
            float chosen = hyperbolic(out[j]) + std * f->actor_noise[cell * A + j];
            chosen = chosen > 1.0f ? 1.0f : chosen < -1.0f ? -1.0f : chosen;
            action[j] = t == 0 && f->exploring[first + r] ? f->first_action[(first + r) * A + j] : chosen;
        }
    }
}

static void forward_rows(const forward_arguments *f, const matrices *m, int64_t first, int64_t last) {
    const int64_t rows = last - first, D = f->memory, S = f->groups, K = f->classes, U = f->units, A = f->actions;
    const int64_t states = S * K, wide = U + D;
    /* the state before, what the layers read and say of each row, and room for the policy */
    float *space = malloc(sizeof(float) * rows * (D + U + wide + 3 * D + U + U + states + 2 * f->actor_units));
    int32_t *class = malloc(sizeof(int32_t) * rows * S);
    float *h = space, *x = h + rows * D, *both = x + rows * U, *gates = both + rows * wide, *y = gates + rows * 3 * D;
    float *hidden = y + rows * U, *logits = hidden + rows * U, *room = logits + rows * states;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < D; i++) h[r * D + i] = f->start_memory ? f->start_memory[(first + r) * D + i] : 0.0f;
    for (int64_t i = 0; i < rows * S; i++) class[i] = f->start_class ? f->start_class[first * S + i] : -1;
    for (int64_t t = 0; t < f->steps; t++) {
        if (f->actor_layers) act(f, m, t, first, last, h, class, room);
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            if (f->keep && f->keep[cell] == 0.0f) {
                memset(h + r * D, 0, sizeof(float) * D);
                for (int64_t g = 0; g < S; g++) class[r * S + g] = -1;
            }
            float *row = x + r * U;
            memset(row, 0, sizeof(float) * U);
            for (int64_t g = 0; g < S; g++)
                if (class[r * S + g] >= 0) add(U, f->inputs.weight + (g * K + class[r * S + g]) * U, row);
            for (int64_t j = 0; j < A; j++) {
                float factor = f->action[cell * A + j];
                for (int64_t i = 0; i < U; i++) row[i] += factor * f->inputs.weight[(states + j) * U + i];
            }
            float scale = normalise(U, row, NULL);
            silu(U, row, f->inputs.gain, f->inputs.offset, both + r * wide);
            memcpy(both + r * wide + U, h + r * D, sizeof(float) * D);
            if (f->x_hat) {
                memcpy(f->x_hat + cell * U, row, sizeof(float) * U);
                f->x_scale[cell] = scale;
                memcpy(f->both + cell * wide, both + r * wide, sizeof(float) * wide);
            }
        }
        memset(gates, 0, sizeof(float) * rows * 3 * D);
        multiply(&m->gates, rows, both, wide, gates, 3 * D);
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            float *row = gates + r * 3 * D, *memory = h + r * D;
            float scale = normalise(3 * D, row, NULL);
            if (f->x_hat) {
                memcpy(f->gates_hat + cell * 3 * D, row, sizeof(float) * 3 * D);
                f->gates_scale[cell] = scale;
            }
            for (int64_t i = 0; i < 3 * D; i++) row[i] = row[i] * f->gates.gain[i] + f->gates.offset[i];
            for (int64_t i = 0; i < D; i++) {
                float reset = sigmoid(row[i]), update = sigmoid(row[2 * D + i] - 1.0f);
                float fresh = hyperbolic(reset * row[D + i]);
                row[i] = reset, row[D + i] = update, row[2 * D + i] = fresh;
                memory[i] += update * (fresh - memory[i]);
            }
            if (f->x_hat) {
                memcpy(f->reset + cell * D, row, sizeof(float) * D);
                memcpy(f->update + cell * D, row + D, sizeof(float) * D);
                memcpy(f->fresh + cell * D, row + 2 * D, sizeof(float) * D);
            }
            memcpy(f->h + cell * D, memory, sizeof(float) * D);
            if (f->seen)
                memcpy(y + r * U, f->seen + cell * U, sizeof(float) * U);
            else
                memset(y + r * U, 0, sizeof(float) * U);
        }
        multiply(&m->post, rows, h, D, y, U);
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            float scale = normalise(U, y + r * U, NULL);
            silu(U, y + r * U, f->post.gain, f->post.offset, hidden + r * U);
            if (f->x_hat) {
                memcpy(f->y_hat + cell * U, y + r * U, sizeof(float) * U);
                f->y_scale[cell] = scale;
                memcpy(f->hidden + cell * U, hidden + r * U, sizeof(float) * U);
            }
            memcpy(logits + r * states, f->bias, sizeof(float) * states);
        }
        multiply(&m->logits, rows, hidden, U, logits, states);
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            float *row = logits + r * states;
            for (int64_t g = 0; g < S; g++) softmax(K, row + g * K);
            if (f->x_hat) memcpy(f->probs + cell * states, row, sizeof(float) * states);
            for (int64_t i = 0; i < states; i++)
                row[i] = logarithm(row[i] * (float)(1.0 - f->unimix) + (float)(f->unimix / K));
            if (f->log_probs) memcpy(f->log_probs + cell * states, row, sizeof(float) * states);
            memset(f->z + cell * states, 0, sizeof(float) * states);
            for (int64_t g = 0; g < S; g++) {
                int32_t best = 0;
                float most = row[g * K] + f->noise[cell * states + g * K];
                for (int64_t k = 1; k < K; k++) {
                    float score = row[g * K + k] + f->noise[cell * states + g * K + k];
                    if (score > most) most = score, best = (int32_t)k;
                }
                class[r * S + g] = best;
                f->z[cell * states + g * K + best] = 1.0f;
            }
        }
    }
    free(class);
    free(space);
}

static void backward_rows(const backward_arguments *b, const matrices *m, int64_t part, int64_t first, int64_t last) {
    const forward_arguments *f = &b->f;
    const int64_t rows = last - first, D = f->memory, S = f->groups, K = f->classes, U = f->units, A = f->actions;
    const int64_t states = S * K, wide = U + D, entry = states + A;
    /* derivatives: what later steps pass to memory and classes, and room for those of each layer's input */
    float *space = malloc(sizeof(float) * rows * (D + states + U + 3 * D + wide + entry + states + U));
    float *d_h = space, *d_z = d_h + rows * D, *d_hidden = d_z + rows * states, *d_gates = d_hidden + rows * U;
    float *d_both = d_gates + rows * 3 * D, *d_entry = d_both + rows * wide, *d_logits = d_entry + rows * entry;
    float *d_x = d_logits + rows * states;
    float *d_norms = b->d_norms + part * (4 * U + 6 * D);
    memset(d_h, 0, sizeof(float) * rows * D);
    memset(d_z, 0, sizeof(float) * rows * states);
    for (int64_t t = f->steps - 1; t >= 0; t--) {
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            const float *probs = f->probs + cell * states;
            float *row = d_logits + r * states;
            add(D, b->d_h + cell * D, d_h + r * D);
            /* Straight through: the sample's gradient is that of the probabilities. */
            for (int64_t i = 0; i < states; i++) row[i] = d_z[r * states + i] + b->d_z[cell * states + i];
            if (b->d_log_probs)
                for (int64_t i = 0; i < states; i++)
                    row[i] += b->d_log_probs[cell * states + i] /
                              (probs[i] * (float)(1.0 - f->unimix) + (float)(f->unimix / K));
            for (int64_t g = 0; g < S; g++) {
                float along = 0;
                float *d = row + g * K;
                const float *p = probs + g * K;
#pragma omp simd reduction(+ : along)
                for (int64_t k = 0; k < K; k++) along += d[k] * p[k];
                for (int64_t k = 0; k < K; k++) d[k] = (float)(1.0 - f->unimix) * p[k] * (d[k] - along);
            }
            memcpy(b->d_logits + cell * states, row, sizeof(float) * states);
        }
        memset(d_hidden, 0, sizeof(float) * rows * U);
        multiply(&m->logits, rows, d_logits, states, d_hidden, U);
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            float *d = d_hidden + r * U;
            silu_gradient(U, f->y_hat + cell * U, f->post.gain, f->post.offset, d);
            norm_gradient(U, f->y_hat + cell * U, f->y_scale[cell], f->post.gain, d, d_norms + 2 * U + 6 * D,
                          d_norms + 3 * U + 6 * D);
            memcpy(b->d_y + cell * U, d, sizeof(float) * U);
        }
        multiply(&m->post, rows, d_hidden, U, d_h, D);
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            const float *hat = f->gates_hat + cell * 3 * D, *before = f->both + cell * wide + U;
            const float *reset = f->reset + cell * D, *update = f->update + cell * D, *fresh = f->fresh + cell * D;
            float *d = d_gates + r * 3 * D, *d_memory = d_h + r * D;
            for (int64_t i = 0; i < D; i++) {
                float candidate = hat[D + i] * f->gates.gain[D + i] + f->gates.offset[D + i];
                float d_fresh = d_memory[i] * update[i] * (1.0f - fresh[i] * fresh[i]);
                d[i] = d_fresh * candidate * reset[i] * (1.0f - reset[i]);
                d[D + i] = d_fresh * reset[i];
                d[2 * D + i] = d_memory[i] * (fresh[i] - before[i]) * update[i] * (1.0f - update[i]);
                d_memory[i] *= 1.0f - update[i];
            }
            norm_gradient(3 * D, hat, f->gates_scale[cell], f->gates.gain, d, d_norms + 2 * U, d_norms + 2 * U + 3 * D);
            memcpy(b->d_gates + cell * 3 * D, d, sizeof(float) * 3 * D);
        }
        memset(d_both, 0, sizeof(float) * rows * wide);
        multiply(&m->gates, rows, d_gates, 3 * D, d_both, wide);
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            float *d = d_x + r * U;
            memcpy(d, d_both + r * wide, sizeof(float) * U);
            silu_gradient(U, f->x_hat + cell * U, f->inputs.gain, f->inputs.offset, d);
            norm_gradient(U, f->x_hat + cell * U, f->x_scale[cell], f->inputs.gain, d, d_norms, d_norms + U);
            memcpy(b->d_x + cell * U, d, sizeof(float) * U);
        }
        memset(d_entry, 0, sizeof(float) * rows * entry);
        multiply(&m->inputs, rows, d_x, U, d_entry, entry);
        for (int64_t r = 0; r < rows; r++) {
            int64_t cell = (first + r) * f->row_stride + t * f->step_stride;
            float keep = f->keep ? f->keep[cell] : 1.0f;
            for (int64_t i = 0; i < D; i++) d_h[r * D + i] = keep * (d_h[r * D + i] + d_both[r * wide + U + i]);
            for (int64_t i = 0; i < states; i++) d_z[r * states + i] = keep * d_entry[r * entry + i];
            if (b->d_action) memcpy(b->d_action + cell * A, d_entry + r * entry + states, sizeof(float) * A);
        }
    }
    if (b->d_start_h) memcpy(b->d_start_h + first * D, d_h, sizeof(float) * rows * D);
    if (b->d_start_z) memcpy(b->d_start_z + first * states, d_z, sizeof(float) * rows * states);
    free(space);
}

static void release(matrices *m) {
    free(m->inputs.pairs), free(m->gates.pairs), free(m->post.pairs), free(m->logits.pairs);
    for (int l = 0; l < MAX_LAYERS; l++) free(m->actor[l].pairs);
}

void forward(const forward_arguments *f) {
    const int64_t D = f->memory, U = f->units, units = f->actor_units;
    matrices m = {
        .gates = prepared(f, f->gates.weight, U + D, 3 * D),
        .post = prepared(f, f->post.weight, D, U),
        .logits = prepared(f, f->logits, U, f->groups * f->classes),
    };
    for (int64_t l = 0; l < f->actor_layers; l++) m.actor[l] = prepared(f, f->actor[l].weight, l ? units : D, units);
#pragma omp parallel for schedule(static, 1) num_threads(f->threads)
    for (int64_t part = 0; part < f->threads; part++) {
        int64_t first = f->rows * part / f->threads, last = f->rows * (part + 1) / f->threads;
        if (first < last) forward_rows(f, &m, first, last);
    }
    release(&m);
}

void backward(const backward_arguments *b) {
    const forward_arguments *f = &b->f;
    const int64_t D = f->memory, U = f->units, states = f->groups * f->classes;
    matrices m = {
        .inputs = prepared(f, f->inputs.weight, U, states + f->actions),
        .gates = prepared(f, f->gates.weight, 3 * D, U + D),
        .post = prepared(f, f->post.weight, U, D),
        .logits = prepared(f, f->logits, states, U),
    };
#pragma omp parallel for schedule(static, 1) num_threads(f->threads)
    for (int64_t part = 0; part < f->threads; part++) {
        int64_t first = f->rows * part / f->threads, last = f->rows * (part + 1) / f->threads;
        if (first < last) backward_rows(b, &m, part, first, last);
    }
    release(&m);
}

int rounds(void) { /* whether it does where it is asked to */
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}
