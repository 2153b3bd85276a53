/* Rows of bfloat16 as float32 and back. */

static inline void widen(int64_t n, const uint16_t *from, float *to) {
    for (int64_t k = 0; k < n; k++) {
        union { uint32_t i; float f; } wide = {(uint32_t)from[k] << 16};
        to[k] = wide.f;
    }
}

static inline void narrow(int64_t n, const float *from, uint16_t *to) { /* to the nearest, ties to even */
    for (int64_t k = 0; k < n; k++) {
        union { float f; uint32_t i; } wide = {from[k]};
        uint32_t rounded = (wide.i + 0x7fffu + ((wide.i >> 16) & 1u)) >> 16;
        to[k] = (uint16_t)(from[k] == from[k] ? rounded : 0x7fc0u); /* what is not a number stays so */
    }
}
