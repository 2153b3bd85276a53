/* Layer norm and SiLU of a row, and their gradients, in float32. Behind exponential.h. */
#define EPS 1e-3f /* of every layer norm */

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

/* x -> (x - mean) * scale, in place; returns the scale, and the mean at `at` unless that is null. */
static inline float normalise(int64_t n, float *x, float *at) {
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i];
    float mean = sum / n;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(squares / n + EPS);
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * scale;
    if (at) *at = mean;
    return scale;
}

/* hat is what a norm made, before gain and offset; y may be hat. */
static inline void silu(int64_t n, const float *hat, const float *gain, const float *offset, float *y) {
    for (int64_t i = 0; i < n; i++) {
        float x = hat[i] * gain[i] + offset[i];
        y[i] = x * sigmoid(x);
    }
}

/* d: derivative of what SiLU made -> of what it read, in place. */
static inline void silu_gradient(int64_t n, const float *hat, const float *gain, const float *offset, float *d) {
    for (int64_t i = 0; i < n; i++) {
        float x = hat[i] * gain[i] + offset[i], s = sigmoid(x);
        d[i] *= s * (1.0f + x * (1.0f - s));
    }
}

/* d: derivative of what a norm with gain and offset made -> of what it read, in place. Adds up those of gain and offset,
   unless they are null. */
static inline void norm_gradient(
    int64_t n, const float *hat, float scale, const float *gain, float *d, float *d_gain, float *d_offset) {
    float sum = 0, along = 0;
    if (d_gain)
        for (int64_t i = 0; i < n; i++) {
            d_gain[i] += d[i] * hat[i];
            d_offset[i] += d[i];
        }
#pragma omp simd reduction(+ : sum, along)
    for (int64_t i = 0; i < n; i++) {
        d[i] *= gain[i];
        sum += d[i];
        along += d[i] * hat[i];
    }
    sum /= n, along /= n;
    for (int64_t i = 0; i < n; i++) d[i] = (d[i] - sum - hat[i] * along) * scale;
}
