/* The MaxSim kernel, included by _maxsim.c once per instruction set: NAME(x) gives the function's name, TARGET its attribute, LANES the
 * numbers in one of its registers.
 *
 * The lanes hold user heads: `per` consecutive k's of LANES/per heads. per = LANES is one user head (a plain dot product), per = 2 a
 * few, per = 1 many. So one item number (pair, register) is broadcast against all user heads at once, and horizontal sums come once
 * an item head instead of once a pair of heads.
 *
 * per = TILED (16 lanes only, K a multiple of them): the lanes hold k's, a tile of up to 6 user heads meets two item heads, and the
 * 12 sums of lanes are taken by one tree of exchanges. It loads a third as much as broadcasting and takes half the time. */

typedef float NAME(vf) __attribute__((vector_size(4 * LANES)));
typedef int32_t NAME(vi) __attribute__((vector_size(4 * LANES)));
typedef int64_t NAME(vl) __attribute__((vector_size(4 * LANES)));
#define INLINE TARGET static inline __attribute__((always_inline))

/* x + x with its lanes exchanged at distance d: after d = LANES/2 .. 1 every lane holds the sum of all. Masks must be constants. */
#if LANES == 16
#define EXCHANGED(d) {0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d, 4 ^ d, 5 ^ d, 6 ^ d, 7 ^ d, 8 ^ d, 9 ^ d, 10 ^ d, 11 ^ d, 12 ^ d, 13 ^ d, 14 ^ d, 15 ^ d}
#elif LANES == 8
#define EXCHANGED(d) {0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d, 4 ^ d, 5 ^ d, 6 ^ d, 7 ^ d}
#else
#define EXCHANGED(d) {0 ^ d, 1 ^ d, 2 ^ d, 3 ^ d}
#endif
#define FOLD(x, d) ((x) + __builtin_shuffle(x, (NAME(vi))EXCHANGED(d)))

/* The sum of all lanes, down to distance 2: lanes 0 and 1 stay apart. */
INLINE NAME(vf) NAME(halves)(NAME(vf) x) {
#if LANES > 8
    x = FOLD(x, 8);
#endif
#if LANES > 4
    x = FOLD(x, 4);
#endif
    return FOLD(x, 2);
}

/* u times `per` item numbers that stand beside each other in every lane. */
INLINE NAME(vf) NAME(times)(NAME(vf) u, const float *at, const int per) {
    NAME(vf) all;
    if (per == 1) return u * *at;
    if (per == 2) {
        int64_t pair;
        memcpy(&pair, at, 8);
        return u * (NAME(vf))((NAME(vl)){0} + pair);
    }
    memcpy(&all, at, sizeof all);
    return u * all;
}

/* Similarities of `heads` item heads with one chunk of user heads, maxed into best.  user [steps][LANES], item [heads][width] */
INLINE NAME(vf) NAME(block)(const NAME(vf) *user, const float *item, long width, long steps, const int per, const int heads, const int parts,
                            NAME(vf) best) {
    NAME(vf) sums[8];
    for (int j = 0; j < heads * parts; j++) sums[j] = (NAME(vf)){0};
    long s = 0;
    for (; s + parts <= steps; s += parts)
        for (int q = 0; q < parts; q++) {
            NAME(vf) u = user[s + q];
            for (int j = 0; j < heads; j++) sums[j * parts + q] += NAME(times)(u, item + j * width + (s + q) * per, per);
        }
    for (; s < steps; s++)
        for (int j = 0; j < heads; j++) sums[j * parts] += NAME(times)(user[s], item + j * width + s * per, per);
    for (int j = 0; j < heads; j++) {
        NAME(vf) sim = sums[j * parts];
        for (int q = 1; q < parts; q++) sim += sums[j * parts + q];
        if (per == LANES) sim = NAME(halves)(sim);
        if (per > 1) sim = FOLD(sim, 1);
        NAME(vi) larger = sim > best;
        best = (NAME(vf))(((NAME(vi))sim & larger) | ((NAME(vi))best & ~larger));
    }
    return best;
}

#if LANES == 16
#define TILE 6
/* Two vectors, each in runs of 2d lanes that will be summed -> one, in runs of d: x's and y's runs take turns as they stood. */
#define RUNS8 {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}
#define RUNS4 {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27}
#define RUNS2 {0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29}
#define RUNS1 {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}
#define MERGE(x, y, d) (__builtin_shuffle(x, y, (NAME(vi))RUNS##d) + __builtin_shuffle(x, y, (NAME(vi))RUNS##d + d))
#define LEVEL(d)                                                          \
    for (int i = 0; i < (n + 1) / 2; i++) v[i] = MERGE(v[2 * i], v[2 * i + 1], d); \
    n = (n + 1) / 2;                                                      \
    v[n] = (NAME(vf)){0}

/* Similarities of `users` heads with `heads` item heads, maxed into best [users].  user [users][width], item [heads][width] */
INLINE void NAME(tile)(const float *user, const float *item, long width, const int users, const int heads, float *best) {
    NAME(vf) v[2 * TILE + 1];
    int n = users * heads;
    for (int i = 0; i <= n; i++) v[i] = (NAME(vf)){0};
    for (long k = 0; k < width; k += LANES) {
        NAME(vf) x[2], u;
        for (int j = 0; j < heads; j++) memcpy(&x[j], item + j * width + k, sizeof u);
        for (int h = 0; h < users; h++) {
            memcpy(&u, user + h * width + k, sizeof u);
            for (int j = 0; j < heads; j++) v[j * users + h] += u * x[j];
        }
    }
    LEVEL(8);
    LEVEL(4);
    LEVEL(2);
    LEVEL(1);
    for (int j = 0; j < heads; j++)
        for (int h = 0; h < users; h++) best[h] = v[0][j * users + h] > best[h] ? v[0][j * users + h] : best[h];
}

INLINE float NAME(tiles)(const float *user, const float *item, long width, long heads, const int users) {
    float best[TILE], total = 0;
    for (int h = 0; h < users; h++) best[h] = -INFINITY;
    for (; heads >= 2; heads -= 2, item += 2 * width) NAME(tile)(user, item, width, users, 2, best);
    if (heads) NAME(tile)(user, item, width, users, 1, best);
    for (int h = 0; h < users; h++) total += best[h];
    return total;
}

/* MaxSim of one group whose user heads lie one after another. */
INLINE float NAME(tiled)(const Group *g, const float *item) {
    const float *user = g->packed;
    float total = 0;
    long left = g->chunks;
    for (; left >= TILE; left -= TILE, user += TILE * g->width) total += NAME(tiles)(user, item, g->width, g->item_heads, TILE);
    for (; left >= 2; left -= 2, user += 2 * g->width) total += NAME(tiles)(user, item, g->width, g->item_heads, 2);
    if (left) total += NAME(tiles)(user, item, g->width, g->item_heads, 1);
    return total;
}
#endif

/* MaxSim of one group: sum over user heads of max over item heads. */
INLINE float NAME(group)(const Group *g, const float *item, const int per) {
    float total = 0;
    const NAME(vf) *user = (const NAME(vf) *)g->packed;
    for (long c = 0; c < g->chunks; c++, user += g->steps) {
        NAME(vf) best = (NAME(vf)){0} - INFINITY;
        const float *at = item;
        long left = g->item_heads;
        if (per < LANES)
            for (; left >= 4; left -= 4, at += 4 * g->width) best = NAME(block)(user, at, g->width, g->steps, per, 4, 2, best);
        for (; left >= 2; left -= 2, at += 2 * g->width) best = NAME(block)(user, at, g->width, g->steps, per, 2, 4, best);
        if (left) best = NAME(block)(user, at, g->width, g->steps, per, 1, 4, best);
        if (per == LANES) {
            total += best[0];
            continue;
        }
        best = NAME(halves)(best);
        total += per == 2 ? best[0] : best[0] + best[1]; /* per = 2: each head stands in two lanes */
    }
    return total;
}

/* A stored row as floats in scratch (zero behind its end); int8 stays unscaled. */
INLINE void NAME(widen)(float *scratch, const char *row, const Job *job) {
    if (job->dtype == FP32) {
        memcpy(scratch, row, job->width * 4);
    } else if (job->dtype == BF16) {
        const uint16_t *half = (const uint16_t *)row;
        for (long k = 0; k < job->width; k++) ((uint32_t *)scratch)[k] = (uint32_t)half[k] << 16;
    } else {
        const int8_t *byte = (const int8_t *)row;
        for (long k = 0; k < job->width; k++) scratch[k] = byte[k];
    }
}

/* Ask for the rows of candidates [from, to), a whole block at once and into L2: a row at a time, or into L1, fills the few miss buffers
 * and took 2.7 times as long (1,000 rows of 512 bytes out of 1M: 65 us against 180; touching them alone takes 57).
 * NOTE always inlined: gcc takes a function that only prefetches for one without effect, and drops the call. */
INLINE void NAME(fetch)(const Job *job, long from, long to) {
    for (long c = from; c < to && c < job->count; c++) {
        long row = job->rows[c];
        if (row < 0) continue;
        const char *line = job->items + row * job->stride;
        for (long b = 0; b < job->stride; b += 64) __builtin_prefetch(line + b, 0, 2);
        if (job->item_bias) __builtin_prefetch(job->item_bias + row * job->objectives);
        if (job->scales) __builtin_prefetch(job->scales + row);
    }
}

TARGET static void NAME(score)(const Job *job) {
    for (long c = 0; c < job->count; c++) {
        if (c % BLOCK == 0) NAME(fetch)(job, c ? c + BLOCK : 0, c + 2 * BLOCK);
        long row = job->rows[c];
        float *out = job->out + c * job->objectives;
        if (row < 0) {
            for (long t = 0; t < job->objectives; t++) out[t] = NAN;
            continue;
        }
        for (long t = 0; t < job->objectives; t++) out[t] = job->user_bias[t] + (job->item_bias ? job->item_bias[row * job->objectives + t] : 0);
        const float *item = (const float *)(job->items + row * job->stride);
        if (job->scratch) {
            NAME(widen)(job->scratch, job->items + row * job->stride, job);
            item = job->scratch;
        }
        float scale = job->scales ? job->scales[row] : 1.0f;
        for (long g = 0; g < job->n_groups; g++) {
            const Group *group = job->groups + g;
            const float *at = item + group->item_offset;
            float sum;
#if LANES == 16
            if (group->per == TILED)
                sum = NAME(tiled)(group, at);
            else
#endif
                sum = group->per == LANES ? NAME(group)(group, at, LANES) : group->per == 2 ? NAME(group)(group, at, 2) : NAME(group)(group, at, 1);
            out[group->objective] += scale * sum;
        }
    }
}

#undef NAME
#undef TARGET
#undef LANES
#undef INLINE
#undef EXCHANGED
#undef FOLD
