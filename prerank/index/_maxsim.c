/* Scoring one user against stored item rows, and finding those rows: the three loops of a request.
 *
 *   score(items, dtype, stride, width, scales, rows, user, user_bias, item_bias, groups, out)   gather + MaxSim + biases -> out [C, T]
 *   build(ids, table)           fill a hash table [2^b, 2] int64 of (id, row); returns the first row whose id came before, or -1
 *   lookup(table, ids, rows)    ids (int64 buffer, or a list of ints) -> rows, -1 for unknown
 *   top_k(scores, order)        positions of the best len(order) scores, best first, ties by position; NaN never; returns how many
 *
 * Arguments are contiguous buffers (numpy arrays), so no numpy headers are needed. Shapes are checked here, because a wrong one would
 * read foreign memory; meaning is checked by the callers in exact.py and ids.py. Every loop runs without the GIL. Rows are gathered
 * where they lie (possibly a memory map) and fetched ahead: the time is mostly that of touching their cache lines. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 32 /* rows are fetched a block ahead of the one being scored */
#define AHEAD 16 /* hash slots are fetched so many ids ahead */

enum { FP32 = 0, BF16 = 1, INT8 = 2 };

typedef struct {
    int per;                       /* k's of one head side by side in the lanes: all of them, 2 or 1 */
    long item_heads, width;        /* Hi, K */
    long chunks, steps;            /* user heads in chunks of lanes/per, k's in steps of per */
    long objective, item_offset;   /* numbers into the row */
    float *packed;                 /* [chunks][steps][lanes] */
} Group;

typedef struct {
    const char *items;
    int dtype;
    long stride, width;            /* bytes a row; numbers a row */
    const float *scales;           /* [N] int8 only, else NULL */
    const int64_t *rows;
    long count, objectives, n_groups;
    const Group *groups;
    const float *user_bias, *item_bias;
    float *scratch;                /* NULL: the kernel reads rows in place */
    float *out;
} Job;

#define NAME(x) x##_plain
#define TARGET
#define LANES 4
#include "_maxsim_kernel.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#include "_maxsim_kernel.h"
#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#define LANES 16
#include "_maxsim_kernel.h"
#endif

/* The instruction sets this machine has, weakest first; the last is used. */
typedef struct {
    const char *name;
    int lanes;
    void (*score)(const Job *);
} Level;
static Level levels[3], best;
static int n_levels;

static void find_levels(void) {
    n_levels = 0;
    levels[n_levels++] = (Level){"plain", 4, score_plain};
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels[n_levels++] = (Level){"avx2", 8, score_avx2};
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq"))
        levels[n_levels++] = (Level){"avx512", 16, score_avx512};
#endif
    best = levels[n_levels - 1];
}

static PyObject *level_names(PyObject *self, PyObject *unused) {
    PyObject *names = PyList_New(n_levels);
    for (int i = 0; names && i < n_levels; i++) PyList_SET_ITEM(names, i, PyUnicode_FromString(levels[i].name));
    return names;
}

static PyObject *use(PyObject *self, PyObject *name) {
    for (int i = 0; i < n_levels; i++)
        if (PyUnicode_Check(name) && !PyUnicode_CompareWithASCIIString(name, levels[i].name)) {
            best = levels[i];
            Py_RETURN_NONE;
        }
    PyErr_Format(PyExc_ValueError, "no instruction set %R here", name);
    return NULL;
}

/* ---- arguments */

typedef struct {
    Py_buffer items, scales, rows, user, user_bias, item_bias, groups, out;
} Buffers;

static void release(Buffers *b) {
    Py_buffer *all[] = {&b->items, &b->scales, &b->rows, &b->user, &b->user_bias, &b->item_bias, &b->groups, &b->out};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->obj) PyBuffer_Release(all[i]);
}

static int wrong(const char *what) {
    PyErr_SetString(PyExc_ValueError, what);
    return -1;
}

/* Shape of a group's layout.  spec: Hu, Hi, K, objective, user offset, item offset */
static Group layout(const int32_t *spec, int lanes) {
    Group g = {.per = spec[0] == 1 ? lanes : spec[0] <= lanes / 2 ? 2 : 1, .item_heads = spec[1], .width = spec[2], .objective = spec[3],
               .item_offset = spec[5]};
    long abreast = lanes / g.per;
    g.chunks = (spec[0] + abreast - 1) / abreast;
    g.steps = (spec[2] + g.per - 1) / g.per;
    return g;
}

/* Lay the user's heads out for the kernel; packed holds zeros. */
static void pack(const Group *g, const int32_t *spec, const float *user, int lanes) {
    long abreast = lanes / g->per;
    for (long h = 0; h < spec[0]; h++) {
        float *lane = g->packed + (h / abreast) * g->steps * lanes + (h % abreast) * g->per;
        const float *from = user + spec[4] + h * g->width;
        for (long k = 0; k < g->width; k++) lane[(k / g->per) * lanes + k % g->per] = from[k];
    }
}

/* Check every shape, then score. Returns 0, or -1 with an exception set. */
static int run(Buffers *b, int dtype, Py_ssize_t stride, Py_ssize_t width) {
    static const int sizes[] = {4, 2, 1};
    const Level level = best;
    if (dtype < 0 || dtype > INT8) return wrong("dtype must be 0 (fp32), 1 (bf16) or 2 (int8)");
    if (stride <= 0 || stride % 64 || width <= 0 || width * sizes[dtype] > stride) return wrong("rows must be whole multiples of 64 bytes");
    if (((uintptr_t)b->items.buf) % 4 || ((uintptr_t)b->user.buf) % 4) return wrong("items and user must be aligned");
    long n = b->items.len / stride, count = b->rows.len / 8, objectives = b->user_bias.len / 4, n_groups = b->groups.len / 24;
    if (b->items.len != n * stride || b->rows.len != count * 8 || b->groups.len != n_groups * 24) return wrong("buffers hold broken rows");
    if (objectives < 1 || b->item_bias.len != n * objectives * 4) return wrong("item_bias must be float32 [N, T]");
    if (b->out.len != count * objectives * 4) return wrong("out must be float32 [C, T]");
    if (dtype == INT8 ? b->scales.len != n * 4 : b->scales.obj != NULL) return wrong("scales must be float32 [N] for int8, None otherwise");
    const int64_t *rows = b->rows.buf;
    for (long c = 0; c < count; c++)
        if (rows[c] >= n || rows[c] < -1) return wrong("rows must be in [-1, N)");

    const int32_t *specs = b->groups.buf;
    size_t floats = 0;
    int staged = dtype != FP32;
    for (long i = 0; i < n_groups; i++) {
        const int32_t *s = specs + 6 * i;
        if (s[0] < 1 || s[1] < 1 || s[2] < 1 || s[3] < 0 || s[3] >= objectives || s[4] < 0 || s[5] < 0) return wrong("groups hold a wrong number");
        if ((int64_t)s[4] + (int64_t)s[0] * s[2] > b->user.len / 4) return wrong("a group reads beyond the user vector");
        if ((int64_t)s[5] + (int64_t)s[1] * s[2] > width) return wrong("a group reads beyond the item row");
        Group g = layout(s, level.lanes);
        floats += (size_t)g.chunks * g.steps * level.lanes;
        if (g.width % g.per) staged = 1; /* the last step reads past the head: only scratch has room behind it */
    }
    size_t scratch_floats = staged ? ((size_t)width + 47) / 16 * 16 : 0;
    char *memory = calloc(1, (floats + scratch_floats) * 4 + 64 + n_groups * sizeof(Group));
    if (!memory) {
        PyErr_NoMemory();
        return -1;
    }
    Group *groups = (Group *)memory;
    float *at = (float *)(((uintptr_t)(groups + n_groups) + 63) / 64 * 64);
    Job job = {b->items.buf, dtype, stride, width, b->scales.buf, rows, count, objectives, n_groups, groups, b->user_bias.buf, b->item_bias.buf,
               NULL, b->out.buf};
    if (staged) {
        job.scratch = at;
        at += scratch_floats;
    }
    Py_BEGIN_ALLOW_THREADS
    for (long g = 0; g < n_groups; g++) {
        groups[g] = layout(specs + 6 * g, level.lanes);
        groups[g].packed = at;
        pack(groups + g, specs + 6 * g, b->user.buf, level.lanes);
        at += groups[g].chunks * groups[g].steps * level.lanes;
    }
    level.score(&job);
    Py_END_ALLOW_THREADS
    free(memory);
    return 0;
}

static PyObject *score(PyObject *self, PyObject *args) {
    Buffers b = {0};
    PyObject *scales;
    int dtype;
    Py_ssize_t stride, width;
    if (!PyArg_ParseTuple(args, "y*innOy*y*y*y*y*w*", &b.items, &dtype, &stride, &width, &scales, &b.rows, &b.user, &b.user_bias, &b.item_bias,
                          &b.groups, &b.out))
        return NULL;
    int bad = scales != Py_None && PyObject_GetBuffer(scales, &b.scales, PyBUF_C_CONTIGUOUS) < 0;
    bad = bad || run(&b, dtype, stride, width) < 0;
    release(&b);
    if (bad) return NULL;
    Py_RETURN_NONE;
}

/* ---- id -> row */

static inline uint64_t slot_of(int64_t id, uint64_t mask) {
    uint64_t h = (uint64_t)id * 0x9E3779B97F4A7C15u;
    return (h ^ (h >> 32)) & mask;
}

static int table_mask(const Py_buffer *table, uint64_t *mask) {
    uint64_t slots = table->len / 16;
    if (!slots || slots & (slots - 1) || (uint64_t)table->len != slots * 16) return wrong("table must be int64 [2^b, 2]");
    *mask = slots - 1;
    return 0;
}

static PyObject *build(PyObject *self, PyObject *args) {
    Py_buffer ids, table;
    uint64_t mask;
    long repeated = -1;
    if (!PyArg_ParseTuple(args, "y*w*", &ids, &table)) return NULL;
    long n = ids.len / 8;
    int bad = table_mask(&table, &mask) < 0;
    if (!bad && (uint64_t)n > mask) bad = wrong("table must have more slots than ids") < 0;
    if (!bad) {
        const int64_t *id = ids.buf;
        int64_t *slots = table.buf;
        Py_BEGIN_ALLOW_THREADS
        for (uint64_t s = 0; s <= mask; s++) slots[2 * s + 1] = -1;
        for (long i = 0; i < n && repeated < 0; i++) {
            if (i + AHEAD < n) __builtin_prefetch(slots + 2 * slot_of(id[i + AHEAD], mask), 1);
            uint64_t s = slot_of(id[i], mask);
            while (slots[2 * s + 1] >= 0 && slots[2 * s] != id[i]) s = (s + 1) & mask;
            if (slots[2 * s + 1] >= 0) repeated = i;
            slots[2 * s] = id[i];
            slots[2 * s + 1] = i;
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&ids);
    PyBuffer_Release(&table);
    return bad ? NULL : PyLong_FromLong(repeated);
}

static void find(const int64_t *slots, uint64_t mask, const int64_t *ids, long n, int64_t *rows) {
    for (long start = 0; start < n; start += BLOCK) {
        long end = start + BLOCK < n ? start + BLOCK : n;
        for (long i = start ? end : 0; i < end + BLOCK && i < n; i++) __builtin_prefetch(slots + 2 * slot_of(ids[i], mask), 0, 2);
        for (long i = start; i < end; i++) {
            uint64_t s = slot_of(ids[i], mask);
            while (slots[2 * s + 1] >= 0 && slots[2 * s] != ids[i]) s = (s + 1) & mask;
            rows[i] = slots[2 * s + 1];
        }
    }
}

/* A list of Python ints into out; -1 with an exception when one is no int or does not fit. */
static int unpack_list(PyObject *list, int64_t *out) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        int overflow;
        long long value = PyLong_AsLongLongAndOverflow(PyList_GET_ITEM(list, i), &overflow);
        if (overflow) {
            PyErr_Format(PyExc_OverflowError, "%zd", i);
            return -1;
        }
        if (value == -1 && PyErr_Occurred()) {
            PyErr_Clear();
            PyErr_Format(PyExc_TypeError, "%zd", i);
            return -1;
        }
        out[i] = value;
    }
    return 0;
}

static PyObject *lookup(PyObject *self, PyObject *args) {
    Py_buffer table, rows, ids = {0};
    PyObject *given;
    uint64_t mask;
    if (!PyArg_ParseTuple(args, "y*Ow*", &table, &given, &rows)) return NULL;
    int bad = table_mask(&table, &mask) < 0, listed = PyList_Check(given);
    if (!bad && !listed) bad = PyObject_GetBuffer(given, &ids, PyBUF_C_CONTIGUOUS) < 0;
    long n = bad ? 0 : listed ? PyList_GET_SIZE(given) : ids.len / 8;
    if (!bad && rows.len != n * 8) bad = wrong("rows must be int64 [len(ids)]") < 0;
    if (!bad && listed) bad = unpack_list(given, rows.buf) < 0; /* found in place: rows[i] is read before it is written */
    if (!bad) {
        Py_BEGIN_ALLOW_THREADS
        find(table.buf, mask, listed ? rows.buf : ids.buf, n, rows.buf);
        Py_END_ALLOW_THREADS
    }
    if (ids.obj) PyBuffer_Release(&ids);
    PyBuffer_Release(&table);
    PyBuffer_Release(&rows);
    if (bad) return NULL;
    Py_RETURN_NONE;
}

/* ---- the best k */

typedef struct {
    uint32_t key; /* larger is worse, so that sorting upwards puts the best first */
    uint32_t at;
} Entry;

/* A float's bits so that unsigned order is descending order of the floats; both zeros are one. */
static inline uint32_t descending(float x) {
    uint32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, 4);
    return bits & 0x80000000u ? bits : ~bits & 0x7FFFFFFFu;
}

/* Stable sort by key, a byte at a time. */
static void radix_sort(Entry *entries, Entry *spare, long n) {
    for (int shift = 0; shift < 32; shift += 8) {
        long starts[257] = {0};
        for (long i = 0; i < n; i++) starts[(entries[i].key >> shift & 255) + 1]++;
        for (int b = 0; b < 256; b++) starts[b + 1] += starts[b];
        for (long i = 0; i < n; i++) spare[starts[entries[i].key >> shift & 255]++] = entries[i];
        Entry *swapped = entries;
        entries = spare;
        spare = swapped;
    }
}

/* Count scores by their upper bits, keep the buckets that hold the best k, sort those: nothing branches on a comparison.
 * (A heap mispredicts: 20 us for 100 of 1,000, this takes 5.)  memory: 2 n entries */
static long best_k(const float *score, long n, int64_t *order, long k, Entry *memory) {
    static const int UPPER = 20; /* the key's upper 12 bits: sign, exponent, 3 of the mantissa */
    long counts[1 << 12] = {0}, known = 0, kept = 0, upto = 0;
    for (long i = 0; i < n; i++)
        if (score[i] == score[i]) {
            counts[descending(score[i]) >> UPPER]++;
            known++;
        }
    if (k > known) k = known;
    uint32_t bucket = 0;
    while (upto < k) upto += counts[bucket++];
    for (long i = 0; i < n; i++) {
        uint32_t key = descending(score[i]);
        memory[kept] = (Entry){key, (uint32_t)i};
        kept += (score[i] == score[i]) & (key >> UPPER < bucket);
    }
    radix_sort(memory, memory + n, kept);
    for (long i = 0; i < k; i++) order[i] = memory[i].at;
    return k;
}

static PyObject *top_k(PyObject *self, PyObject *args) {
    Py_buffer scores, order;
    if (!PyArg_ParseTuple(args, "y*w*", &scores, &order)) return NULL;
    long n = scores.len / 4, found = -1;
    Entry *memory = n < INT32_MAX ? malloc((2 * n + 2) * sizeof(Entry)) : NULL;
    if (memory) {
        Py_BEGIN_ALLOW_THREADS
        found = best_k(scores.buf, n, order.buf, order.len / 8, memory);
        Py_END_ALLOW_THREADS
        free(memory);
    }
    PyBuffer_Release(&scores);
    PyBuffer_Release(&order);
    return memory ? PyLong_FromLong(found) : PyErr_NoMemory();
}

static PyMethodDef methods[] = {
    {"score", score, METH_VARARGS, "score(items, dtype, stride, width, scales, rows, user, user_bias, item_bias, groups, out)"},
    {"levels", level_names, METH_NOARGS, "levels() -> names of the instruction sets here, weakest first; the last is used"},
    {"use", use, METH_O, "use(level): choose one, for tests"},
    {"build", build, METH_VARARGS, "build(ids, table) -> first repeated row or -1"},
    {"lookup", lookup, METH_VARARGS, "lookup(table, ids, rows)"},
    {"top_k", top_k, METH_VARARGS, "top_k(scores, order) -> how many"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_maxsim", "The three loops of a request; see the file's first lines.", 0, methods};

PyMODINIT_FUNC PyInit__maxsim(void) {
    find_levels();
    return PyModuleDef_Init(&module);
}
