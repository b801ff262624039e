/* Nearly every frame in one pass: a camera's message is taken out of its socket's bytes and written, unmasked, to where
 * it stands in the message for its viewers. What is not plain is not judged here but left to gateway.intake and gateway.wire, which
 * do the same and more in Python, and are used where this module was not built.
 *
 * Bytes come from strangers: every read below stays within [data, data + count), every write within what was allocated.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { TEXT_FRAME = 0x81, BINARY_FRAME = 0x82, MASKED = 0x80, SHORT_MAX = 125 };
/* A camera's envelope and a stream's id are far shorter; what is longer is not plain. */
enum { MOST_HEAD = 512, MOST_NAME = 128, MOST_DIGITS = 15 };
/* The binary form (docs/protocol.md): magic, version, kind, flags, frame id, timestamp, codec, length of the name. */
enum { BINARY_HEAD = 18, MAGIC = 0x57, VERSION = 1, VIDEO_FRAME = 1, LAST_CODEC = 3, TEXT = -1 };
#define MAX_TIMESTAMP ((UINT64_C(1) << 53) - 1)
#define MAX_FRAME_ID UINT64_C(0xffffffff)

static const char TIMESTAMP[] = "\",\"timestamp\":";
static const char SENT_TIMESTAMP[] = ",\"timestamp\":", SENT_DATA[] = ",\"data\":\"", SENT_TAIL[] = "\"}";
/* What stands before the text in a viewer's message has at most so many bytes beside the head: two numbers, the names. */
enum { MOST_NUMBERS = 64 };

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

static Py_ssize_t put_number(char *out, uint64_t number)
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

static void put_big_endian(unsigned char *out, uint64_t number, int bytes)
{
    for (int byte = 0; byte < bytes; byte++)
        out[byte] = (unsigned char)(number >> (8 * (bytes - 1 - byte)));
}

static uint64_t big_endian(const unsigned char *in, int bytes)
{
    uint64_t number = 0;
    for (int byte = 0; byte < bytes; byte++)
        number = number << 8 | in[byte];
    return number;
}

/* How many bytes the header of an unmasked WebSocket frame has. */
static Py_ssize_t header_size(Py_ssize_t size)
{
    return size <= SHORT_MAX ? 2 : size < 65536 ? 4 : 10;
}

static void put_header(unsigned char *out, int first, Py_ssize_t size)
{
    out[0] = (unsigned char)first;
    if (size <= SHORT_MAX) {
        out[1] = (unsigned char)size;
    } else {
        out[1] = size < 65536 ? 126 : 127;
        put_big_endian(out + 2, (uint64_t)size, size < 65536 ? 2 : 8);
    }
}

/* A text message as viewers get it, with room for `size` bytes of text from `*text` on, which is not written here. */
static PyObject *text_message(const char *head, Py_ssize_t head_size, uint64_t frame_id, uint64_t timestamp,
                              Py_ssize_t size, Py_ssize_t *text)
{
    char numbers[MOST_NUMBERS];
    Py_ssize_t used = put_number(numbers, frame_id);
    memcpy(numbers + used, SENT_TIMESTAMP, sizeof SENT_TIMESTAMP - 1);
    used += sizeof SENT_TIMESTAMP - 1;
    used += put_number(numbers + used, timestamp);
    memcpy(numbers + used, SENT_DATA, sizeof SENT_DATA - 1);
    used += sizeof SENT_DATA - 1;
    const Py_ssize_t tail_size = sizeof SENT_TAIL - 1;
    Py_ssize_t length = head_size + used + size + tail_size, start = header_size(length);
    PyObject *made = PyBytes_FromStringAndSize(NULL, start + length);
    if (made == NULL)
        return NULL;
    unsigned char *out = (unsigned char *)PyBytes_AS_STRING(made);
    put_header(out, TEXT_FRAME, length);
    memcpy(out + start, head, head_size);
    memcpy(out + start + head_size, numbers, used);
    memcpy(out + start + length - tail_size, SENT_TAIL, tail_size);
    *text = start + head_size + used;
    return made;
}

/* What came: one whole masked message, `body` still masked. */
typedef struct {
    const unsigned char *key, *body;
    Py_ssize_t size;
} Message;

/* What is known of the camera's stream. */
typedef struct {
    const char *head, *json_head, *name;
    Py_ssize_t head_size, json_head_size, name_size;
    uint64_t frame_id, now_ms;
} Stream;

static PyObject *take_text(const Message *came, const Stream *stream)
{
    const Py_ssize_t names_size = sizeof TIMESTAMP - 1;
    Py_ssize_t size = came->size, head_size = stream->head_size;
    if (head_size == 0 || head_size > MOST_HEAD || size < head_size + names_size + 2)
        return NULL;
    unsigned char ends[MOST_HEAD];
    unmask(ends, came->body, head_size, came->key);
    if (memcmp(ends, stream->head, head_size) != 0)
        return NULL;

    /* The end, from a border of the mask on. */
    Py_ssize_t from = size - (names_size + MOST_DIGITS + 1) - 4;
    from = from < 0 ? 0 : from & ~(Py_ssize_t)3;
    unmask(ends, came->body + from, size - from, came->key);
    Py_ssize_t last = size - from - 1, digits = last;
    if (ends[last] != '}')
        return NULL;
    while (digits > 0 && last - digits < MOST_DIGITS && ends[digits - 1] >= '0' && ends[digits - 1] <= '9')
        digits--;
    Py_ssize_t many = last - digits, names = digits - names_size;
    if (many < 1 || (many > 1 && ends[digits] == '0') || names < 0 || from + names < head_size
        || memcmp(ends + names, TIMESTAMP, names_size) != 0)
        return NULL;
    uint64_t timestamp = 0;
    for (Py_ssize_t digit = digits; digit < last; digit++)
        timestamp = timestamp * 10 + (uint64_t)(ends[digit] - '0');

    Py_ssize_t text_size = from + names - head_size, begin;
    PyObject *made = text_message(stream->json_head, stream->json_head_size, stream->frame_id, timestamp, text_size, &begin);
    if (made == NULL)
        return NULL;
    unsigned char *text = (unsigned char *)PyBytes_AS_STRING(made) + begin, key[4];
    for (int byte = 0; byte < 4; byte++)
        key[byte] = came->key[(head_size + byte) & 3];
    unmask(text, came->body + head_size, text_size, key);
    PyObject *found = NULL;
    if (plain_text(text, text_size))
        found = Py_BuildValue("(OnnKin)", made, begin, begin + text_size, (unsigned long long)timestamp, TEXT, size);
    Py_DECREF(made);
    return found;
}

static PyObject *take_binary(const Message *came, const Stream *stream)
{
    Py_ssize_t size = came->size;
    if (size <= BINARY_HEAD)
        return NULL;
    unsigned char head[BINARY_HEAD + MOST_NAME];
    unmask(head, came->body, size < (Py_ssize_t)sizeof head ? size : (Py_ssize_t)sizeof head, came->key);
    uint64_t timestamp = big_endian(head + 8, 8);
    int codec = head[16];
    Py_ssize_t name_size = head[17], skipped = BINARY_HEAD + name_size;
    if (head[0] != MAGIC || head[1] != VERSION || head[2] != VIDEO_FRAME || head[3] != 0 || codec > LAST_CODEC
        || timestamp > MAX_TIMESTAMP || size <= skipped)
        return NULL;
    if (name_size != 0 && (name_size != stream->name_size || memcmp(head + BINARY_HEAD, stream->name, name_size) != 0))
        return NULL;
    if (timestamp == 0)
        timestamp = stream->now_ms;

    Py_ssize_t picture_size = size - skipped, length = BINARY_HEAD + stream->name_size + picture_size;
    Py_ssize_t start = header_size(length), begin = start + BINARY_HEAD + stream->name_size;
    PyObject *made = PyBytes_FromStringAndSize(NULL, start + length);
    if (made == NULL)
        return NULL;
    unsigned char *out = (unsigned char *)PyBytes_AS_STRING(made), key[4];
    put_header(out, BINARY_FRAME, length);
    memcpy(out + start, head, BINARY_HEAD);
    put_big_endian(out + start + 4, stream->frame_id, 4);
    put_big_endian(out + start + 8, timestamp, 8);
    out[start + 17] = (unsigned char)stream->name_size;
    memcpy(out + start + BINARY_HEAD, stream->name, stream->name_size);
    for (int byte = 0; byte < 4; byte++)
        key[byte] = came->key[(skipped + byte) & 3];
    unmask(out + begin, came->body + skipped, picture_size, key);
    PyObject *found = Py_BuildValue("(OnnKin)", made, begin, start + length, (unsigned long long)timestamp, codec, size);
    Py_DECREF(made);
    return found;
}

/* Whether the first `count` bytes of `data` are one whole masked text or binary message of no more than `max_bytes`. */
static int one_message(const unsigned char *data, Py_ssize_t count, Py_ssize_t max_bytes, Message *came)
{
    if (count < 2 + 4 || (data[0] != TEXT_FRAME && data[0] != BINARY_FRAME) || !(data[1] & MASKED))
        return 0;
    uint64_t size = data[1] & 0x7f;
    Py_ssize_t at = 2;
    if (size > SHORT_MAX) {
        at = size == 126 ? 4 : 10;
        if (count < at + 4)
            return 0;
        size = big_endian(data + 2, (int)at - 2);
    }
    /* All of it and nothing else: no sum that could overflow. */
    if (size != (uint64_t)(count - at - 4) || (Py_ssize_t)size > max_bytes)
        return 0;
    came->key = data + at;
    came->body = data + at + 4;
    came->size = (Py_ssize_t)size;
    return 1;
}

PyDoc_STRVAR(take_doc,
    "take(data, count, max_bytes, head, json_head, name, frame_id, now_ms)\n--\n\n"
    "The first `count` bytes of `data` as one whole masked message that is a plain frame: text which is\n"
    "``head + text + '\",\"timestamp\":' + digits + '}'``, or the binary form with this name or none.\n"
    "Returns (wire, begin, end, timestamp, codec, size): the message for its viewers under `frame_id`, where in it text\n"
    "or picture is, the codec or -1 for text, and the size of what came; None when the bytes are anything else.");

static PyObject *take(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 8 || !PyBytes_Check(args[3]) || !PyBytes_Check(args[4]) || !PyBytes_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError,
                        "take(data, count, max_bytes, head: bytes, json_head: bytes, name: bytes, frame_id, now_ms)");
        return NULL;
    }
    Py_ssize_t count = PyLong_AsSsize_t(args[1]), max_bytes = PyLong_AsSsize_t(args[2]);
    Stream stream = {
        PyBytes_AS_STRING(args[3]), PyBytes_AS_STRING(args[4]), PyBytes_AS_STRING(args[5]),
        PyBytes_GET_SIZE(args[3]), PyBytes_GET_SIZE(args[4]), PyBytes_GET_SIZE(args[5]),
        PyLong_AsUnsignedLongLong(args[6]), PyLong_AsUnsignedLongLong(args[7]),
    };
    if (PyErr_Occurred())
        return NULL;
    if (stream.name_size > MOST_NAME) {
        PyErr_SetString(PyExc_ValueError, "name is longer than 128 bytes");
        return NULL;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Message came;
    PyObject *found = NULL;
    if (stream.frame_id <= MAX_FRAME_ID && count <= view.len && one_message(view.buf, count, max_bytes, &came))
        found = *(unsigned char *)view.buf == TEXT_FRAME ? take_text(&came, &stream) : take_binary(&came, &stream);
    PyBuffer_Release(&view);
    if (found == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return found;
}

PyDoc_STRVAR(message_doc,
    "message(head, frame_id, timestamp, text, begin, end)\n--\n\n"
    "A WebSocket text frame, unmasked: head, frame_id, ',\"timestamp\":', timestamp, ',\"data\":\"', text[begin:end], '\"}'.");

static PyObject *message(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 6 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "message(head: bytes, frame_id, timestamp, text: bytes, begin, end)");
        return NULL;
    }
    uint64_t frame_id = PyLong_AsUnsignedLongLong(args[1]), timestamp = PyLong_AsUnsignedLongLong(args[2]);
    Py_ssize_t begin = PyLong_AsSsize_t(args[4]), end = PyLong_AsSsize_t(args[5]), at;
    if (PyErr_Occurred())
        return NULL;
    if (begin < 0 || end < begin || end > PyBytes_GET_SIZE(args[3])) {
        PyErr_SetString(PyExc_ValueError, "begin and end are not within text");
        return NULL;
    }
    PyObject *made =
        text_message(PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0]), frame_id, timestamp, end - begin, &at);
    if (made != NULL)
        memcpy(PyBytes_AS_STRING(made) + at, PyBytes_AS_STRING(args[3]) + begin, end - begin);
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
