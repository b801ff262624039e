/* Reads and writes plain frames, which are nearly all, in one pass: the publisher's message is unmasked from the read
 * buffer directly into the message for its viewers. Anything else is not judged here but left to
 * gateway.client.frame_reader and gateway.wire, which do the same and more in Python, and are used where this module was
 * not built.
 *
 * The input is not trusted: every read stays within [data, data + count), every write within the allocated memory.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { TEXT_FRAME = 0x81, BINARY_FRAME = 0x82, MASKED = 0x80, SHORT_MAX = 125 };
/* Limits of a plain message; one that exceeds them is left to the parser in Python. MOST_ENDS: bytes before and after the
 * text of `data`. */
enum { MOST_ENDS = 4096, MOST_KEYS = 32, MOST_DEPTH = 16, MOST_NAME = 128, MOST_DIGITS = 15, MOST_PREFIX = 200 };
/* The binary form (docs/protocol.md): magic, version, kind, flags, frame id, timestamp, codec, length of the name. */
enum { BINARY_HEAD = 18, MAGIC = 0x57, VERSION = 1, VIDEO_FRAME = 1, LAST_CODEC = 3, TEXT = -1 };
/* A frame of the bus (docs/bus.md, "Frames"): the two forms that hold a finished message, and the size of the header before
 * the stream's name and of the places after it. LAST_VALUE: the last codec on the bus. */
enum { BUS_HEAD = 33, BUS_PLACES = 8, BUS_MAGIC = 0x46, BUS_VERSION = 1, TEXT_MESSAGE = 3, BINARY_MESSAGE = 4, LAST_VALUE = 6 };
#define MAX_TIMESTAMP ((UINT64_C(1) << 53) - 1)
#define MAX_FRAME_ID UINT64_C(0xffffffff)
/* `common.bus.messages.fields.MAX_TERM`. */
#define MAX_TERM ((UINT64_C(1) << 62) + (UINT64_C(1) << 56))

/* Version of the functions: raise it with their arguments or results, also in gateway/fastpath.py. */
enum { INTERFACE = 5 };

static const char SENT_TIMESTAMP[] = ",\"timestamp\":", SENT_DATA[] = ",\"data\":\"", SENT_TAIL[] = "\"}";
/* Bytes between the head and `more` of a viewer's message: two numbers and the name of one. */
enum { MOST_NUMBERS = 64 };

/* Where the loader can choose between versions of a function: one for AVX2 besides the one for all processors. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* Unmask (RFC 6455 section 5.3), eight bytes at a time; the compiler vectorizes it. */
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

/* Return whether a character belongs to the base64 alphabet (RFC 4648 section 4); padding does not. */
static inline unsigned char is_base64_character(unsigned char byte)
{
    unsigned char lower = byte | 0x20;
    return ((unsigned char)(lower - 'a') < 26) | ((unsigned char)(byte - '/') < 11) | (byte == '+');
}

/* Return whether every byte is a base64 character or a backslash. `*escaped`: whether there is a backslash. */
WIDE static int base64_alphabet(const unsigned char *text, Py_ssize_t size, int *escaped)
{
    unsigned char odd = 0, escapes = 0;
    for (Py_ssize_t at = 0; at < size; at++) {
        unsigned char escape = text[at] == '\\';
        odd |= (unsigned char)!(is_base64_character(text[at]) | escape);
        escapes |= escape;
    }
    *escaped = escapes;
    return !odd;
}

/* Return the number of backslashes if each is before a slash, else -1. Reads one byte more, which must not be a slash. */
WIDE static Py_ssize_t escaped_slashes(const unsigned char *text, Py_ssize_t size)
{
    Py_ssize_t count = 0;
    unsigned char other = 0;
    for (Py_ssize_t at = 0; at < size;) {
        Py_ssize_t stop = size - at < 128 ? size : at + 128;
        unsigned char many = 0; /* of one byte, so that the compiler vectorizes it */
        for (; at < stop; at++) {
            unsigned char escape = text[at] == '\\';
            other |= (unsigned char)(escape & (text[at + 1] != '/'));
            many += escape;
        }
        count += many;
    }
    return other ? -1 : count;
}

static int hex_value(unsigned char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* Return the bytes of the escape that `text` begins with, 0 if it is none that base64 has. `*stands_for`: its character. */
static Py_ssize_t base64_escape(const unsigned char *text, Py_ssize_t size, unsigned char *stands_for)
{
    *stands_for = 0;
    if (size < 2 || text[0] != '\\')
        return 0;
    if (text[1] == '/' || text[1] == 'n' || text[1] == 'r') {
        *stands_for = text[1] == '/' ? '/' : '\n';
        return 2;
    }
    if (text[1] != 'u' || size < 6 || text[2] != '0' || text[3] != '0' || hex_value(text[4]) < 0 || hex_value(text[5]) < 0)
        return 0;
    *stands_for = (unsigned char)(hex_value(text[4]) * 16 + hex_value(text[5]));
    return 6;
}

/* Return how many characters of base64 a text with escapes stands for, without padding; -1: it is not base64. Its
 * bytes are known to be of `base64_alphabet`.
 */
static Py_ssize_t escaped_characters(const unsigned char *text, Py_ssize_t size)
{
    Py_ssize_t slashes = escaped_slashes(text, size), characters = size;
    if (slashes >= 0)
        return size - slashes;
    const unsigned char *end = text + size, *at = text;
    while ((at = memchr(at, '\\', end - at)) != NULL) {
        unsigned char stands_for;
        Py_ssize_t bytes = base64_escape(at, end - at, &stands_for);
        int is_break = stands_for == '\n';
        if (bytes == 0 || (!is_break && !is_base64_character(stands_for)))
            return -1;
        characters -= bytes - !is_break;
        at += bytes;
    }
    return characters;
}

/* Return whether the text of a JSON string is base64 of at least one byte, with padding or without any. It may have
 * escapes: slashes, as many encoders write them, line breaks (RFC 2045 section 6.8), and \u00XX, as some write + and =.
 * The byte after the text is read, and must not be a slash.
 */
static int is_base64(const unsigned char *text, Py_ssize_t size)
{
    Py_ssize_t padding = 0;
    int escaped;
    while (size >= 2 && text[size - 2] == '\\' && (text[size - 1] == 'n' || text[size - 1] == 'r'))
        size -= 2;
    while (padding < 2) {
        unsigned char stands_for;
        if (size >= 1 && text[size - 1] == '=')
            size -= 1;
        else if (size >= 6 && base64_escape(text + size - 6, 6, &stands_for) == 6 && stands_for == '=')
            size -= 6;
        else
            break;
        padding++;
    }
    if (!base64_alphabet(text, size, &escaped))
        return 0;
    Py_ssize_t characters = escaped ? escaped_characters(text, size) : size;
    if (characters < 2)
        return 0;
    return padding ? (characters + padding) % 4 == 0 : characters % 4 != 1;
}

static int same_letters(const unsigned char *text, const char *lower, Py_ssize_t size)
{
    for (Py_ssize_t at = 0; at < size; at++)
        if ((text[at] | 0x20) != (unsigned char)lower[at])
            return 0;
    return 1;
}

/* Return the size of the prefix "data:...;base64," of a text; 0: there is none, -1: it begins like one but is not. The byte
 * after the text is read, and must not be a slash.
 */
static Py_ssize_t prefix_size(const unsigned char *text, Py_ssize_t size)
{
    if (size < 5 || !same_letters(text, "data", 4) || text[4] != ':')
        return 0;
    Py_ssize_t comma = 5;
    while (comma < size && comma < MOST_PREFIX && text[comma] != ',') {
        if (text[comma] < 0x20 || text[comma] > 0x7e || text[comma] == '"')
            return -1;
        if (text[comma] == '\\' && text[++comma] != '/') /* of image\/jpeg; the byte after the text is no slash */
            return -1;
        comma++;
    }
    if (comma >= size || comma >= MOST_PREFIX || comma < 5 + 7 || text[comma - 7] != ';'
        || !same_letters(text + comma - 6, "base", 4) || text[comma - 2] != '6' || text[comma - 1] != '4')
        return -1;
    return comma + 1;
}

/* JSON (RFC 8259) before and after the text of `data`. Each function below moves `at` past what its name says and returns
 * 1. It returns 0 when the bytes are not that, are incomplete at `end`, or need the parser in Python.
 */
typedef struct {
    const unsigned char *at, *end;
} Cursor;

static void skip_white(Cursor *in)
{
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r'))
        in->at++;
}

static int skip_byte(Cursor *in, unsigned char byte)
{
    if (in->at >= in->end || *in->at != byte)
        return 0;
    in->at++;
    return 1;
}

/* Skip one UTF-8 character beyond ASCII (RFC 3629). */
static int skip_wide(Cursor *in)
{
    const unsigned char *at = in->at;
    unsigned char first = *at, low = 0x80, high = 0xbf;
    int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || in->end - at <= more)
        return 0;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    if (at[1] < low || at[1] > high)
        return 0;
    for (int byte = 2; byte <= more; byte++)
        if ((at[byte] & 0xc0) != 0x80)
            return 0;
    in->at += 1 + more;
    return 1;
}

static int skip_escape(Cursor *in)
{
    if (in->end - in->at < 2)
        return 0;
    unsigned char kind = in->at[1];
    if (kind != 'u') {
        in->at += 2;
        return memchr("\"\\/bfnrt", kind, 8) != NULL;
    }
    if (in->end - in->at < 6)
        return 0;
    for (int byte = 2; byte < 6; byte++)
        if (hex_value(in->at[byte]) < 0)
            return 0;
    in->at += 6;
    return 1;
}

static int skip_string(Cursor *in, int *escapes)
{
    if (!skip_byte(in, '"'))
        return 0;
    while (in->at < in->end) {
        unsigned char byte = *in->at;
        if (byte == '"') {
            in->at++;
            return 1;
        }
        if (byte < 0x20)
            return 0;
        if (byte == '\\') {
            *escapes = 1;
            if (!skip_escape(in))
                return 0;
        } else if (byte < 0x80) {
            in->at++;
        } else if (!skip_wide(in)) {
            return 0;
        }
    }
    return 0;
}

static Py_ssize_t skip_digits(Cursor *in)
{
    const unsigned char *begin = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return in->at - begin;
}

static int skip_number(Cursor *in)
{
    skip_byte(in, '-');
    if (!skip_byte(in, '0') && skip_digits(in) == 0)
        return 0;
    if (skip_byte(in, '.') && skip_digits(in) == 0)
        return 0;
    if (skip_byte(in, 'e') || skip_byte(in, 'E')) {
        if (!skip_byte(in, '+'))
            skip_byte(in, '-');
        return skip_digits(in) > 0;
    }
    return 1;
}

static int skip_word(Cursor *in, const char *word, Py_ssize_t size)
{
    if (in->end - in->at < size || memcmp(in->at, word, size) != 0)
        return 0;
    in->at += size;
    return 1;
}

static int skip_value(Cursor *in, int depth)
{
    int escapes;
    if (in->at >= in->end || depth > MOST_DEPTH)
        return 0;
    unsigned char first = *in->at;
    if (first == '"')
        return skip_string(in, &escapes);
    if (first == 't')
        return skip_word(in, "true", 4);
    if (first == 'f')
        return skip_word(in, "false", 5);
    if (first == 'n')
        return skip_word(in, "null", 4);
    if (first != '[' && first != '{')
        return skip_number(in);
    unsigned char last = first + 2; /* ']' and '}' */
    in->at++;
    skip_white(in);
    if (skip_byte(in, last))
        return 1;
    do {
        skip_white(in);
        if (first == '{') {
            if (!skip_string(in, &escapes))
                return 0;
            skip_white(in);
            if (!skip_byte(in, ':'))
                return 0;
            skip_white(in);
        }
        if (!skip_value(in, depth + 1))
            return 0;
        skip_white(in);
    } while (skip_byte(in, ','));
    return skip_byte(in, last);
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

/* Return the size of the header of an unmasked WebSocket frame with this payload size. */
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

/* Return a viewer's text message with room for `size` bytes of text at offset `*text`; the caller writes the text. */
static PyObject *text_message(const char *head, Py_ssize_t head_size, uint64_t frame_id, uint64_t timestamp,
                              const char *more, Py_ssize_t more_size, Py_ssize_t size, Py_ssize_t *text)
{
    char numbers[MOST_NUMBERS];
    Py_ssize_t used = put_number(numbers, frame_id);
    memcpy(numbers + used, SENT_TIMESTAMP, sizeof SENT_TIMESTAMP - 1);
    used += sizeof SENT_TIMESTAMP - 1;
    used += put_number(numbers + used, timestamp);
    const Py_ssize_t tail_size = sizeof SENT_TAIL - 1, data_size = sizeof SENT_DATA - 1;
    Py_ssize_t length = head_size + used + more_size + data_size + size + tail_size, start = header_size(length);
    PyObject *made = PyBytes_FromStringAndSize(NULL, start + length);
    if (made == NULL)
        return NULL;
    unsigned char *out = (unsigned char *)PyBytes_AS_STRING(made);
    put_header(out, TEXT_FRAME, length);
    memcpy(out + start, head, head_size);
    unsigned char *at = out + start + head_size;
    memcpy(at, numbers, used);
    at += used;
    memcpy(at, more, more_size);
    at += more_size;
    memcpy(at, SENT_DATA, data_size);
    memcpy(out + start + length - tail_size, SENT_TAIL, tail_size);
    *text = at + data_size - out;
    return made;
}

/* One complete received message; `body` is still masked. */
typedef struct {
    const unsigned char *key, *body;
    Py_ssize_t size;
} Message;

/* The publisher's stream, and id and time for its next frame. */
typedef struct {
    const char *json_head, *name;
    Py_ssize_t json_head_size, name_size;
    uint64_t frame_id, now_ms;
} Stream;

/* The members of the received message besides `data`. `more`: those that are passed on, each with a comma before it. */
typedef struct {
    int has_type, has_stream, has_timestamp, has_frame_id, has_request, keys;
    uint64_t timestamp;
    Py_ssize_t more_size, key_at[MOST_KEYS], key_size[MOST_KEYS];
    char more[2 * MOST_ENDS];
} Envelope;

static int same_text(const unsigned char *text, Py_ssize_t size, const char *word, Py_ssize_t word_size)
{
    return size == word_size && memcmp(text, word, word_size) == 0;
}

/* Multiply a number of at most `digits` digits by ten so many times, up to `MOST_DIGITS` digits; 0: it has more then. */
static int scale(uint64_t *number, Py_ssize_t digits, Py_ssize_t times)
{
    if (digits + times > MOST_DIGITS)
        return 0;
    for (; times > 0; times--)
        *number *= 10;
    return 1;
}

/* Read a time in ms, or null, which is none. A fraction is dropped, but only if the floating point of the parser in Python
 * gives the same; after an exponent (1.729943200123e12) none may be left.
 */
static int read_timestamp(Cursor *in, Envelope *found)
{
    const unsigned char *begin = in->at;
    if (skip_word(in, "null", 4))
        return 1;
    Py_ssize_t digits = skip_digits(in), decimals = 0, exponent = 0;
    if (digits < 1 || digits > MOST_DIGITS || (digits > 1 && *begin == '0'))
        return 0;
    uint64_t time = 0, number = 0;
    for (Py_ssize_t at = 0; at < digits; at++)
        time = time * 10 + (uint64_t)(begin[at] - '0');
    const unsigned char *fraction = in->at + 1;
    if (skip_byte(in, '.') && (decimals = skip_digits(in)) < 1)
        return 0;
    if (skip_byte(in, 'e') || skip_byte(in, 'E')) {
        skip_byte(in, '+');
        const unsigned char *power = in->at;
        Py_ssize_t powers = skip_digits(in);
        if (powers < 1 || powers > 2)
            return 0;
        for (Py_ssize_t at = 0; at < powers; at++)
            exponent = exponent * 10 + (power[at] - '0');
        if (digits + decimals > MOST_DIGITS || exponent < decimals)
            return 0;
        number = time;
        for (Py_ssize_t at = 0; at < decimals; at++)
            number = number * 10 + (uint64_t)(fraction[at] - '0');
        if (!scale(&number, digits + decimals, exponent - decimals))
            return 0;
        time = number;
    } else if (decimals > 0 && (digits > 13 || (decimals >= 3 && memcmp(fraction, "999", 3) == 0))) {
        return 0;
    }
    found->timestamp = time;
    return in->at < in->end;
}

/* Append a member that the protocol does not name to `more`. */
static int pass_on(Envelope *found, const unsigned char *key, Py_ssize_t key_size, const unsigned char *value,
                   Py_ssize_t value_size)
{
    if (found->keys >= MOST_KEYS || found->more_size + key_size + value_size + 2 > (Py_ssize_t)sizeof found->more)
        return 0;
    for (int other = 0; other < found->keys; other++) /* a repeated key: the parser lets the last one count */
        if (same_text(key, key_size, found->more + found->key_at[other], found->key_size[other]))
            return 0;
    found->more[found->more_size++] = ',';
    found->key_at[found->keys] = found->more_size;
    found->key_size[found->keys++] = key_size;
    memcpy(found->more + found->more_size, key, key_size);
    found->more_size += key_size;
    found->more[found->more_size++] = ':';
    memcpy(found->more + found->more_size, value, value_size);
    found->more_size += value_size;
    return 1;
}

/* Read one member. For `data` only its key: `*is_data` is set, and `at` is at its value. */
static int read_member(Cursor *in, const Stream *stream, Envelope *found, int *is_data)
{
    int escapes = 0;
    const unsigned char *key = in->at;
    if (!skip_string(in, &escapes) || escapes)
        return 0;
    Py_ssize_t key_size = in->at - key;
    skip_white(in);
    if (!skip_byte(in, ':'))
        return 0;
    skip_white(in);
    const unsigned char *value = in->at;
    if (same_text(key, key_size, "\"data\"", 6)) {
        *is_data = 1;
        return 1;
    }
    if (same_text(key, key_size, "\"timestamp\"", 11))
        return !found->has_timestamp++ && read_timestamp(in, found);
    if (!skip_value(in, 0))
        return 0;
    Py_ssize_t size = in->at - value;
    if (same_text(key, key_size, "\"type\"", 6))
        return !found->has_type++ && same_text(value, size, "\"video-frame\"", 13);
    if (same_text(key, key_size, "\"streamId\"", 10))
        return !found->has_stream++
               && (same_text(value, size, "null", 4)
                   || (size == stream->name_size + 2 && value[0] == '"'
                       && memcmp(value + 1, stream->name, stream->name_size) == 0));
    if (same_text(key, key_size, "\"frameId\"", 9)) /* the server sets it */
        return !found->has_frame_id++;
    if (same_text(key, key_size, "\"requestId\"", 11)) /* it has to be checked, and stands in an error */
        return !found->has_request++ && same_text(value, size, "null", 4);
    return pass_on(found, key, key_size, value, size);
}

/* Read everything up to and including the first quote of `data`. */
static int read_head(Cursor *in, const Stream *stream, Envelope *found)
{
    int is_data = 0;
    skip_white(in);
    if (!skip_byte(in, '{'))
        return 0;
    do {
        skip_white(in);
        if (!read_member(in, stream, found, &is_data))
            return 0;
        if (is_data)
            return skip_byte(in, '"');
        skip_white(in);
    } while (skip_byte(in, ','));
    return 0;
}

/* Read everything after the last quote of `data`, to the end of the message. */
static int read_tail(Cursor *in, const Stream *stream, Envelope *found)
{
    int is_data = 0;
    skip_white(in);
    while (skip_byte(in, ',')) {
        skip_white(in);
        if (!read_member(in, stream, found, &is_data) || is_data)
            return 0;
        skip_white(in);
    }
    if (!skip_byte(in, '}'))
        return 0;
    skip_white(in);
    return in->at == in->end;
}

static void unmask_part(unsigned char *out, const Message *received, Py_ssize_t from, Py_ssize_t size)
{
    unsigned char key[4];
    for (int byte = 0; byte < 4; byte++)
        key[byte] = received->key[(from + byte) & 3];
    unmask(out, received->body + from, size, key);
}

static PyObject *take_text(const Message *received, const Stream *stream)
{
    unsigned char ends[MOST_ENDS];
    Envelope found;
    found.has_type = found.has_stream = found.has_timestamp = found.has_frame_id = found.has_request = found.keys = 0;
    found.timestamp = stream->now_ms;
    found.more_size = 0;

    Py_ssize_t size = received->size, part = size < MOST_ENDS ? size : MOST_ENDS;
    unmask_part(ends, received, 0, part);
    Cursor in = {ends, ends + part};
    if (!read_head(&in, stream, &found))
        return NULL;
    Py_ssize_t text_at = in.at - ends, from = size - MOST_ENDS < text_at ? text_at : size - MOST_ENDS;
    unmask_part(ends, received, from, size - from);
    /* The first quote ends the text, provided that the text is base64, which is checked below. */
    const unsigned char *quote = memchr(ends, '"', size - from);
    if (quote == NULL)
        return NULL;
    in.at = quote + 1;
    in.end = ends + (size - from);
    if (!read_tail(&in, stream, &found) || !found.has_type)
        return NULL;

    Py_ssize_t text_size = from + (quote - ends) - text_at, begin;
    PyObject *made = text_message(stream->json_head, stream->json_head_size, stream->frame_id, found.timestamp,
                                  found.more, found.more_size, text_size, &begin);
    if (made == NULL)
        return NULL;
    unsigned char *text = (unsigned char *)PyBytes_AS_STRING(made) + begin;
    unmask_part(text, received, text_at, text_size);
    Py_ssize_t prefix = prefix_size(text, text_size);
    PyObject *taken = NULL;
    if (prefix >= 0 && is_base64(text + prefix, text_size - prefix))
        taken = Py_BuildValue("(OnnKiny#)", made, begin, begin + text_size, (unsigned long long)found.timestamp, TEXT,
                              size, found.more, found.more_size);
    Py_DECREF(made);
    return taken;
}

static PyObject *take_binary(const Message *received, const Stream *stream)
{
    Py_ssize_t size = received->size;
    if (size <= BINARY_HEAD)
        return NULL;
    unsigned char head[BINARY_HEAD + MOST_NAME];
    unmask(head, received->body, size < (Py_ssize_t)sizeof head ? size : (Py_ssize_t)sizeof head, received->key);
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
        key[byte] = received->key[(skipped + byte) & 3];
    unmask(out + begin, received->body + skipped, picture_size, key);
    PyObject *found = Py_BuildValue("(OnnKiny#)", made, begin, start + length, (unsigned long long)timestamp, codec, size,
                                    "", (Py_ssize_t)0);
    Py_DECREF(made);
    return found;
}

/* Return whether the first `count` bytes are exactly one masked text or binary message of at most `max_bytes`. */
static int one_message(const unsigned char *data, Py_ssize_t count, Py_ssize_t max_bytes, Message *received)
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
    /* Compared with what is there, because a sum could overflow. */
    if (size != (uint64_t)(count - at - 4) || (Py_ssize_t)size > max_bytes)
        return 0;
    received->key = data + at;
    received->body = data + at + 4;
    received->size = (Py_ssize_t)size;
    return 1;
}

PyDoc_STRVAR(take_doc,
    "take(data, count, max_bytes, json_head, name, frame_id, now_ms)\n--\n\n"
    "Read the first `count` bytes of `data` as one complete masked message that is a plain frame: a JSON object of type\n"
    "\"video-frame\" whose data is base64, or the binary form, with this stream name or none.\n"
    "Returns (wire, begin, end, timestamp, codec, size, more): the message for viewers with `frame_id`, begin and end of\n"
    "the text or picture in it, its timestamp in ms, the codec or -1 for text, the size of the received message, and the\n"
    "members that the protocol does not name, each with a comma before it. None when the bytes are anything else.");

/* Read json_head, name, frame_id and now_ms. Returns 0 with an exception if they do not fit. */
static int read_stream(PyObject *const *args, Stream *stream)
{
    if (!PyBytes_Check(args[0]) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "json_head and name have to be bytes");
        return 0;
    }
    stream->json_head = PyBytes_AS_STRING(args[0]);
    stream->json_head_size = PyBytes_GET_SIZE(args[0]);
    stream->name = PyBytes_AS_STRING(args[1]);
    stream->name_size = PyBytes_GET_SIZE(args[1]);
    stream->frame_id = PyLong_AsUnsignedLongLong(args[2]);
    stream->now_ms = PyLong_AsUnsignedLongLong(args[3]);
    if (PyErr_Occurred())
        return 0;
    if (stream->name_size > MOST_NAME) {
        PyErr_SetString(PyExc_ValueError, "name is longer than 128 bytes");
        return 0;
    }
    return 1;
}

static PyObject *take(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 7) {
        PyErr_SetString(PyExc_TypeError, "take(data, count, max_bytes, json_head: bytes, name: bytes, frame_id, now_ms)");
        return NULL;
    }
    Py_ssize_t count = PyLong_AsSsize_t(args[1]), max_bytes = PyLong_AsSsize_t(args[2]);
    Stream stream;
    if (PyErr_Occurred() || !read_stream(args + 3, &stream))
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Message received;
    PyObject *found = NULL;
    if (stream.frame_id <= MAX_FRAME_ID && count <= view.len && one_message(view.buf, count, max_bytes, &received))
        found = *(unsigned char *)view.buf == TEXT_FRAME ? take_text(&received, &stream) : take_binary(&received, &stream);
    PyBuffer_Release(&view);
    if (found == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return found;
}

PyDoc_STRVAR(take_payload_doc,
    "take_payload(payload, json_head, name, frame_id, now_ms)\n--\n\n"
    "Do the same as `take` with the payload of a text message, which is not masked.");

static PyObject *take_payload(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    static const unsigned char no_key[4];
    if (nargs != 5) {
        PyErr_SetString(PyExc_TypeError, "take_payload(payload, json_head: bytes, name: bytes, frame_id, now_ms)");
        return NULL;
    }
    Stream stream;
    if (!read_stream(args + 1, &stream))
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Message received = {no_key, view.buf, view.len};
    PyObject *found = stream.frame_id <= MAX_FRAME_ID ? take_text(&received, &stream) : NULL;
    PyBuffer_Release(&view);
    if (found == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return found;
}

PyDoc_STRVAR(message_doc,
    "message(head, frame_id, timestamp, text, begin, end, more)\n--\n\n"
    "Return an unmasked WebSocket text frame: head, frame_id, ',\"timestamp\":', timestamp, more, ',\"data\":\"',\n"
    "text[begin:end], '\"}'.");

static PyObject *message(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 7 || !PyBytes_Check(args[0]) || !PyBytes_Check(args[3]) || !PyBytes_Check(args[6])) {
        PyErr_SetString(PyExc_TypeError,
                        "message(head: bytes, frame_id, timestamp, text: bytes, begin, end, more: bytes)");
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
    PyObject *made = text_message(PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0]), frame_id, timestamp,
                                  PyBytes_AS_STRING(args[6]), PyBytes_GET_SIZE(args[6]), end - begin, &at);
    if (made != NULL)
        memcpy(PyBytes_AS_STRING(made) + at, PyBytes_AS_STRING(args[3]) + begin, end - begin);
    return made;
}

PyDoc_STRVAR(remote_doc,
    "remote(data)\n--\n\n"
    "Read a frame of the bus that holds a finished WebSocket message and is for everybody. Returns (stream, frame_id,\n"
    "timestamp, term, message, begin, end, codec, more, known) as `Frame.of_message` takes them. None when the bytes are\n"
    "anything else.");

static PyObject *remote(PyObject *Py_UNUSED(module), PyObject *arg)
{
    static const unsigned char everybody[8];
    Py_buffer view;
    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    const unsigned char *data = view.buf, *name = data + BUS_HEAD, *message;
    PyObject *made, *found = NULL;
    if (view.len < BUS_HEAD + BUS_PLACES || data[0] != BUS_MAGIC || data[1] != BUS_VERSION
        || (data[2] != TEXT_MESSAGE && data[2] != BINARY_MESSAGE) || memcmp(data + 24, everybody, 8) != 0
        || big_endian(data + 16, 8) >= MAX_TERM)
        goto done;
    int is_text = data[2] == TEXT_MESSAGE, codec = data[3];
    Py_ssize_t name_size = data[32], size = view.len - BUS_HEAD - BUS_PLACES - name_size;
    if (codec > (is_text ? LAST_VALUE : LAST_CODEC) || name_size == 0 || size < 2)
        goto done;
    for (Py_ssize_t at = 0; at < name_size; at++)
        if (name[at] & 0x80)
            goto done;
    message = name + name_size + BUS_PLACES;
    Py_ssize_t begin = (Py_ssize_t)big_endian(message - 8, 4), more_size = (Py_ssize_t)big_endian(message - 4, 4);
    /* One whole message: one byte more or less, and a viewer would lose its connection. */
    Py_ssize_t start = message[1] == 127 ? 10 : message[1] == 126 ? 4 : 2;
    if (message[0] != (is_text ? TEXT_FRAME : BINARY_FRAME) || message[1] > 127 || size < start)
        goto done;
    uint64_t stated = start == 2 ? message[1] : big_endian(message + 2, (int)start - 2);
    if (stated != (uint64_t)(size - start))
        goto done;
    if (is_text) {
        if (begin > size - 3 || more_size > begin - start - 8 || memcmp(message + begin - 8, ",\"data\":\"", 9) != 0
            || memcmp(message + size - 2, SENT_TAIL, 2) != 0)
            goto done;
    } else if (begin <= start || begin >= size) {
        goto done;
    }
    made = PyBytes_FromStringAndSize((const char *)message, size);
    if (made != NULL)
        found = Py_BuildValue(
            "(s#IKKOnniy#i)", (const char *)name, name_size, (unsigned int)big_endian(data + 4, 4),
            (unsigned long long)big_endian(data + 8, 8), (unsigned long long)big_endian(data + 16, 8), made,
            begin + is_text, is_text ? size - 2 : size, is_text ? TEXT : codec,
            (const char *)message + (is_text ? begin - 8 - more_size : 0), is_text ? more_size : 0, is_text ? codec : -1);
    Py_XDECREF(made);
done:
    PyBuffer_Release(&view);
    if (found == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return found;
}

static PyMethodDef methods[] = {
    {"take", (PyCFunction)(void (*)(void))take, METH_FASTCALL, take_doc},
    {"take_payload", (PyCFunction)(void (*)(void))take_payload, METH_FASTCALL, take_payload_doc},
    {"message", (PyCFunction)(void (*)(void))message, METH_FASTCALL, message_doc},
    {"remote", remote, METH_O, remote_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_fastpath", "Reads and writes plain frames (gateway/_fastpath.c).", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__fastpath(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
