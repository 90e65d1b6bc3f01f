/*
 * gguf - see gguf.h.
 *
 *   "GGUF" version  n_tensors n_keys │ key type value ... │ name dims type offset ... │ data
 *
 * The tensors' list says where each begins behind the header and how large it
 * is; the file must reach to the end of the last.  Counts and lengths come
 * from outside: each is held against the bytes that are left before it is used.
 */
#include "fleet/gguf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A header may hold a vocabulary of a million words, and nobody waits for more. */
#define HEADER_MAX (UINT64_C(256) << 20)

enum { READ_AHEAD = 1 << 16, DIMENSIONS_MAX = 8, KEY_MAX = 64, ALIGNMENT_DEFAULT = 32 };

/* Types of metadata values, and the bytes of those of fixed size. */
enum { VALUE_U32 = 4, VALUE_STRING = 8, VALUE_ARRAY = 9 };
static const uint8_t value_size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* Tensor types by number: elements of a block and its bytes. A type that is not
 * here is new to us; then only the place where it begins is checked. */
static const struct {
    uint16_t elements, bytes;
} tensor_type[] = {
    [0] = {1, 4},      [1] = {1, 2},      [2] = {32, 18},    [3] = {32, 20},    [6] = {32, 22},
    [7] = {32, 24},    [8] = {32, 34},    [9] = {32, 36},    [10] = {256, 84},  [11] = {256, 110},
    [12] = {256, 144}, [13] = {256, 176}, [14] = {256, 210}, [15] = {256, 292}, [16] = {256, 66},
    [17] = {256, 74},  [18] = {256, 98},  [19] = {256, 50},  [20] = {32, 18},   [21] = {256, 110},
    [22] = {256, 82},  [23] = {256, 136}, [24] = {1, 1},     [25] = {1, 2},     [26] = {1, 4},
    [27] = {1, 8},     [28] = {1, 8},     [29] = {256, 56},  [30] = {1, 2},     [34] = {256, 54},
    [35] = {256, 66},  [39] = {32, 17},
};

struct reader {
    int fd;
    uint64_t size;  /* of the header at most, which is that of the file if it is not huge */
    uint64_t at;    /* next byte to be taken */
    uint64_t begin; /* where in the file `ahead` begins */
    size_t n;       /* bytes in it */
    char ahead[READ_AHEAD];
};

static bool skip(struct reader *r, uint64_t n)
{
    if (n > r->size - r->at)
        return false;
    r->at += n;
    return true;
}

static bool take(struct reader *r, void *out, size_t n)
{
    char *to = out;

    if (n > r->size - r->at)
        return false;
    while (n > 0) {
        if (r->at < r->begin || r->at >= r->begin + r->n) {
            ssize_t got = pread(r->fd, r->ahead, sizeof(r->ahead), (off_t)r->at);
            if (got <= 0)
                return false;
            r->begin = r->at;
            r->n = (size_t)got;
        }
        size_t from = (size_t)(r->at - r->begin), some = r->n - from;
        if (some > n)
            some = n;
        memcpy(to, r->ahead + from, some);
        to += some;
        r->at += some;
        n -= some;
    }
    return true;
}

static bool take_u32(struct reader *r, uint32_t *out)
{
    return take(r, out, sizeof(*out));
}

static bool take_u64(struct reader *r, uint64_t *out)
{
    return take(r, out, sizeof(*out));
}

static bool skip_string(struct reader *r)
{
    uint64_t n;

    return take_u64(r, &n) && skip(r, n);
}

static bool skip_array(struct reader *r)
{
    uint32_t type;
    uint64_t n;

    if (!take_u32(r, &type) || !take_u64(r, &n))
        return false;
    if (type == VALUE_STRING) {
        while (n-- > 0)
            if (!skip_string(r))
                return false;
        return true;
    }
    /* Arrays of arrays are not in use. */
    if (type >= sizeof(value_size) || value_size[type] == 0 || n > r->size / value_size[type])
        return false;
    return skip(r, n * value_size[type]);
}

static bool read_key(struct reader *r, uint64_t *alignment)
{
    char key[KEY_MAX];
    uint64_t n;
    uint32_t type, value;

    if (!take_u64(r, &n))
        return false;
    bool is_alignment = n == strlen("general.alignment");
    if (is_alignment ? !take(r, key, n) : !skip(r, n))
        return false;
    is_alignment = is_alignment && memcmp(key, "general.alignment", n) == 0;
    if (!take_u32(r, &type))
        return false;
    if (is_alignment && type == VALUE_U32) {
        if (!take_u32(r, &value))
            return false;
        *alignment = value;
        return true;
    }
    if (type == VALUE_STRING)
        return skip_string(r);
    if (type == VALUE_ARRAY)
        return skip_array(r);
    return type < sizeof(value_size) && value_size[type] && skip(r, value_size[type]);
}

/* *end: the first byte behind this tensor, counted from where the data begins. */
static bool read_tensor(struct reader *r, uint64_t *end)
{
    uint32_t dimensions, type;
    uint64_t elements = 1, n, offset, size = 0;

    if (!skip_string(r) || !take_u32(r, &dimensions) || dimensions > DIMENSIONS_MAX)
        return false;
    while (dimensions-- > 0)
        if (!take_u64(r, &n) || __builtin_mul_overflow(elements, n, &elements))
            return false;
    if (!take_u32(r, &type) || !take_u64(r, &offset))
        return false;
    if (type < sizeof(tensor_type) / sizeof(tensor_type[0]) && tensor_type[type].elements &&
        __builtin_mul_overflow(elements / tensor_type[type].elements,
                               (uint64_t)tensor_type[type].bytes, &size))
        return false;
    return !__builtin_add_overflow(offset, size, end);
}

/* The bytes that the file must have; 0 when the header itself is cut or broken. */
static uint64_t bytes_needed(struct reader *r, uint64_t tensors, uint64_t keys)
{
    uint64_t alignment = ALIGNMENT_DEFAULT, data = 0, end, needed;

    while (keys-- > 0)
        if (!read_key(r, &alignment))
            return 0;
    while (tensors-- > 0) {
        if (!read_tensor(r, &end))
            return 0;
        if (end > data)
            data = end;
    }
    if (alignment == 0 || alignment > 1 << 20)
        return 0;
    uint64_t begin = (r->at + alignment - 1) / alignment * alignment;
    return __builtin_add_overflow(begin, data, &needed) ? 0 : needed;
}

static int check(struct reader *r, uint64_t size, const char *path, struct err *err)
{
    char magic[4];
    uint32_t version;
    uint64_t tensors, keys;

    if (!take(r, magic, sizeof(magic)) || memcmp(magic, "GGUF", 4) != 0)
        return err_set(err, 400,
                       "%s is not a GGUF model (it has %llu bytes and does not begin with GGUF)",
                       path, (unsigned long long)size);
    if (!take_u32(r, &version) || !take_u64(r, &tensors) || !take_u64(r, &keys))
        return err_set(err, 400, "%s is cut off after %llu bytes, inside its header", path,
                       (unsigned long long)size);
    if (version < 2 || version > 3)
        return err_set(err, 400, "%s is GGUF version %u; versions 2 and 3 can be loaded", path,
                       version);
    uint64_t needed = bytes_needed(r, tensors, keys);
    if (needed == 0)
        return err_set(err, 400,
                       "%s is cut off or damaged: its header does not end within %llu bytes", path,
                       (unsigned long long)r->size);
    if (needed > size)
        return err_set(err, 400,
                       "%s is cut off: its tensors need %llu bytes, it has %llu; is it still being "
                       "copied?",
                       path, (unsigned long long)needed, (unsigned long long)size);
    return 0;
}

int gguf_check(const char *path, struct err *err)
{
    struct reader r = {.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    struct stat st;
    int result;

    if (r.fd < 0)
        return err_set(err, errno == ENOENT ? 404 : 400, "cannot open the model file %s: %s", path,
                       strerror(errno));
    if (fstat(r.fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        result = err_set(err, 400, "%s is not a regular file, so it is no model", path);
    } else {
        uint64_t size = (uint64_t)st.st_size;
        r.size = size < HEADER_MAX ? size : HEADER_MAX;
        result = check(&r, size, path, err);
    }
    close(r.fd);
    return result;
}
