/* What costs a reader most where every value is new: REALs in their shortest decimal form (as
 * services/s7/real.py computes them), and a record's bytes as the text of a JSON object.
 *
 * Built where there is a C compiler (pyproject.toml: optional); the Python code stays the reference
 * and takes over where this is missing. tests/unit/s7/test_real.py and test_encode.py compare them.
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

/* ``raw`` as number / 10^places, where two tries settle it; places, or -1 where they do not. */
static int shorten_one(uint32_t raw, double *number)
{
    float real;
    memcpy(&real, &raw, sizeof real);
    if (!(raw & ~0x80000000u)) {
        *number = real; /* a zero, with its sign */
        return 0;
    }
    if (fabsf(real) >= 8388608.0f && fabsf(real) <= 9007199254740992.0f) {
        *number = real; /* a whole number, which a double holds: 2^23 to 2^53 */
        return 0;
    }
    int places = decimals[raw >> 23 & 0xFF];
    if (places < 0)
        return -1;
    *number = rint((double)real * TEN_TO[places]);
    if ((float)(*number / TEN_TO[places]) == real)
        return places;
    if (!(raw & MANTISSA)) /* a power of two: its lower neighbour is nearer */
        return -1;
    places += 1;
    *number = rint((double)real * TEN_TO[places]);
    return (float)(*number / TEN_TO[places]) == real ? places : -1;
}

static uint64_t big_endian(const unsigned char *at, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++)
        value = value << 8 | at[i];
    return value;
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
        uint32_t raw = (uint32_t)big_endian((const unsigned char *)image->buf + at, 4);
        double number;
        int decimals_of_it = shorten_one(raw, &number);
        PyObject *item = decimals_of_it >= 0
                             ? PyFloat_FromDouble(number / TEN_TO[decimals_of_it])
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

/* One member of the object; services/s7/encode.py packs them. */
struct member {
    uint32_t at;       /* first byte in the image; of a piece its number */
    uint32_t name_end; /* where its `"name":` ends in the names */
    uint8_t kind;      /* struct's code of its type, '?' a BOOL, 'p' a piece */
    uint8_t bit;
    uint8_t size; /* bytes in the image */
    uint8_t unused;
};
/* The longest number is a 64-bit one between quotation marks; a comma before its name. */
#define NUMBER_BYTES 24

static char *put_digits(char *out, uint64_t value)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + value % 10);
    while (value /= 10);
    while (count)
        *out++ = digits[--count];
    return out;
}

static char *put_integer(char *out, int negative, uint64_t magnitude)
{
    /* Beyond 2^53 as text: to most readers of JSON a number is a double. */
    int quoted = magnitude > (1ull << 53);
    if (quoted)
        *out++ = '"';
    if (negative)
        *out++ = '-';
    out = put_digits(out, magnitude);
    if (quoted)
        *out++ = '"';
    return out;
}

/* number / 10^places in plain digits with a point; NULL where JSON libraries write an exponent. */
static char *put_real(char *out, double number, int places)
{
    if (signbit(number))
        *out++ = '-';
    uint64_t digits = (uint64_t)fabs(number);
    if (digits == 0) {
        memcpy(out, "0.0", 3);
        return out + 3;
    }
    if (fabs(number) < 1e-3 * TEN_TO[places])
        return NULL;
    while (places > 1 && digits % 10 == 0) {
        digits /= 10;
        places -= 1;
    }
    if (places == 0) { /* a whole number up to 2^53 */
        out = put_digits(out, digits);
        memcpy(out, ".0", 2);
        return out + 2;
    }
    uint64_t unit = (uint64_t)TEN_TO[places], rest = digits % unit;
    out = put_digits(out, digits / unit);
    *out++ = '.';
    for (int i = places - 1; i >= 0; i--) {
        out[i] = (char)('0' + rest % 10);
        rest /= 10;
    }
    return out + places;
}

/* The member's value; NULL with no exception set where ``other`` must write it. */
static char *put_number(char *out, const struct member *m, const unsigned char *at)
{
    uint64_t raw = big_endian(at, m->size);
    switch (m->kind) {
    case '?': {
        const char *word = raw >> m->bit & 1 ? "true" : "false";
        size_t size = strlen(word);
        memcpy(out, word, size);
        return out + size;
    }
    case 'f': {
        double number;
        int places = shorten_one((uint32_t)raw, &number);
        return places < 0 ? NULL : put_real(out, number, places);
    }
    case 'b':
    case 'h':
    case 'i':
    case 'q': {
        int unused_bits = 64 - 8 * m->size;
        int64_t value = (int64_t)(raw << unused_bits) >> unused_bits;
        return put_integer(out, value < 0, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    }
    default:
        return put_integer(out, 0, raw);
    }
}

struct encoding {
    Py_buffer image, members, names;
    PyObject *pieces, *other, *bad;
    char *text;
};

/* Where the text ends; NULL with an exception set. */
static char *put_members(const struct encoding *e)
{
    const char *names = e->names.buf;
    char *out = e->text;
    uint32_t name_at = 0;
    *out++ = '{';
    for (Py_ssize_t i = 0; i < e->members.len / (Py_ssize_t)sizeof(struct member); i++) {
        struct member m;
        memcpy(&m, (const char *)e->members.buf + i * sizeof m, sizeof m);
        char *before = out;
        if (out[-1] != '{')
            *out++ = ',';
        memcpy(out, names + name_at, m.name_end - name_at);
        out += m.name_end - name_at;
        name_at = m.name_end;
        char *end = NULL;
        PyObject *piece = NULL;
        if (m.kind == 'p') {
            piece = PyList_GetItem(e->pieces, (Py_ssize_t)m.at); /* borrowed */
            if (piece == NULL)
                return NULL;
            Py_INCREF(piece);
        } else {
            const unsigned char *at = (const unsigned char *)e->image.buf + m.at;
            end = put_number(out, &m, at);
            if (end == NULL) {
                unsigned long raw = (unsigned long)big_endian(at, 4);
                piece = PyObject_CallFunction(e->other, "k", raw);
                if (piece == NULL)
                    return NULL;
            }
        }
        if (piece == Py_None) { /* no value */
            PyObject *number = PyLong_FromSsize_t(i);
            int failed = number == NULL || PyList_Append(e->bad, number) < 0;
            Py_XDECREF(number);
            Py_DECREF(piece);
            if (failed)
                return NULL;
            out = before;
        } else if (piece != NULL) {
            char *bytes;
            Py_ssize_t size;
            int failed = PyBytes_AsStringAndSize(piece, &bytes, &size) < 0;
            if (!failed && m.kind != 'p' && size > NUMBER_BYTES) {
                PyErr_SetString(PyExc_ValueError, "a number of more than 24 bytes");
                failed = 1;
            }
            if (!failed) {
                memcpy(out, bytes, (size_t)size);
                out += size;
            }
            Py_DECREF(piece);
            if (failed)
                return NULL;
        } else {
            out = end;
        }
    }
    *out++ = '}';
    return out;
}

/* Room for everything, after a look at all that the caller says; -1 with an exception set. */
static Py_ssize_t room(const struct encoding *e)
{
    Py_ssize_t count = e->members.len / (Py_ssize_t)sizeof(struct member);
    Py_ssize_t size = e->names.len + count * (NUMBER_BYTES + 8) + 2;
    uint32_t name_at = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        struct member m;
        memcpy(&m, (const char *)e->members.buf + i * sizeof m, sizeof m);
        int inside = m.size >= 1 && m.size <= 8 && m.size <= e->image.len &&
                     m.at <= (size_t)(e->image.len - m.size) && (m.kind != 'f' || m.size == 4);
        if (m.name_end < name_at || m.name_end > (size_t)e->names.len ||
            (m.kind != 'p' && !inside)) {
            PyErr_Format(PyExc_ValueError, "member %zd lies outside the image", i);
            return -1;
        }
        name_at = m.name_end;
        if (m.kind == 'p') {
            PyObject *piece = PyList_GetItem(e->pieces, (Py_ssize_t)m.at); /* borrowed */
            Py_ssize_t length = piece == Py_None || piece == NULL ? 0 : PyBytes_Size(piece);
            if (piece == NULL || length < 0)
                return -1;
            size += length;
        }
    }
    return size;
}

PyDoc_STRVAR(encode_doc,
"encode(image, members, names, pieces, other) -> (bytes, list[int])\n\n"
"A JSON object of the members, and the numbers of those that hold no value and are left out.\n"
"``pieces``: bytes or None for the members of kind 'p'. What is no plain REAL ``other`` writes (at\n"
"most 24 bytes, or None) from its 32 bits. Raises ValueError for a member outside the image.");

static PyObject *encode(PyObject *self, PyObject *args)
{
    struct encoding e;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*O!O", &e.image, &e.members, &e.names, &PyList_Type,
                          &e.pieces, &e.other))
        return NULL;
    PyObject *result = NULL;
    e.text = NULL;
    e.bad = PyList_New(0);
    Py_ssize_t size = e.bad == NULL ? -1 : room(&e);
    if (size >= 0) {
        e.text = PyMem_Malloc((size_t)size);
        if (e.text == NULL)
            PyErr_NoMemory();
    }
    if (e.text != NULL) {
        char *end = put_members(&e);
        PyObject *text = end == NULL ? NULL : PyBytes_FromStringAndSize(e.text, end - e.text);
        if (text != NULL)
            result = PyTuple_Pack(2, text, e.bad);
        Py_XDECREF(text);
        PyMem_Free(e.text);
    }
    Py_XDECREF(e.bad);
    PyBuffer_Release(&e.image);
    PyBuffer_Release(&e.members);
    PyBuffer_Release(&e.names);
    return result;
}

static PyMethodDef methods[] = {{"shorten", shorten, METH_VARARGS, shorten_doc},
                                {"encode", encode, METH_VARARGS, encode_doc},
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
