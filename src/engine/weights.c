/*
 * weights - see weights.h.
 *
 *   "GGUF" version ntensors nkeys | nkeys x (name, type, value) |
 *   ntensors x (name, dimensions, type, offset) | padding | tensor data
 *
 * A reader that counts: every read is checked against the file's size, and the
 * first that does not fit says where the header was cut.  Little endian only,
 * as libllama itself.
 */
#include "engine/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <ggml.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/span.h"

enum { VALUE_STRING = 8, VALUE_ARRAY = 9, NVALUES = 13, DIMENSIONS_MAX = 4, DEPTH_MAX = 4 };

struct reader {
    int fd;
    uint64_t size; /* of the file */
    uint64_t pos;  /* next byte to hand out */
    uint64_t base; /* file offset of buffer[0] */
    size_t have;   /* bytes in buffer */
    uint32_t alignment;
    char part[96]; /* what is being read, for the sentence */
    const char *path;
    struct err *err;
    char buffer[65536];
};

static int cut(struct reader *r)
{
    return err_set(r->err, 422,
                   "%s is truncated: it has %" PRIu64 " bytes and ends inside its header, in %s",
                   r->path, r->size, r->part);
}

static int damaged(struct reader *r, const char *what)
{
    return err_set(r->err, 422, "%s is damaged: in its header, %s has %s", r->path, r->part, what);
}

static int skip(struct reader *r, uint64_t n)
{
    if (n > r->size - r->pos)
        return cut(r);
    r->pos += n;
    return 0;
}

static int take(struct reader *r, void *out, size_t n)
{
    if (n > r->size - r->pos)
        return cut(r);
    if (r->pos < r->base || r->pos + n > r->base + r->have) {
        ssize_t got = pread(r->fd, r->buffer, sizeof(r->buffer), (off_t)r->pos);
        if (got < (ssize_t)n)
            return err_set(r->err, 500, "cannot read %s: %s", r->path,
                           got < 0 ? strerror(errno) : "it became shorter while it was read");
        r->base = r->pos;
        r->have = (size_t)got;
    }
    memcpy(out, r->buffer + (r->pos - r->base), n);
    r->pos += n;
    return 0;
}

/* A string: its first bytes go to out (NUL-terminated), the rest is skipped. */
static int take_text(struct reader *r, char *out, size_t room)
{
    uint64_t n;

    if (take(r, &n, sizeof(n)))
        return -1;
    size_t keep = n < room - 1 ? (size_t)n : room - 1;
    if (take(r, out, keep))
        return -1;
    out[keep] = '\0';
    return skip(r, n - keep);
}

static int skip_value(struct reader *r, uint32_t type, int depth)
{
    static const uint8_t width[NVALUES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    uint64_t n;
    uint32_t inner;

    if (type >= NVALUES)
        return damaged(r, "a value of an unknown type");
    if (type == VALUE_STRING)
        return take(r, &n, sizeof(n)) ? -1 : skip(r, n);
    if (type != VALUE_ARRAY)
        return skip(r, width[type]);
    if (depth == DEPTH_MAX)
        return damaged(r, "arrays nested too deep");
    if (take(r, &inner, sizeof(inner)) || take(r, &n, sizeof(n)))
        return -1;
    if (inner < NVALUES && width[inner])
        return n > r->size / width[inner] ? cut(r) : skip(r, n * width[inner]);
    for (uint64_t i = 0; i < n; i++)
        if (skip_value(r, inner, depth + 1))
            return -1;
    return 0;
}

static int read_keys(struct reader *r, uint64_t nkeys)
{
    char key[64];
    uint32_t type;

    for (uint64_t i = 0; i < nkeys; i++) {
        snprintf(r->part, sizeof(r->part), "metadata entry %" PRIu64 " of %" PRIu64, i + 1, nkeys);
        if (take_text(r, key, sizeof(key)) || take(r, &type, sizeof(type)))
            return -1;
        if (strcmp(key, "general.alignment") == 0 && type == 4) {
            if (take(r, &r->alignment, sizeof(r->alignment)))
                return -1;
            if (r->alignment == 0 || r->alignment > 65536 || r->alignment & (r->alignment - 1))
                return damaged(r, "an alignment that is not a power of two");
        } else if (skip_value(r, type, 0)) {
            return -1;
        }
    }
    return 0;
}

/* Bytes of one tensor; false when its shape or type makes no sense. */
static bool tensor_bytes(uint32_t type, uint32_t ndims, const uint64_t *dims, uint64_t *out)
{
    if (type >= GGML_TYPE_COUNT || ggml_blck_size((enum ggml_type)type) == 0 ||
        ggml_type_size((enum ggml_type)type) == 0)
        return false;
    uint64_t block = (uint64_t)ggml_blck_size((enum ggml_type)type);
    if (dims[0] % block)
        return false;
    uint64_t n = dims[0] / block;
    if (__builtin_mul_overflow(n, ggml_type_size((enum ggml_type)type), &n))
        return false;
    for (uint32_t d = 1; d < ndims; d++)
        if (__builtin_mul_overflow(n, dims[d], &n))
            return false;
    *out = n;
    return true;
}

/* Walks the table of tensors; *end is where the last one ends, from the start of the data. */
static int read_tensors(struct reader *r, uint64_t ntensors, uint64_t *end)
{
    char name[64];
    uint32_t ndims, type;
    uint64_t offset, bytes;

    *end = 0;
    for (uint64_t i = 0; i < ntensors; i++) {
        uint64_t dims[DIMENSIONS_MAX] = {1, 1, 1, 1};
        snprintf(r->part, sizeof(r->part), "tensor %" PRIu64 " of %" PRIu64, i + 1, ntensors);
        if (take_text(r, name, sizeof(name)) || take(r, &ndims, sizeof(ndims)))
            return -1;
        if (ndims > DIMENSIONS_MAX)
            return damaged(r, "more than four dimensions");
        if (take(r, dims, ndims * sizeof(dims[0])) || take(r, &type, sizeof(type)) ||
            take(r, &offset, sizeof(offset)))
            return -1;
        if (!tensor_bytes(type, ndims, dims, &bytes) ||
            __builtin_add_overflow(bytes, offset, &bytes))
            return damaged(r, "a type or shape that this libllama does not know");
        if (bytes > *end)
            *end = bytes;
    }
    return 0;
}

static int walk(struct reader *r, struct weights *out)
{
    unsigned char magic[4];
    uint64_t nkeys, end;

    snprintf(r->part, sizeof(r->part), "its first 24 bytes");
    if (r->size >= sizeof(magic)) {
        if (take(r, magic, sizeof(magic)))
            return -1;
        if (memcmp(magic, "GGUF", 4) != 0)
            return err_set(r->err, 422,
                           "%s is not a GGUF file: it begins with the bytes %02x %02x %02x %02x",
                           r->path, magic[0], magic[1], magic[2], magic[3]);
    } else {
        return cut(r);
    }
    if (take(r, &out->version, 4) || take(r, &out->ntensors, 8) || take(r, &nkeys, 8))
        return -1;
    if (out->version < 2 || out->version > 3)
        return err_set(r->err, 422, "%s has GGUF version %" PRIu32 "; 2 and 3 are understood",
                       r->path, out->version);
    if (read_keys(r, nkeys) || read_tensors(r, out->ntensors, &end))
        return -1;
    uint64_t data = (r->pos + r->alignment - 1) / r->alignment * r->alignment;
    if (__builtin_add_overflow(end, data, &end) || end > r->size)
        return err_set(r->err, 422,
                       "%s is truncated: its header promises %" PRIu64 " bytes for %" PRIu64
                       " tensors, the file has %" PRIu64,
                       r->path, end, out->ntensors, r->size);
    return 0;
}

int weights_check(const char *path, struct weights *out, struct err *err)
{
    struct reader r = {.path = path, .err = err, .alignment = 32};
    struct stat st;

    r.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (r.fd < 0)
        return err_set(err, 404, "cannot open %s: %s", path, strerror(errno));
    int rc = 0;
    if (fstat(r.fd, &st) < 0)
        rc = err_set(err, 500, "cannot read %s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = err_set(err, 422, "%s is not a regular file; a GGUF file is needed", path);
    else if (st.st_size == 0)
        rc = err_set(err, 422, "%s is empty (0 bytes); a GGUF file is needed", path);
    if (rc == 0) {
        r.size = out->bytes = (uint64_t)st.st_size;
        rc = walk(&r, out);
    }
    close(r.fd);
    return rc;
}
