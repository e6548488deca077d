/* What takes the player's time: a linear layer and the sigmoid. Included by _player.c once per
 * instruction set; names as in index/_maxsim_kernel.h.
 *
 * A layer's weights lie by input: line 0 is the bias, line 1 + k what x[k] is multiplied by; n numbers and zeros up to a multiple of 16.
 * Inputs that are 0 are passed over, exactly: after a ReLU that is half of them, and what a layer costs is the reading of its weights. */

typedef float NAME(vf) __attribute__((vector_size(4 * LANES)));

TARGET static inline __attribute__((always_inline)) NAME(vf) NAME(load)(const float *from) {
    NAME(vf) x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* V vectors of outputs; `at` are the `count` inputs that are not 0. */
TARGET static inline __attribute__((always_inline)) void NAME(outputs)(const float *w, long line, const float *x, const int *at, long count,
                                                                       float *sums, const int V) {
    NAME(vf) s[MOST];
    for (int v = 0; v < V; v++) s[v] = NAME(load)(sums + v * LANES);
    for (long i = 0; i < count; i++) {
        const float *from = w + at[i] * line;
        const float y = x[at[i]];
        for (int v = 0; v < V; v++) s[v] += y * NAME(load)(from + v * LANES);
    }
    for (int v = 0; v < V; v++) memcpy(sums + v * LANES, &s[v], sizeof s[v]);
}

#define CASE(v)                                             \
    case v:                                                 \
        NAME(outputs)(w, line, x, at, count, sums, v);      \
        break;

/* sums [line] = bias + W x; at: room for `width` numbers */
TARGET static void NAME(linear)(const float *w, const float *x, float *sums, int *at, long line, long width) {
    long count = 0, vectors = line / LANES, parts = (vectors + MOST - 1) / MOST;
    for (long k = 0; k < width; k++) {
        at[count] = k;
        count += x[k] != 0;
    }
    memcpy(sums, w, line * 4);
    w += line;
    for (long part = 0; part < parts; part++) {
        long some = vectors / parts + (part < vectors % parts);
        switch (some) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#if MOST > 8
            CASE(9) CASE(10) CASE(11) CASE(12)
#endif
#if MOST > 12
            CASE(13) CASE(14) CASE(15) CASE(16) CASE(17) CASE(18) CASE(19) CASE(20)
#endif
        }
        w += some * LANES;
        sums += some * LANES;
    }
}

#undef CASE

typedef int NAME(vi) __attribute__((vector_size(4 * LANES)));

/* out = 1 / (1 + exp(-x)), to the last bits of a float: exp(y) = 2^m exp(r), r = y - m ln 2 in two parts, exp(r) by its series. */
TARGET static void NAME(sigmoid)(const float *x, float *out, long n) {
    for (long i = 0; i < n; i += LANES) {
        long some = n - i < LANES ? n - i : LANES;
        NAME(vf) y = {0};
        memcpy(&y, x + i, some * 4);
        y = -y;
        NAME(vi) high = y > 87.0f, low = y < -87.0f; /* all bits set where it is so */
        y = (NAME(vf))(((NAME(vi))y & ~high & ~low) | (high & (NAME(vi))(y * 0 + 87.0f)) | (low & (NAME(vi))(y * 0 - 87.0f)));
        NAME(vf) m = y * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to a whole number */
        m -= 12582912.0f;
        NAME(vf) r = y - m * 0.693359375f + m * 2.12194440e-4f;
        NAME(vf) e = 1 + r * (1 + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
        NAME(vi) power = (__builtin_convertvector(m, NAME(vi)) + 127) << 23;
        NAME(vf) two;
        memcpy(&two, &power, sizeof two);
        y = 1 / (1 + e * two);
        memcpy(out + i, &y, some * 4);
    }
}

#undef NAME
#undef TARGET
#undef LANES
#undef MOST
