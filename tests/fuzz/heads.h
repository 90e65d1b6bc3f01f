/*
 * heads - what the fuzz targets for requests and answers have in common.
 */
#pragma once
#include <stdlib.h>

#include "base/buf.h"
#include "http/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A span that was given out lies inside the head. */
static inline void inside(struct span s, const char *p, size_t n)
{
    if (s.n)
        ALWAYS(s.p >= p && s.p + s.n <= p + n);
}

/* The end of the head, or 0; found bytewise as well, with the same result. */
static inline size_t head_end(const char *p, size_t n)
{
    size_t scanned = 0, at = 0, end = http_head_end(p, n, &scanned);

    ALWAYS(end <= n);
    scanned = 0;
    for (size_t k = 0; k <= n && !at; k++)
        at = http_head_end(p, k, &scanned);
    ALWAYS(at == end);
    return end;
}

static inline void check_fields(const struct http_field *fields, size_t nfields, const char *p,
                                size_t n)
{
    ALWAYS(nfields <= HTTP_FIELDS_MAX);
    for (size_t i = 0; i < nfields; i++) {
        const struct http_field *f = &fields[i];
        inside(f->name, p, n);
        inside(f->value, p, n);
        ALWAYS(f->name.n > 0 && f->id < HTTP_NFIELD_IDS);
        ALWAYS(span_eq(f->value, span_trim(f->value)));
        for (size_t k = 0; k < f->value.n; k++) {
            unsigned char c = (unsigned char)f->value.p[k];
            ALWAYS((c >= 0x20 && c != 0x7f) || c == '\t');
        }
        for (size_t k = 0; k < f->name.n; k++)
            ALWAYS(f->name.p[k] > ' ' && f->name.p[k] < 0x7f && f->name.p[k] != ':');
    }
}

static inline void add_fields(struct buf *b, const struct http_field *fields, size_t nfields)
{
    for (size_t i = 0; i < nfields; i++) {
        buf_add_span(b, fields[i].name);
        buf_add_str(b, ": ");
        buf_add_span(b, fields[i].value);
        buf_add_str(b, "\r\n");
    }
    buf_add_str(b, "\r\n");
}

static inline void same_fields(const struct http_field *a, const struct http_field *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ALWAYS(span_eq(a[i].name, b[i].name) && span_eq(a[i].value, b[i].value) &&
               a[i].id == b[i].id && a[i].hop == b[i].hop);
}
