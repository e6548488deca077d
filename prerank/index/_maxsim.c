#define PY_SSIZE_T_CLEAN
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_maxsim", "MaxSim over gathered rows.", 0, NULL};
PyMODINIT_FUNC PyInit__maxsim(void) { return PyModuleDef_Init(&module); }
