/*
 * buf - a growable run of owned bytes with a read position.
 *
 *   data ──▶ [ consumed | pending bytes | free room ]
 *                       ^pos            ^len        ^cap
 *
 * Whoever appends bounds the growth: a buf never refuses.  An idle buf holds
 * no memory after buf_fini() or buf_release().
 */
#pragma once
#include "base/always.h"
#include "base/span.h"

struct buf {
    char *data; /* owned; NULL while cap is 0 */
    size_t pos; /* first byte not yet consumed */
    size_t len; /* end of the bytes */
    size_t cap;
};

void buf_fini(struct buf *b);

/* Pending bytes. */
static inline size_t buf_pending(const struct buf *b)
{
    return b->len - b->pos;
}

static inline char *buf_head(const struct buf *b)
{
    return b->pos ? b->data + b->pos : b->data; /* NULL + 0 is undefined in C */
}

static inline struct span buf_span(const struct buf *b)
{
    return span_of(buf_head(b), b->len - b->pos);
}

/* Room for n more bytes after len; may move the pending bytes. Returns the
 * place to write to; call buf_added() with what was written. */
char *buf_room(struct buf *b, size_t n);

static inline void buf_added(struct buf *b, size_t n)
{
    b->len += n;
    ALWAYS(b->len <= b->cap);
}

void buf_add(struct buf *b, const void *p, size_t n);

static inline void buf_add_span(struct buf *b, struct span s)
{
    buf_add(b, s.p, s.n);
}

static inline void buf_add_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

static inline void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_add_u64(struct buf *b, uint64_t v);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Appends s as the inside of a JSON string (RFC 8259 section 7), without the
 * quotes; bytes that are not valid UTF-8 become U+FFFD. */
void buf_add_json(struct buf *b, struct span s);

/* Forgets the first n pending bytes. */
void buf_consume(struct buf *b, size_t n);

/* Forgets all bytes, keeps the memory. */
static inline void buf_clear(struct buf *b)
{
    b->pos = b->len = 0;
}

/* The bytes as a NUL-terminated string, valid until the next change. */
const char *buf_cstr(struct buf *b);

/* Takes the memory out as a NUL-terminated string; the caller frees it, the
 * buf is empty afterwards. */
char *buf_take(struct buf *b);
