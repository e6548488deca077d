/* The MaxSim kernel, included by _maxsim.c once per instruction set: NAME(x) gives the function's name, TARGET its attribute, LANES the
 * numbers in one of its registers.
 *
 * The lanes hold user heads: `per` consecutive k's of LANES/per heads. per = LANES is one user head (a plain dot product), per = 2 a
 * few, per = 1 many. So one item number (pair, register) is broadcast against all user heads at once, and horizontal sums come once
 * an item head instead of once a pair of heads. */

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
        __builtin_prefetch(job->item_bias + row * job->objectives);
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
        for (long t = 0; t < job->objectives; t++) out[t] = job->user_bias[t] + job->item_bias[row * job->objectives + t];
        const float *item = (const float *)(job->items + row * job->stride);
        if (job->scratch) {
            NAME(widen)(job->scratch, job->items + row * job->stride, job);
            item = job->scratch;
        }
        float scale = job->scales ? job->scales[row] : 1.0f;
        for (long g = 0; g < job->n_groups; g++) {
            const Group *group = job->groups + g;
            const float *at = item + group->item_offset;
            float sum = group->per == LANES ? NAME(group)(group, at, LANES) : group->per == 2 ? NAME(group)(group, at, 2) : NAME(group)(group, at, 1);
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
