/*
 * http/chunk - chunked bodies (RFC 9112 section 7.1), decoded in place.
 *
 * Chunk extensions are skipped, trailer fields are checked and dropped; both
 * are bounded (CHUNK_LINE_MAX, CHUNK_TRAILER_MAX).
 */
#pragma once
#include "http/parse.h"

enum {
    CHUNK_LINE_MAX = 256,     /* bytes of one size line with its extensions */
    CHUNK_TRAILER_MAX = 8192, /* bytes of the trailer section */
    CHUNK_HEAD_ROOM = 18      /* bytes that chunk_size_line() may need */
};

struct chunk_decoder {
    int state; /* private */
    uint64_t left;
    uint32_t line;    /* bytes of the current line so far */
    uint32_t trailer; /* bytes of the trailer section so far */
};

void chunk_decoder_init(struct chunk_decoder *d);

/*
 * Decodes n bytes at p.  The data is moved together at the start of p
 * (p[0 .. *data_len)), *used says how many of the n bytes belonged to this
 * body (all of them unless it ended), *done whether it has ended.
 * Returns HTTP_FAULT_NONE, _BAD_CHUNK or _BAD_TRAILER.
 */
enum http_fault chunk_decode(struct chunk_decoder *d, char *p, size_t n, size_t *data_len,
                             size_t *used, bool *done) MUST_CHECK;

/* Writes "SIZE\r\n" (hexadecimal) so that it ends right before `end`; returns
 * its length. CHUNK_HEAD_ROOM bytes before `end` must be writable. */
size_t chunk_size_line(char *end, size_t size);
