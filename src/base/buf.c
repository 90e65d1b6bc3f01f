/* buf - see buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/utf8.h"

void buf_fini(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}

char *buf_room(struct buf *b, size_t n)
{
    if (b->cap - b->len >= n)
        return b->data + b->len;

    size_t pending = buf_pending(b);
    if (b->pos && b->cap - pending >= n && b->pos >= pending) {
        memcpy(b->data, b->data + b->pos, pending);
    } else {
        size_t cap = b->cap ? b->cap : 256;
        while (cap - pending < n)
            cap *= 2;
        char *data = mem_alloc(cap);
        if (pending)
            memcpy(data, b->data + b->pos, pending);
        free(b->data);
        b->data = data;
        b->cap = cap;
    }
    b->pos = 0;
    b->len = pending;
    return b->data + b->len;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    memcpy(buf_room(b, n), p, n);
    b->len += n;
}

void buf_add_u64(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t i = sizeof(digits);

    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    buf_add(b, digits + i, sizeof(digits) - i);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;

    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    ALWAYS(n >= 0);
    char *room = buf_room(b, (size_t)n + 1);
    vsnprintf(room, (size_t)n + 1, fmt, again);
    va_end(again);
    b->len += (size_t)n;
}

void buf_add_json(struct buf *b, struct span s)
{
    static const char hex[] = "0123456789abcdef";

    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\') {
            buf_add(b, (char[]){'\\', (char)c}, 2);
        } else if (c == '\n') {
            buf_add(b, "\\n", 2);
        } else if (c == '\r') {
            buf_add(b, "\\r", 2);
        } else if (c == '\t') {
            buf_add(b, "\\t", 2);
        } else if (c < 0x20) {
            buf_add(b, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
        } else if (c < 0x80) {
            buf_add_char(b, (char)c);
        } else {
            size_t n = utf8_length(s.p + i, s.n - i);
            if (n == 0) {
                buf_add(b, "\xef\xbf\xbd", 3);
                i++;
            } else {
                buf_add(b, s.p + i, n);
                i += n;
            }
            continue;
        }
        i++;
    }
}

void buf_consume(struct buf *b, size_t n)
{
    ALWAYS(n <= buf_pending(b));
    b->pos += n;
    if (b->pos == b->len)
        b->pos = b->len = 0;
}

const char *buf_cstr(struct buf *b)
{
    *buf_room(b, 1) = '\0';
    return b->data + b->pos;
}

char *buf_take(struct buf *b)
{
    size_t n = buf_pending(b);

    *buf_room(b, 1) = '\0';
    if (b->pos)
        memmove(b->data, b->data + b->pos, n + 1);
    char *s = b->data;
    *b = (struct buf){0};
    return s;
}
