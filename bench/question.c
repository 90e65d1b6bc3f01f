/* question - see question.h. */
#include "question.h"

#include <stdlib.h>
#include <sys/types.h>

static void read_field(struct question *q, struct span line, bool *bad)
{
    size_t colon = span_index(line, ':');
    struct span name = span_of(line.p, colon);
    if (colon == line.n || colon == 0) {
        *bad = true;
        return;
    }
    struct span value = span_trim(span_of(line.p + colon + 1, line.n - colon - 1));
    uint64_t n;

    if (span_eq_nocase(name, SPAN_LIT("content-length"))) {
        if (q->has_length || !span_u64(value, &n) || n > QUESTION_BODY_MAX)
            *bad = true;
        else
            q->length = n;
        q->has_length = true;
    } else if (span_eq_nocase(name, SPAN_LIT("transfer-encoding"))) {
        q->chunked = span_eq_nocase(value, SPAN_LIT("chunked"));
        *bad |= !q->chunked;
    } else if (span_eq_nocase(name, SPAN_LIT("connection"))) {
        q->close = span_eq_nocase(value, SPAN_LIT("close"));
    } else if (span_eq_nocase(name, SPAN_LIT("x-probe"))) {
        q->probe = true;
    }
}

static bool read_head(struct question *q)
{
    const char *p = q->head.p, *end = p + q->head.n - 2;
    bool bad = false;

    const char *eol = memmem(p, q->head.n, "\r\n", 2);
    struct span line = span_of(p, (size_t)(eol - p));
    size_t space = span_index(line, ' ');
    q->method = span_of(p, space);
    if (space == line.n)
        return false;
    line = span_of(p + space + 1, line.n - space - 1);
    q->path = span_of(line.p, span_index(line, ' '));
    q->close = line.n >= 8 && memcmp(line.p + line.n - 8, "HTTP/1.0", 8) == 0;
    for (p = eol + 2; p < end; p = eol + 2) {
        eol = memmem(p, (size_t)(end + 2 - p), "\r\n", 2);
        read_field(q, span_of(p, (size_t)(eol - p)), &bad);
    }
    return !bad && !(q->chunked && q->has_length);
}

/* A chunked body, joined in `out`; returns its framed length, 0: incomplete, -1: malformed. */
static ssize_t read_chunks(struct span s, struct buf *out)
{
    size_t at = 0;

    for (;;) {
        const char *eol = memmem(s.p + at, s.n - at, "\r\n", 2);
        if (!eol)
            return 0;
        char *stop;
        unsigned long n = strtoul(s.p + at, &stop, 16);
        if (stop == s.p + at || n > QUESTION_BODY_MAX)
            return -1;
        at = (size_t)(eol - s.p) + 2;
        if (s.n - at < n + 2)
            return 0;
        if (memcmp(s.p + at + n, "\r\n", 2) != 0)
            return -1;
        buf_add(out, s.p + at, n);
        at += n + 2;
        if (n == 0)
            return (ssize_t)at;
    }
}

int question_read(struct question *q, struct span s, struct buf *joined)
{
    *q = (struct question){0};
    const char *end = memmem(s.p, s.n, "\r\n\r\n", 4);
    if (!end)
        return s.n > QUESTION_HEAD_MAX ? -1 : 0;
    q->head = span_of(s.p, (size_t)(end - s.p) + 4);
    if (!read_head(q))
        return -1;
    struct span rest = span_of(s.p + q->head.n, s.n - q->head.n);
    if (q->chunked) {
        ssize_t n = read_chunks(rest, joined);
        q->total = q->head.n + (n > 0 ? (size_t)n : 0);
        q->body = buf_span(joined);
        return n > 0 ? 1 : (int)n;
    }
    if (rest.n < q->length)
        return 0;
    q->body = span_of(rest.p, q->length);
    q->total = q->head.n + q->length;
    return 1;
}

bool question_wants_stream(const struct question *q)
{
    struct span body = q->body;
    const char *p = memmem(body.p, body.n, "\"stream\"", 8), *end = body.p + body.n;

    if (!p)
        return false;
    for (p += 8; p < end && (*p == ' ' || *p == ':'); p++)
        ;
    return end - p >= 4 && memcmp(p, "true", 4) == 0;
}
