/* Scoring one user against stored item rows, and finding those rows: the three loops of a request.
 *
 *   score(items, dtype, stride, width, scales, rows, user, user_bias, item_bias, groups, out)   gather + MaxSim + biases -> out [C, T]; item_bias may be None
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

#define TILED 0  /* a layout of the kernel, beside so many k's of one head */
#define BLOCK 32 /* rows, and slots of ids, are fetched a block ahead of the one that is used */

enum { FP32 = 0, BF16 = 1, INT8 = 2 };

typedef struct {
    int per;                       /* k's of one head side by side in the lanes: all of them, 2 or 1; or TILED */
    long item_heads, width;        /* Hi, K */
    long chunks, steps;            /* user heads in chunks of lanes/per, k's in steps of per; TILED: user heads, registers of k's a head */
    long objective, item_offset;   /* numbers into the row */
    float *packed;                 /* [chunks][steps][lanes], filled up with zeros */
} Group;

typedef struct {
    const char *items;
    int dtype;
    long stride, width;            /* bytes a row; numbers a row */
    const float *scales;           /* [N] int8 only, else NULL */
    const int64_t *rows;
    long count, objectives, n_groups;
    const Group *groups;
    const float *user_bias, *item_bias; /* item_bias may be NULL: none has any */
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
    if (lanes == 16 && spec[0] > 1 && spec[2] % lanes == 0) {
        g.per = TILED;
        g.chunks = spec[0];
        g.steps = spec[2] / lanes;
        return g;
    }
    long abreast = lanes / g.per;
    g.chunks = (spec[0] + abreast - 1) / abreast;
    g.steps = (spec[2] + g.per - 1) / g.per;
    return g;
}

/* Lay the user's heads out for the kernel; packed holds zeros. */
static void pack(const Group *g, const int32_t *spec, const float *user, int lanes) {
    if (g->per == TILED) {
        memcpy(g->packed, user + spec[4], (size_t)spec[0] * g->width * 4);
        return;
    }
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
    if (objectives < 1 || (b->item_bias.obj && b->item_bias.len != n * objectives * 4)) return wrong("item_bias must be float32 [N, T]");
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
        if (g.per != TILED && g.width % g.per) staged = 1; /* the last step reads past the head: only scratch has room behind it */
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
    PyObject *scales, *item_bias;
    int dtype;
    Py_ssize_t stride, width;
    if (!PyArg_ParseTuple(args, "y*innOy*y*y*Oy*w*", &b.items, &dtype, &stride, &width, &scales, &b.rows, &b.user, &b.user_bias, &item_bias,
                          &b.groups, &b.out))
        return NULL;
    int bad = scales != Py_None && PyObject_GetBuffer(scales, &b.scales, PyBUF_C_CONTIGUOUS) < 0;
    bad = bad || (item_bias != Py_None && PyObject_GetBuffer(item_bias, &b.item_bias, PyBUF_C_CONTIGUOUS) < 0);
    bad = bad || run(&b, dtype, stride, width) < 0;
    release(&b);
    if (bad) return NULL;
    Py_RETURN_NONE;
}

#include "_table.h"
#include "_best.h"

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
