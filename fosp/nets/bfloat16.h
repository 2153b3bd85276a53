/* Rows of bfloat16 as float32 and back. */
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

static inline void widen(int64_t n, const uint16_t *from, float *to) {
    for (int64_t k = 0; k < n; k++) {
        union { uint32_t i; float f; } wide = {(uint32_t)from[k] << 16};
        to[k] = wide.f;
    }
}

static inline void narrow(int64_t n, const float *from, uint16_t *to) { /* to the nearest, ties to even */
    int64_t k = 0;
#ifdef __AVX512BF16__
    for (; k + 16 <= n; k += 16)
        _mm256_storeu_si256((__m256i *)(to + k), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + k)));
#endif
    for (; k < n; k++) {
        union { float f; uint32_t i; } wide = {from[k]};
        uint32_t rounded = (wide.i + 0x7fffu + ((wide.i >> 16) & 1u)) >> 16;
        to[k] = (uint16_t)(from[k] == from[k] ? rounded : 0x7fc0u); /* what is not a number stays so */
    }
}
