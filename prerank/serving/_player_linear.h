/* One row through a linear layer, included by _player.c once per instruction set; names as in index/_maxsim_kernel.h.
 *
 * Weights lie [n, width], width a multiple of 16 with zeros behind the layer's own; four outputs at a time share the loads of x. */

typedef float NAME(vf) __attribute__((vector_size(4 * LANES)));

TARGET static inline __attribute__((always_inline)) float NAME(sum)(NAME(vf) x) {
    float all = 0;
    for (int i = 0; i < LANES; i++) all += x[i];
    return all;
}

TARGET static inline __attribute__((always_inline)) NAME(vf) NAME(load)(const float *from) {
    NAME(vf) x;
    memcpy(&x, from, sizeof x);
    return x;
}

TARGET static void NAME(linear)(const float *w, const float *b, const float *x, float *out, long n, long width) {
    long o = 0;
    for (; o + 4 <= n; o += 4, w += 4 * width) {
        NAME(vf) s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (long k = 0; k < width; k += LANES) {
            NAME(vf) v = NAME(load)(x + k);
            s0 += v * NAME(load)(w + k);
            s1 += v * NAME(load)(w + width + k);
            s2 += v * NAME(load)(w + 2 * width + k);
            s3 += v * NAME(load)(w + 3 * width + k);
        }
        out[o] = b[o] + NAME(sum)(s0);
        out[o + 1] = b[o + 1] + NAME(sum)(s1);
        out[o + 2] = b[o + 2] + NAME(sum)(s2);
        out[o + 3] = b[o + 3] + NAME(sum)(s3);
    }
    for (; o < n; o++, w += width) {
        NAME(vf) s = {0};
        for (long k = 0; k < width; k += LANES) s += NAME(load)(x + k) * NAME(load)(w + k);
        out[o] = b[o] + NAME(sum)(s);
    }
}

#undef NAME
#undef TARGET
#undef LANES
