/* The MaxSim kernel, included by _maxsim.c once per instruction set: NAME(x) gives the function's name, TARGET its attribute.
 *
 * Sixteen lanes hold user heads: `per` consecutive k's of 16/per heads. per = 16 is one user head (a plain dot product), per = 2 up to
 * eight heads, per = 1 sixteen. So one item number (pair, sixteen) is broadcast against all user heads at once, and horizontal sums
 * come once an item head instead of once a pair of heads. */

/* Similarities of `heads` item heads with one chunk of user heads, maxed into best.  user [steps][16], item [heads][width] */
TARGET static inline __attribute__((always_inline)) v16f NAME(block)(const v16f *user, const float *item, long width, long steps,
                                                                     const int per, const int heads, const int parts, v16f best) {
    v16f sums[8];
    for (int j = 0; j < heads * parts; j++) sums[j] = (v16f){0};
    long s = 0;
    for (; s + parts <= steps; s += parts) {
        for (int q = 0; q < parts; q++) {
            v16f u = user[s + q];
            for (int j = 0; j < heads; j++) {
                const float *at = item + j * width + (s + q) * per;
                if (per == 1) {
                    sums[j * parts + q] += u * *at;
                } else if (per == 2) {
                    int64_t pair;
                    memcpy(&pair, at, 8);
                    sums[j * parts + q] += u * (v16f)(v8l){pair, pair, pair, pair, pair, pair, pair, pair};
                } else {
                    v16f all;
                    memcpy(&all, at, 64);
                    sums[j * parts + q] += u * all;
                }
            }
        }
    }
    for (; s < steps; s++) {
        for (int j = 0; j < heads; j++) {
            const float *at = item + j * width + s * per;
            if (per == 1) {
                sums[j * parts] += user[s] * *at;
            } else if (per == 2) {
                int64_t pair;
                memcpy(&pair, at, 8);
                sums[j * parts] += user[s] * (v16f)(v8l){pair, pair, pair, pair, pair, pair, pair, pair};
            } else {
                v16f all;
                memcpy(&all, at, 64);
                sums[j * parts] += user[s] * all;
            }
        }
    }
    for (int j = 0; j < heads; j++) {
        v16f sim = sums[j * parts];
        for (int q = 1; q < parts; q++) sim += sums[j * parts + q];
        if (per == 16) {
            sim += __builtin_shuffle(sim, (v16i){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
            sim += __builtin_shuffle(sim, (v16i){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
            sim += __builtin_shuffle(sim, (v16i){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
        }
        if (per >= 2) sim += __builtin_shuffle(sim, (v16i){1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
        v16i larger = sim > best;
        best = (v16f)(((v16i)sim & larger) | ((v16i)best & ~larger));
    }
    return best;
}

/* MaxSim of one group: sum over user heads of max over item heads. */
TARGET static inline __attribute__((always_inline)) float NAME(group)(const Group *g, const float *item, const int per) {
    float total = 0;
    const v16f *user = (const v16f *)g->packed;
    for (long c = 0; c < g->chunks; c++, user += g->steps) {
        v16f best = (v16f){0} - INFINITY;
        const float *at = item;
        long left = g->item_heads;
        if (per < 16)
            for (; left >= 4; left -= 4, at += 4 * g->width) best = NAME(block)(user, at, g->width, g->steps, per, 4, 2, best);
        for (; left >= 2; left -= 2, at += 2 * g->width) best = NAME(block)(user, at, g->width, g->steps, per, 2, 4, best);
        if (left) best = NAME(block)(user, at, g->width, g->steps, per, 1, 4, best);
        if (per == 16) {
            total += best[0];
            continue;
        }
        best += __builtin_shuffle(best, (v16i){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
        best += __builtin_shuffle(best, (v16i){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
        best += __builtin_shuffle(best, (v16i){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
        total += per == 2 ? best[0] : best[0] + best[1]; /* per = 2: each head stands in two lanes */
    }
    return total;
}

/* A stored row as floats in scratch (zero behind its end); int8 stays unscaled. */
TARGET static inline __attribute__((always_inline)) void NAME(widen)(float *scratch, const char *row, const Job *job) {
    if (job->dtype == FP32) {
        memcpy(scratch, row, job->width * 4);
        return;
    }
    for (long k = 0; k < job->width; k += 16) { /* rows are padded to 64 bytes: reading sixteen at a time stays inside */
        v16f wide;
        if (job->dtype == BF16) {
            v16hu half;
            memcpy(&half, row + 2 * k, 32);
            wide = (v16f)(__builtin_convertvector(half, v16u) << 16);
        } else {
            v16b byte;
            memcpy(&byte, row + k, 16);
            wide = __builtin_convertvector(__builtin_convertvector(byte, v16i), v16f);
        }
        memcpy(scratch + k, &wide, 64);
    }
}

/* Ask for the rows of candidates [from, to), a whole block at once and into L2: a row at a time, or into L1, fills the few miss buffers
 * and took 2.7 times as long (1,000 rows of 512 bytes out of 1M: 65 us against 180; touching them alone takes 57).
 * NOTE always inlined: gcc takes a function that only prefetches for one without effect, and drops the call. */
TARGET static inline __attribute__((always_inline)) void NAME(fetch)(const Job *job, long from, long to) {
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
            float sum = group->per == 16 ? NAME(group)(group, at, 16) : group->per == 2 ? NAME(group)(group, at, 2) : NAME(group)(group, at, 1);
            out[group->objective] += scale * sum;
        }
    }
}

#undef NAME
#undef TARGET
