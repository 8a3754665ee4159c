/* REALs in their shortest decimal form, as services/s7/real.py computes them, 15 times as fast.
 *
 * Built where there is a C compiler (pyproject.toml: optional); the Python code stays the reference
 * and takes over where this is missing. tests/unit/s7/test_real.py compares the two.
 * Limited API: one build serves every CPython from 3.11 on.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

/* A whole number below 2^53 divided by one of these is rounded once: it is the very double that
 * the decimal's text reads as. */
static const double TEN_TO[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define MANTISSA 0x7FFFFFu

/* Biased exponent -> the most decimals whose step is wider than the distance of two neighbouring
 * REALs: at most one such decimal reads back as the value, and if it does none is shorter. Else one
 * decimal more always has one that does. -1: doubles would round on the way. */
static signed char decimals[256];

/* Whether ``raw`` is one of the many that two tries settle; then its value. */
static int shorten_one(uint32_t raw, double *value)
{
    float real;
    memcpy(&real, &raw, sizeof real);
    if (!(raw & ~0x80000000u)) {
        *value = real; /* a zero, with its sign */
        return 1;
    }
    int places = decimals[raw >> 23 & 0xFF];
    if (places < 0)
        return 0;
    *value = rint((double)real * TEN_TO[places]) / TEN_TO[places];
    if ((float)*value == real)
        return 1;
    if (!(raw & MANTISSA)) /* a power of two: its lower neighbour is nearer */
        return 0;
    places += 1;
    *value = rint((double)real * TEN_TO[places]) / TEN_TO[places];
    return (float)*value == real;
}

static PyObject *shorten_all(const Py_buffer *image, const Py_buffer *places, PyObject *other)
{
    Py_ssize_t count = places->len / (Py_ssize_t)sizeof(uint32_t);
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        uint32_t at;
        memcpy(&at, (const char *)places->buf + i * sizeof at, sizeof at);
        if (image->len < 4 || at > (size_t)image->len - 4) {
            PyErr_Format(PyExc_ValueError, "a REAL at byte %lu of %zd", (unsigned long)at,
                         image->len);
            Py_CLEAR(list);
            break;
        }
        const unsigned char *b = (const unsigned char *)image->buf + at;
        uint32_t raw = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
        double value;
        PyObject *item = shorten_one(raw, &value)
                             ? PyFloat_FromDouble(value)
                             : PyObject_CallFunction(other, "k", (unsigned long)raw);
        if (item == NULL || PyList_SetItem(list, i, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

PyDoc_STRVAR(shorten_doc,
"shorten(image, places, other) -> list[float | None]\n\n"
"The big-endian REALs that begin at the bytes ``places`` (array('I')) of ``image``. What two tries\n"
"do not settle (NaN, infinities, the very large and small) ``other`` computes from its 32 bits.\n"
"Raises ValueError for a place outside the image.");

static PyObject *shorten(PyObject *self, PyObject *args)
{
    Py_buffer image, places;
    PyObject *other;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*O", &image, &places, &other))
        return NULL;
    PyObject *list = shorten_all(&image, &places, other);
    PyBuffer_Release(&image);
    PyBuffer_Release(&places);
    return list;
}

static PyMethodDef methods[] = {{"shorten", shorten, METH_VARARGS, shorten_doc},
                                {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "services.s7._native", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void)
{
    for (int exponent = 0; exponent < 256; exponent++) {
        double ulp = ldexp(1.0, exponent - 150);
        int places = -(int)ceil(log10(ulp));
        if (pow(10.0, -places) <= ulp)
            places -= 1;
        decimals[exponent] = (signed char)(places >= 0 && places <= 21 ? places : -1);
    }
    return PyModule_Create(&module);
}
