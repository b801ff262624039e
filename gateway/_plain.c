/* The two steps of nearly every frame, in one pass each: taking a camera's message out of its socket's bytes, and making
 * the message for its viewers. What is not plain is not judged here but left to gateway.intake and gateway.wire, which
 * do the same and more in Python, and are used where this module was not built.
 *
 * Bytes come from strangers: every read below stays within [data, data + count), every write within what was allocated.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { TEXT_FRAME = 0x81, MASKED = 0x80, SHORT_MAX = 125, MOST_DIGITS = 15, MOST_ROOM = 4096 };

static const char TIMESTAMP[] = "\",\"timestamp\":";

/* Where the loader can choose: a version with the vectors of newer processors beside the one that runs everywhere. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* Unmask (RFC 6455 section 5.3). Eight bytes at a time; the compiler makes vectors of it. */
WIDE static void unmask(unsigned char *out, const unsigned char *in, Py_ssize_t size, const unsigned char *key)
{
    unsigned char keys[8];
    memcpy(keys, key, 4);
    memcpy(keys + 4, key, 4);
    uint64_t wide;
    memcpy(&wide, keys, 8);
    Py_ssize_t at = 0;
    for (; at + 8 <= size; at += 8) {
        uint64_t word;
        memcpy(&word, in + at, 8);
        word ^= wide;
        memcpy(out + at, &word, 8);
    }
    for (; at < size; at++)
        out[at] = in[at] ^ key[at & 3];
}

/* Whether all bytes may stand in a JSON string as they are: ASCII, no control character, no quote, no backslash. */
WIDE static int plain_text(const unsigned char *text, Py_ssize_t size)
{
    unsigned char odd = 0;
    for (Py_ssize_t at = 0; at < size; at++) {
        signed char byte = (signed char)text[at]; /* what is not ASCII is negative */
        odd |= (unsigned char)((byte < 0x20) | (byte == '"') | (byte == '\\'));
    }
    return !odd;
}

PyDoc_STRVAR(take_doc,
    "take(data, count, max_bytes, head, room)\n--\n\n"
    "The first `count` bytes of `data` as one whole masked text frame whose message is\n"
    "``head + text + '\",\"timestamp\":' + digits + '}'``. Returns (held, begin, end, timestamp): the message, with `room`\n"
    "bytes free before it, and where its text is in it; or None when they are anything else.");

static PyObject *take(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 5 || !PyBytes_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "take(data, count, max_bytes, head: bytes, room)");
        return NULL;
    }
    Py_ssize_t count = PyLong_AsSsize_t(args[1]), max_bytes = PyLong_AsSsize_t(args[2]);
    Py_ssize_t room = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred())
        return NULL;
    if (room < 0 || room > MOST_ROOM) {
        PyErr_SetString(PyExc_ValueError, "room is not within 0 and 4096");
        return NULL;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *held = NULL, *found = NULL;
    const unsigned char *data = view.buf;
    const char *head = PyBytes_AS_STRING(args[3]);
    Py_ssize_t head_size = PyBytes_GET_SIZE(args[3]);
    const Py_ssize_t tail_size = sizeof TIMESTAMP - 1;
    if (count < 14 || count > view.len || data[0] != TEXT_FRAME || !(data[1] & MASKED))
        goto out;
    uint64_t size = data[1] & 0x7f;
    Py_ssize_t at = 2;
    if (size == 126) {
        size = (uint64_t)data[2] << 8 | data[3];
        at = 4;
    } else if (size == 127) {
        size = 0;
        for (int byte = 2; byte < 10; byte++)
            size = size << 8 | data[byte];
        at = 10;
    }
    /* All of it and nothing else: no sum that could overflow. */
    if (size != (uint64_t)(count - at - 4) || (Py_ssize_t)size > max_bytes)
        goto out;
    Py_ssize_t length = (Py_ssize_t)size;
    if (length < head_size + tail_size + 2)
        goto out;
    const unsigned char *key = data + at, *body = data + at + 4;
    if ((body[length - 1] ^ key[(length - 1) & 3]) != '}')
        goto out;
    held = PyByteArray_FromStringAndSize(NULL, room + length);
    if (held == NULL)
        goto out;
    memset(PyByteArray_AS_STRING(held), 0, room);
    unsigned char *text = (unsigned char *)PyByteArray_AS_STRING(held) + room;
    unmask(text, body, length, key);
    if (memcmp(text, head, head_size) != 0)
        goto out;
    Py_ssize_t digits = length - 1;
    long long timestamp = 0;
    while (digits > head_size && text[digits - 1] >= '0' && text[digits - 1] <= '9' && length - digits <= MOST_DIGITS)
        digits--;
    Py_ssize_t many = length - 1 - digits, end = digits - tail_size;
    if (many < 1 || (many > 1 && text[digits] == '0') || end < head_size || memcmp(text + end, TIMESTAMP, tail_size) != 0)
        goto out;
    if (!plain_text(text + head_size, end - head_size))
        goto out;
    for (Py_ssize_t digit = digits; digit < length - 1; digit++)
        timestamp = timestamp * 10 + (text[digit] - '0');
    found = Py_BuildValue("(OnnL)", held, room + head_size, room + end, timestamp);
out:
    PyBuffer_Release(&view);
    Py_XDECREF(held);
    if (found == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return found;
}

static Py_ssize_t put_number(char *out, unsigned long long number)
{
    char digits[20];
    Py_ssize_t size = 0;
    do {
        digits[size++] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    for (Py_ssize_t at = 0; at < size; at++)
        out[at] = digits[size - 1 - at];
    return size;
}

PyDoc_STRVAR(message_doc,
    "message(head, frame_id, timestamp, text, begin, end)\n--\n\n"
    "A WebSocket text frame, unmasked: head, frame_id, ',\"timestamp\":', timestamp, ',\"data\":\"', text[begin:end], '\"}'.\n"
    "Of a bytearray, as `take` gives one, it is made in place when there is room, and a part of it: the text stays where\n"
    "it is, what stood around it does not.");

static PyObject *message(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    static const char MIDDLE[] = ",\"timestamp\":", DATA[] = ",\"data\":\"", TAIL[] = "\"}";
    const Py_ssize_t tail_size = sizeof TAIL - 1;
    if (nargs != 6 || !PyBytes_Check(args[0]) || !(PyBytes_Check(args[3]) || PyByteArray_Check(args[3]))) {
        PyErr_SetString(PyExc_TypeError, "message(head: bytes, frame_id, timestamp, text: bytes or bytearray, begin, end)");
        return NULL;
    }
    unsigned long long frame_id = PyLong_AsUnsignedLongLong(args[1]);
    unsigned long long timestamp = PyLong_AsUnsignedLongLong(args[2]);
    Py_ssize_t begin = PyLong_AsSsize_t(args[4]), end = PyLong_AsSsize_t(args[5]);
    if (PyErr_Occurred())
        return NULL;
    int in_bytes = PyBytes_Check(args[3]);
    char *text = in_bytes ? PyBytes_AS_STRING(args[3]) : PyByteArray_AS_STRING(args[3]);
    Py_ssize_t whole = in_bytes ? PyBytes_GET_SIZE(args[3]) : PyByteArray_GET_SIZE(args[3]);
    if (begin < 0 || end < begin || end > whole) {
        PyErr_SetString(PyExc_ValueError, "begin and end are not within text");
        return NULL;
    }
    char numbers[64];
    Py_ssize_t used = put_number(numbers, frame_id);
    memcpy(numbers + used, MIDDLE, sizeof MIDDLE - 1);
    used += sizeof MIDDLE - 1;
    used += put_number(numbers + used, timestamp);
    memcpy(numbers + used, DATA, sizeof DATA - 1);
    used += sizeof DATA - 1;

    Py_ssize_t head_size = PyBytes_GET_SIZE(args[0]), text_size = end - begin;
    Py_ssize_t size = head_size + used + text_size + tail_size;
    Py_ssize_t start = size <= SHORT_MAX ? 2 : size < 65536 ? 4 : 10;
    Py_ssize_t before = start + head_size + used;
    int in_place = !in_bytes && before <= begin && tail_size <= whole - end;
    PyObject *made = NULL;
    unsigned char *out;
    if (in_place) {
        out = (unsigned char *)text + begin - before;
    } else {
        made = PyBytes_FromStringAndSize(NULL, start + size);
        if (made == NULL)
            return NULL;
        out = (unsigned char *)PyBytes_AS_STRING(made);
    }
    out[0] = TEXT_FRAME;
    if (start == 2) {
        out[1] = (unsigned char)size;
    } else {
        int bytes = start == 4 ? 2 : 8;
        out[1] = start == 4 ? 126 : 127;
        for (int byte = 0; byte < bytes; byte++)
            out[2 + byte] = (unsigned char)((uint64_t)size >> (8 * (bytes - 1 - byte)));
    }
    memcpy(out + start, PyBytes_AS_STRING(args[0]), head_size);
    memcpy(out + start + head_size, numbers, used);
    if (!in_place)
        memcpy(out + before, text + begin, text_size);
    memcpy(out + before + text_size, TAIL, tail_size);
    if (!in_place)
        return made;
    PyObject *all = PyMemoryView_FromObject(args[3]);
    if (all == NULL)
        return NULL;
    made = PySequence_GetSlice(all, begin - before, end + tail_size);
    Py_DECREF(all);
    return made;
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, take_doc},
    {"message", (PyCFunction)(void (*)(void))message, METH_FASTCALL, message_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_plain", "Plain frames, in and out (gateway/_plain.c).", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__plain(void)
{
    return PyModule_Create(&definition);
}
