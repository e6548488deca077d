/* What comes behind a linear layer in training, in two passes over memory each way: BatchNorm, ReLU and dropout as one.
 *
 *   forward(x, y, weight, bias, mean, var, inverse, rows, width, half, eps, dropped, key)
 *   backward(g, x, y, weight, mean, inverse, of_x, of_weight, of_bias, rows, width, half, dropped)
 *
 * All but the last numbers are addresses of contiguous memory: x, y, g and of_x [rows, width] of bfloat16 (half) or float32, the others
 * float32 [width]. normed.py is the only caller and checks what it gives. Apart they are eight passes, and a mask that has to be kept; here the
 * output is the mask: it is above zero exactly where a gradient goes through. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif
#define BLOCK 64 /* rows that are summed in float32 before they join a double */

INLINE float of_half(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* To the nearest, ties to even; a NaN stays one. */
INLINE uint16_t to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1)) >> 16;
    return (uint16_t)(x == x ? rounded : 0x7FC0u);
}

INLINE float load(const void *a, long i, int half) { return half ? of_half(((const uint16_t *)a)[i]) : ((const float *)a)[i]; }

INLINE void store(void *a, long i, float x, int half) {
    if (half)
        ((uint16_t *)a)[i] = to_half(x);
    else
        ((float *)a)[i] = x;
}

/* g where y is above zero, else 0; by bits, as a condition would keep the loop around it from being vectorised. */
INLINE float where(float y, float g) {
    uint32_t bits;
    memcpy(&bits, &g, 4);
    bits &= -(uint32_t)(y > 0);
    memcpy(&g, &bits, 4);
    return g;
}

/* 32 random bits of the i-th number of a call: Wellons' lowbias32, keyed twice. */
INLINE uint32_t bits_of(uint32_t i, uint32_t first, uint32_t second) {
    uint32_t h = i * 0x9E3779B9u + first;
    h = (h ^ h >> 16) * 0x7FEB352Du;
    h = (h ^ h >> 15 ^ second) * 0x846CA68Bu;
    return h ^ h >> 16;
}

INLINE void add_to(double *totals, float *sums, long width) {
    for (long j = 0; j < width; j++) totals[j] += sums[j], sums[j] = 0;
}

/* memory: 2 width doubles, then 4 width floats, zeros */
INLINE void forward(const void *x, void *restrict y, const float *weight, const float *bias, float *restrict mean, float *restrict var,
                    float *restrict inverse, long rows, long width, int half, float eps, uint32_t dropped, uint64_t key, double *memory) {
    double *total = memory, *squares = memory + width;
    float *restrict s = (float *)(memory + 2 * width), *restrict q = s + width, *restrict a = q + width, *restrict b = a + width;
    float scale = 65536.0f / (65536.0f - (float)dropped);
    long few = rows < BLOCK ? rows : BLOCK; /* sums are of distances from the mean of the first rows: nothing large cancels */
    for (long r = 0; r < few; r++)
        for (long j = 0; j < width; j++) b[j] += load(x, r * width + j, half) / (float)few;
    for (long r = 0; r < rows; r++) {
        const void *row = half ? (const void *)((const uint16_t *)x + r * width) : (const void *)((const float *)x + r * width);
        for (long j = 0; j < width; j++) {
            float d = load(row, j, half) - b[j];
            s[j] += d;
            q[j] += d * d;
        }
        if (r % BLOCK == BLOCK - 1 || r == rows - 1) add_to(total, s, width), add_to(squares, q, width);
    }
    for (long j = 0; j < width; j++) {
        double distance = total[j] / (double)rows, v = squares[j] / (double)rows - distance * distance;
        mean[j] = (float)(b[j] + distance);
        var[j] = v < 0 ? 0.0f : (float)v;
        inverse[j] = 1.0f / sqrtf(var[j] + eps);
        a[j] = weight[j] * inverse[j] * scale;
        b[j] = bias[j] * scale;
    }
    for (long r = 0; r < rows; r++) {
        const void *row = half ? (const void *)((const uint16_t *)x + r * width) : (const void *)((const float *)x + r * width);
        void *restrict out = half ? (void *)((uint16_t *)y + r * width) : (void *)((float *)y + r * width);
        uint32_t i = (uint32_t)(r * width), first = (uint32_t)key, second = (uint32_t)(key >> 32);
        if (dropped)
            for (long j = 0; j < width; j++) {
                float v = (load(row, j, half) - mean[j]) * a[j] + b[j];
                v = v < 0 ? 0 : v; /* a NaN goes on */
                store(out, j, bits_of(i + (uint32_t)j, first, second) >> 16 < dropped ? 0 : v, half);
            }
        else
            for (long j = 0; j < width; j++) {
                float v = (load(row, j, half) - mean[j]) * a[j] + b[j];
                store(out, j, v < 0 ? 0 : v, half);
            }
    }
}

/* memory as in forward */
INLINE void backward(const void *g, const void *x, const void *y, const float *weight, const float *mean, const float *inverse,
                     void *restrict of_x, float *restrict of_weight, float *restrict of_bias, long rows, long width, int half,
                     uint32_t dropped, double *memory) {
    double *of_b = memory, *of_w = memory + width;
    float *restrict s = (float *)(memory + 2 * width), *restrict q = s + width, *restrict a = q + width, *restrict b = a + width;
    float scale = 65536.0f / (65536.0f - (float)dropped);
    for (long r = 0; r < rows; r++) {
        long at = r * width;
        for (long j = 0; j < width; j++) {
            float d = where(load(y, at + j, half), load(g, at + j, half));
            s[j] += d;
            q[j] += d * (load(x, at + j, half) - mean[j]);
        }
        if (r % BLOCK == BLOCK - 1 || r == rows - 1) add_to(of_b, s, width), add_to(of_w, q, width);
    }
    for (long j = 0; j < width; j++) {
        of_bias[j] = (float)(of_b[j] * scale);
        of_weight[j] = (float)(of_w[j] * scale * inverse[j]);
        a[j] = weight[j] * inverse[j];
        b[j] = inverse[j] * of_weight[j] / (float)rows;
        s[j] = of_bias[j] / (float)rows;
    }
    for (long r = 0; r < rows; r++) {
        long at = r * width;
        for (long j = 0; j < width; j++) {
            float d = where(load(y, at + j, half), load(g, at + j, half)) * scale;
            store(of_x, at + j, a[j] * (d - s[j] - (load(x, at + j, half) - mean[j]) * b[j]), half);
        }
    }
}

#define FORWARD const void *x, void *y, const float *w, const float *b, float *m, float *v, float *i, long n, long k, float eps, uint32_t d, uint64_t key, double *memory
#define BACKWARD const void *g, const void *x, const void *y, const float *w, const float *m, const float *i, void *ox, float *ow, float *ob, long n, long k, uint32_t d, double *memory
CLONES static void forward_half(FORWARD) { forward(x, y, w, b, m, v, i, n, k, 1, eps, d, key, memory); }
CLONES static void forward_float(FORWARD) { forward(x, y, w, b, m, v, i, n, k, 0, eps, d, key, memory); }
CLONES static void backward_half(BACKWARD) { backward(g, x, y, w, m, i, ox, ow, ob, n, k, 1, d, memory); }
CLONES static void backward_float(BACKWARD) { backward(g, x, y, w, m, i, ox, ow, ob, n, k, 0, d, memory); }

#define ADDRESS(name) ((void *)(uintptr_t)(name))

static PyObject *py_forward(PyObject *self, PyObject *args) {
    unsigned long long x, y, weight, bias, mean, var, inverse, key;
    long rows, width;
    int half;
    unsigned dropped;
    float eps;
    if (!PyArg_ParseTuple(args, "KKKKKKKllpfIK", &x, &y, &weight, &bias, &mean, &var, &inverse, &rows, &width, &half, &eps, &dropped, &key))
        return NULL;
    double *memory = calloc((size_t)width * 4, sizeof(double));
    if (!memory) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS;
    (half ? forward_half : forward_float)(ADDRESS(x), ADDRESS(y), ADDRESS(weight), ADDRESS(bias), ADDRESS(mean), ADDRESS(var),
                                          ADDRESS(inverse), rows, width, eps, dropped, key, memory);
    Py_END_ALLOW_THREADS;
    free(memory);
    Py_RETURN_NONE;
}

static PyObject *py_backward(PyObject *self, PyObject *args) {
    unsigned long long g, x, y, weight, mean, inverse, of_x, of_weight, of_bias;
    long rows, width;
    int half;
    unsigned dropped;
    if (!PyArg_ParseTuple(args, "KKKKKKKKKllpI", &g, &x, &y, &weight, &mean, &inverse, &of_x, &of_weight, &of_bias, &rows, &width, &half,
                          &dropped))
        return NULL;
    double *memory = calloc((size_t)width * 4, sizeof(double));
    if (!memory) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS;
    (half ? backward_half : backward_float)(ADDRESS(g), ADDRESS(x), ADDRESS(y), ADDRESS(weight), ADDRESS(mean), ADDRESS(inverse),
                                            ADDRESS(of_x), ADDRESS(of_weight), ADDRESS(of_bias), rows, width, dropped, memory);
    Py_END_ALLOW_THREADS;
    free(memory);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"forward", py_forward, METH_VARARGS, "See the file's first lines."},
                                {"backward", py_backward, METH_VARARGS, "See the file's first lines."},
                                {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_normed", "BatchNorm, ReLU and dropout as one.", -1, methods};
PyMODINIT_FUNC PyInit__normed(void) { return PyModule_Create(&module); }
