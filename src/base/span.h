/*
 * span - a borrowed run of bytes; never NUL-terminated, never owned.
 *
 * Whoever hands out a span says how long the bytes behind it live.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
    const char *p; /* borrowed; may be NULL when n is 0 */
    size_t n;      /* bytes */
};

#define SPAN_LIT(s) ((struct span){(s), sizeof(s) - 1})
#define SPAN_FMT "%.*s"
#define SPAN_ARG(s) (int)(s).n, (s).p

static inline struct span span_of(const char *p, size_t n)
{
    return (struct span){p, n};
}

static inline struct span span_str(const char *s)
{
    return (struct span){s, s ? strlen(s) : 0};
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool span_eq_str(struct span a, const char *s)
{
    return span_eq(a, span_str(s));
}

static inline bool span_starts(struct span a, struct span prefix)
{
    return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}

/* Compares ASCII letters without regard to case. */
bool span_eq_nocase(struct span a, struct span b);

/* Without leading and trailing spaces and tabs (RFC 9110 OWS). */
struct span span_trim(struct span s);

/* Index of the first `c`, or s.n when there is none. */
size_t span_index(struct span s, char c);

/* Parses a whole span of decimal digits; false on empty, sign, space, any
 * other byte, or overflow of 64 bits. */
bool span_u64(struct span s, uint64_t *out);

/* A NUL-terminated copy on the heap; the caller frees it. */
char *span_dup(struct span s);
