/*
 * Chunked bodies: in one piece and in random ones the result is the same, and
 * what was decoded, encoded again, decodes to the same.  The first byte of the
 * input chooses the pieces.
 */
#include <stdlib.h>

#include "base/buf.h"
#include "http/chunk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct result {
    enum http_fault fault;
    bool done;
    size_t used;
    struct buf out;
};

static struct result decode(const char *p, size_t n, size_t most, unsigned seed)
{
    struct result r = {.fault = HTTP_FAULT_NONE};
    struct chunk_decoder d;

    chunk_decoder_init(&d);
    while (r.used < n && !r.done && r.fault == HTTP_FAULT_NONE) {
        size_t piece = most ? 1 + (size_t)rand_r(&seed) % most : n, len, used;
        if (piece > n - r.used)
            piece = n - r.used;
        char *copy = malloc(piece);
        memcpy(copy, p + r.used, piece);
        r.fault = chunk_decode(&d, copy, piece, &len, &used, &r.done);
        ALWAYS(len <= used && used <= piece);
        ALWAYS(used == piece || r.done || r.fault != HTTP_FAULT_NONE);
        buf_add(&r.out, copy, len);
        r.used += used;
        free(copy);
    }
    return r;
}

static void round_trip(struct span decoded)
{
    char line[CHUNK_HEAD_ROOM];
    struct buf b = {0};

    for (size_t at = 0, step = 1; at < decoded.n; at += step, step = step * 3 + 1) {
        size_t n = decoded.n - at < step ? decoded.n - at : step;
        size_t len = chunk_size_line(line + sizeof(line), n);
        buf_add(&b, line + sizeof(line) - len, len);
        buf_add(&b, decoded.p + at, n);
        buf_add_str(&b, "\r\n");
    }
    buf_add_str(&b, "0\r\n\r\n");
    struct result r = decode(b.data, b.len, 0, 0);
    ALWAYS(r.fault == HTTP_FAULT_NONE && r.done && r.used == b.len);
    ALWAYS(r.out.len == decoded.n && (!decoded.n || !memcmp(r.out.data, decoded.p, decoded.n)));
    buf_fini(&r.out);
    buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    const char *p = (const char *)data + 1;
    struct result whole = decode(p, n - 1, 0, 0);
    struct result pieces = decode(p, n - 1, 1 + data[0] % 16, data[0]);
    size_t len = whole.out.len;

    ALWAYS(whole.fault == pieces.fault && whole.done == pieces.done && whole.used == pieces.used);
    ALWAYS(len == pieces.out.len && (!len || !memcmp(whole.out.data, pieces.out.data, len)));
    round_trip(len ? span_of(whole.out.data, len) : span_of(NULL, 0));
    buf_fini(&whole.out);
    buf_fini(&pieces.out);
    return 0;
}
