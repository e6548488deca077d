/* Ids to rows: an open-addressing hash table [2^b, 2] of (id, row), row -1 where a slot is free; included by _maxsim.c. */

#define AHEAD 16 /* ids whose slots are fetched ahead while the table is filled */

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

