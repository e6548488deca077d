/* Plays a recorded user tower for one row: a program of operations over registers, made by tape.py, which trusts nobody but itself.
 *
 *   player = Player(code, constants, inputs, floats, ints, outputs)
 *   player.play(columns, out)
 *
 * code        int64 words: an operation and its operands, one after another (operations.py writes them in the order that run() reads)
 * constants   float32 buffers; operand -1 is the first of them, -2 the second ..; operands from 0 on are places in the scratch memory
 * inputs      int64 [I, 3]: kind (0 int32, 1 float32), how many numbers, and the place (of the ints or floats) that each column is copied to
 * outputs     int64 [O, 2]: place and how many floats, laid end to end in out
 *
 * At batch 1 a product takes a few microseconds and a call of numpy half of one, of torch five: here an operation costs ten nanoseconds. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BINARY, UNARY, LINEAR, PRODUCT, GATHER, COPY, FILL, REDUCE, SOFTMAX, NORMALISE, SELECT, INT_ADD, INT_MUL, INT_COPY, INT_COMPARE, INT_FLOAT };
enum { ADD, SUB, MUL, DIV, MAX, MIN, EQUAL, UNEQUAL };
enum { RELU, TANH, EXP, SIGMOID, SILU, GELU, NEG, SQRT, RECIPROCAL, LEAKY, NOT };
enum { SUM, MEAN, AMAX, NORM };
#define DIMS 4

typedef struct {
    float *floats;
    int64_t *ints;
    const float *const *constants;
    int64_t lost; /* the row that a table did not have */
} Memory;

#define NAME(x) x##_plain
#define TARGET
#define LANES 4
#define MOST 8
#include "_player_linear.h"
#if defined(__x86_64__) && defined(__GNUC__)
#define NAME(x) x##_avx2
#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define MOST 12
#include "_player_linear.h"
#define NAME(x) x##_avx512
#define TARGET __attribute__((target("avx512f,fma")))
#define LANES 16
#define MOST 20
#include "_player_linear.h"
#endif

static void (*linear)(const float *w, const float *x, float *sums, int *at, long line, long width) = linear_plain;
static void (*sigmoid)(const float *x, float *out, long n) = sigmoid_plain;

static void choose(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) linear = linear_avx2, sigmoid = sigmoid_avx2;
    if (__builtin_cpu_supports("avx512f")) linear = linear_avx512, sigmoid = sigmoid_avx512;
#endif
}

static inline const float *at(const Memory *m, int64_t operand) { return operand >= 0 ? m->floats + operand : m->constants[-operand - 1]; }

#define EACH(expression)                                   \
    for (long i = 0; i < n; i++) {                         \
        float x = a[i * sa], y = b[i * sb];                \
        out[i] = (expression);                             \
    }                                                      \
    break

static inline __attribute__((always_inline)) void binary_at(int64_t kind, const float *a, long sa, const float *b, long sb, float *out,
                                                            long n) {
    switch (kind) {
    case ADD: EACH(x + y);
    case SUB: EACH(x - y);
    case MUL: EACH(x * y);
    case DIV: EACH(x / y);
    case MAX: EACH(x > y ? x : y);
    case EQUAL: EACH(x == y);
    case UNEQUAL: EACH(x != y);
    default: EACH(x < y ? x : y);
    }
}

/* A row of out = a op b; strides are 0 (the same number again) or 1, for which there are loops of their own, or anything. */
static void binary_row(int64_t kind, const float *a, long sa, const float *b, long sb, float *out, long n) {
    if (sa == 1 && sb == 1)
        binary_at(kind, a, 1, b, 1, out, n);
    else if (sa == 1 && sb == 0)
        binary_at(kind, a, 1, b, 0, out, n);
    else
        binary_at(kind, a, sa, b, sb, out, n);
}

static float unary(int64_t kind, float x, float parameter) {
    switch (kind) {
    case RELU: return x > 0 ? x : 0;
    case TANH: return tanhf(x);
    case EXP: return expf(x);
    case SILU: return x / (1 + expf(-x));
    case GELU: return 0.5f * x * (1 + erff(x * 0.70710678f));
    case NEG: return -x;
    case SQRT: return sqrtf(x);
    case RECIPROCAL: return 1 / x;
    case LEAKY: return x > 0 ? x : parameter * x;
    default: return 1 - x;
    }
}

/* out[.., i, ..] = over n numbers at distance inner */
static float reduced(int64_t kind, const float *x, long n, long inner) {
    float all = kind == AMAX ? x[0] : 0;
    for (long i = 0; i < n; i++) {
        float v = x[i * inner];
        all = kind == AMAX ? (v > all ? v : all) : kind == NORM ? all + v * v : all + v;
    }
    return kind == MEAN ? all / n : kind == NORM ? sqrtf(all) : all;
}

static void softmax(const float *x, float *out, long n, long inner) {
    float highest = reduced(AMAX, x, n, inner), sum = 0;
    for (long i = 0; i < n; i++) sum += out[i * inner] = expf(x[i * inner] - highest);
    for (long i = 0; i < n; i++) out[i * inner] /= sum;
}

/* Layer normalisation of one row; gamma and beta may be NULL. */
static void normalise(const float *x, const float *gamma, const float *beta, float eps, float *out, long n) {
    float mean = reduced(MEAN, x, n, 1), square = 0;
    for (long i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / sqrtf(square / n + eps);
    for (long i = 0; i < n; i++) out[i] = (x[i] - mean) * scale * (gamma ? gamma[i] : 1) + (beta ? beta[i] : 0);
}

/* Walk DIMS dimensions: p = shape, then strides of each operand. `go` is done for every row of the last dimension. */
#define WALK(shape, go)                                    \
    for (long i0 = 0; i0 < (shape)[0]; i0++)               \
        for (long i1 = 0; i1 < (shape)[1]; i1++)           \
            for (long i2 = 0; i2 < (shape)[2]; i2++) {     \
                go;                                        \
            }
#define OFFSET(s) (i0 * (s)[0] + i1 * (s)[1] + i2 * (s)[2])

/* Run the program. Returns 0, or -1 when a table does not have a row. */
static int run(const int64_t *p, const int64_t *end, Memory *m) {
    while (p < end) {
        int64_t op = *p++;
        float *out = m->floats + p[0];
        const float *a, *b;
        switch (op) {
        case BINARY: /* out, a, b, kind, shape, strides of a, strides of b */
            a = at(m, p[1]), b = at(m, p[2]);
            WALK(p + 4, binary_row(p[3], a + OFFSET(p + 8), p[11], b + OFFSET(p + 12), p[15], out, p[7]); out += p[7]);
            p += 16;
            break;
        case UNARY: /* out, a, kind, n, parameter (a constant) */
            a = at(m, p[1]);
            if (p[2] == SIGMOID)
                sigmoid(a, out, p[3]);
            else if (p[2] == RELU)
                for (long i = 0; i < p[3]; i++) out[i] = a[i] > 0 ? a[i] : 0;
            else
                for (long i = 0; i < p[3]; i++) out[i] = unary(p[2], a[i], *at(m, p[4]));
            p += 5;
            break;
        case LINEAR: /* out, weights [1 + width, line], x [rows, width], rows, n, line, width, room for `line` sums and `width` numbers */
            for (long r = 0; r < p[3]; r++) {
                linear(at(m, p[1]), at(m, p[2]) + r * p[6], m->floats + p[7], (int *)(m->floats + p[7] + p[5]), p[5], p[6]);
                memcpy(out + r * p[4], m->floats + p[7], p[4] * 4);
            }
            p += 8;
            break;
        case PRODUCT: /* out, a [batch, rows, k], b [batch, k, n], batch, rows, k, n */
            a = at(m, p[1]), b = at(m, p[2]);
            memset(out, 0, p[3] * p[4] * p[6] * 4);
            for (long z = 0; z < p[3]; z++)
                for (long r = 0; r < p[4]; r++)
                    for (long k = 0; k < p[5]; k++) {
                        float x = a[(z * p[4] + r) * p[5] + k], *to = out + (z * p[4] + r) * p[6];
                        const float *row = b + (z * p[5] + k) * p[6];
                        for (long j = 0; j < p[6]; j++) to[j] += x * row[j];
                    }
            p += 7;
            break;
        case GATHER: /* out, table, rows (ints), how many, width, rows of the table */
            a = at(m, p[1]);
            for (long i = 0; i < p[3]; i++) {
                int64_t row = m->ints[p[2] + i];
                if (row < 0 || row >= p[5]) {
                    m->lost = row;
                    return -1;
                }
                memcpy(out + i * p[4], a + row * p[4], p[4] * 4);
            }
            p += 6;
            break;
        case COPY: /* out, a, shape, strides of out, strides of a */
            a = at(m, p[1]);
            WALK(p + 2, float *to = out + OFFSET(p + 6); const float *from = a + OFFSET(p + 10); const long d = p[9]; const long s = p[13];
                 for (long i = 0; i < p[5]; i++) to[i * d] = from[i * s]);
            p += 14;
            break;
        case FILL: /* out, a (one number), n */
            for (long i = 0; i < p[2]; i++) out[i] = *at(m, p[1]);
            p += 3;
            break;
        case REDUCE: /* out, a, kind, outer, n, inner */
            a = at(m, p[1]);
            for (long o = 0; o < p[3]; o++)
                for (long i = 0; i < p[5]; i++) out[o * p[5] + i] = reduced(p[2], a + o * p[4] * p[5] + i, p[4], p[5]);
            p += 6;
            break;
        case SOFTMAX: /* out, a, outer, n, inner */
            a = at(m, p[1]);
            for (long o = 0; o < p[2]; o++)
                for (long i = 0; i < p[4]; i++) softmax(a + o * p[3] * p[4] + i, out + o * p[3] * p[4] + i, p[3], p[4]);
            p += 5;
            break;
        case NORMALISE: /* out, a, gamma, beta, eps (constants), rows, n */
            for (long r = 0; r < p[5]; r++) normalise(at(m, p[1]) + r * p[6], at(m, p[2]), at(m, p[3]), *at(m, p[4]), out + r * p[6], p[6]);
            p += 7;
            break;
        case SELECT: /* out, a, mask, value (a constant), shape, strides of a, strides of the mask */
            a = at(m, p[1]), b = at(m, p[2]);
            WALK(p + 4, for (long i = 0; i < p[7]; i++) out[i] = b[OFFSET(p + 12) + i * p[15]] != 0 ? *at(m, p[3]) : a[OFFSET(p + 8) + i * p[11]];
                 out += p[7]);
            p += 16;
            break;
        case INT_ADD: /* out, a, number, n: ints */
            for (long i = 0; i < p[3]; i++) m->ints[p[0] + i] = m->ints[p[1] + i] + p[2];
            p += 4;
            break;
        case INT_MUL: /* out, a, number, n: ints */
            for (long i = 0; i < p[3]; i++) m->ints[p[0] + i] = m->ints[p[1] + i] * p[2];
            p += 4;
            break;
        case INT_COPY: /* out, a, shape, strides of out, strides of a: ints */
            WALK(p + 2, for (long i = 0; i < p[5]; i++) m->ints[p[0] + OFFSET(p + 6) + i * p[9]] = m->ints[p[1] + OFFSET(p + 10) + i * p[13]]);
            p += 14;
            break;
        case INT_COMPARE: /* out (floats: 0 or 1), a (ints), number, equal, n */
            for (long i = 0; i < p[4]; i++) out[i] = (m->ints[p[1] + i] == p[2]) == p[3];
            p += 5;
            break;
        default: /* INT_FLOAT: out (floats), a (ints), n */
            for (long i = 0; i < p[2]; i++) out[i] = m->ints[p[1] + i];
            p += 3;
        }
    }
    return 0;
}

/* ---- the object */

typedef struct {
    PyObject_HEAD
    Py_buffer code, inputs, outputs;
    Py_ssize_t floats, ints, n_constants;
    Py_buffer *buffers;
    const float **constants;
} Player;

static void player_free(Player *self) {
    Py_buffer *own[] = {&self->code, &self->inputs, &self->outputs};
    for (int i = 0; i < 3; i++)
        if (own[i]->obj) PyBuffer_Release(own[i]);
    for (Py_ssize_t i = 0; i < self->n_constants; i++) PyBuffer_Release(self->buffers + i);
    free(self->buffers);
    free(self->constants);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static int player_init(Player *self, PyObject *args, PyObject *keywords) {
    PyObject *constants;
    if (self->code.obj) {
        PyErr_SetString(PyExc_TypeError, "a Player is made once");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "y*O!y*nny*", &self->code, &PyList_Type, &constants, &self->inputs, &self->floats, &self->ints, &self->outputs))
        return -1;
    Py_ssize_t n = PyList_GET_SIZE(constants);
    self->buffers = calloc(n + 1, sizeof *self->buffers);
    self->constants = calloc(n + 1, sizeof *self->constants);
    if (!self->buffers || !self->constants) {
        PyErr_NoMemory();
        return -1;
    }
    for (; self->n_constants < n; self->n_constants++) {
        Py_buffer *b = self->buffers + self->n_constants;
        if (PyObject_GetBuffer(PyList_GET_ITEM(constants, self->n_constants), b, PyBUF_C_CONTIGUOUS) < 0) return -1;
        self->constants[self->n_constants] = b->buf;
    }
    return 0;
}

/* Columns into their places. Returns 0, or -1 with an exception set. */
static int take(const Player *self, PyObject *columns, Memory *m) {
    const int64_t *spec = self->inputs.buf;
    Py_ssize_t n = self->inputs.len / 24;
    if (!PyTuple_Check(columns) || PyTuple_GET_SIZE(columns) != n) {
        PyErr_Format(PyExc_ValueError, "columns must be a tuple of %zd", n);
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++, spec += 3) {
        Py_buffer b;
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(columns, i), &b, PyBUF_C_CONTIGUOUS) < 0) return -1;
        int fits = b.len == spec[1] * 4;
        if (fits && spec[0]) memcpy(m->floats + spec[2], b.buf, b.len);
        if (fits && !spec[0])
            for (long k = 0; k < spec[1]; k++) m->ints[spec[2] + k] = ((const int32_t *)b.buf)[k];
        PyBuffer_Release(&b);
        if (!fits) {
            PyErr_Format(PyExc_ValueError, "column %zd must hold %lld numbers of 4 bytes, got %zd bytes", i, (long long)spec[1], b.len);
            return -1;
        }
    }
    return 0;
}

static PyObject *player_play(Player *self, PyObject *const *args, Py_ssize_t n_args) {
    Py_buffer out = {0};
    Memory m = {0};
    PyObject *answer = NULL;
    int bad = 0;
    char *memory = NULL;
    if (n_args != 2) return PyErr_Format(PyExc_TypeError, "play takes columns and out; got %zd arguments", n_args);
    if (PyObject_GetBuffer(args[1], &out, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0) return NULL;
    const int64_t *part = self->outputs.buf;
    Py_ssize_t n_parts = self->outputs.len / 16, wanted = 0;
    for (Py_ssize_t i = 0; i < n_parts; i++) wanted += part[2 * i + 1] * 4;
    if (out.len != wanted) {
        PyErr_Format(PyExc_ValueError, "out must hold %zd bytes, got %zd", wanted, out.len);
        goto done;
    }
    memory = calloc(1, self->floats * 4 + self->ints * 8 + 128);
    if (!memory) {
        PyErr_NoMemory();
        goto done;
    }
    m.floats = (float *)(((uintptr_t)memory + 63) / 64 * 64);
    m.ints = (int64_t *)(m.floats + (self->floats + 15) / 16 * 16);
    m.constants = self->constants;
    if (take(self, args[0], &m) < 0) goto done;
    const int64_t *code = self->code.buf;
    Py_BEGIN_ALLOW_THREADS
    bad = run(code, code + self->code.len / 8, &m);
    char *to = out.buf;
    for (Py_ssize_t i = 0; !bad && i < n_parts; i++) {
        memcpy(to, at(&m, part[2 * i]), part[2 * i + 1] * 4);
        to += part[2 * i + 1] * 4;
    }
    Py_END_ALLOW_THREADS
    if (bad)
        PyErr_Format(PyExc_IndexError, "an embedding has no row %lld", (long long)m.lost);
    else
        answer = Py_NewRef(Py_None);
done:
    free(memory);
    PyBuffer_Release(&out);
    return answer;
}

static PyMethodDef player_methods[] = {
    {"play", (PyCFunction)(void (*)(void))player_play, METH_FASTCALL, "play(columns, out)"},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject player_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "prerank.serving._player.Player",
    .tp_doc = "A recorded tower; see the file's first lines.",
    .tp_basicsize = sizeof(Player),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)player_init,
    .tp_dealloc = (destructor)player_free,
    .tp_methods = player_methods,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_player", "A recorded user tower, played; see the file's first lines.", -1, NULL};

PyMODINIT_FUNC PyInit__player(void) {
    choose();
    if (PyType_Ready(&player_type) < 0) return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddObjectRef(made, "Player", (PyObject *)&player_type) < 0) Py_CLEAR(made);
    return made;
}
