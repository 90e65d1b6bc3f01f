/*
 * scan - see scan.h.
 *
 * A loop over two questions, "what value begins here" and "what may follow a
 * value", with one bit for each level that is open: object or array.  Strings
 * are run over 16 bytes at a time where the machine can; UTF-8 is checked where
 * a byte above 0x7f stops that run, so every byte is looked at once.
 */
#include "json/scan.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { MEMBERS_MAX = 8, NAME_ROOM = 64 };

struct scan {
    const char *p, *end;
    enum json_fault fault;
    unsigned depth;
    uint64_t objects[JSON_DEPTH_MAX / 64]; /* bit d: level d is an object */
};

static bool fail(struct scan *s, const char *at, enum json_fault fault)
{
    s->p = at;
    s->fault = fault;
    return false;
}

static inline bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline void skip_space(struct scan *s)
{
    while (s->p < s->end && is_space(*s->p))
        s->p++;
}

static inline bool digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

/* -1 for other bytes. */
static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ---- strings ---- */

/* The first quote, backslash, control byte or byte above 0x7f. */
static inline const char *plain_end(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i space = _mm_set1_epi8(0x20);
    const __m128i quote = _mm_set1_epi8('"');
    const __m128i backslash = _mm_set1_epi8('\\');
    for (; end - p >= 16; p += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        /* Signed: bytes above 0x7f are negative, so less than a space too. */
        __m128i hit =
            _mm_or_si128(_mm_cmplt_epi8(v, space),
                         _mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, backslash)));
        unsigned mask = (unsigned)_mm_movemask_epi8(hit);
        if (mask)
            return p + __builtin_ctz(mask);
    }
#endif
    while (p < end && (signed char)*p >= 0x20 && *p != '"' && *p != '\\')
        p++;
    return p;
}

/* Runs over the characters above 0x7f at p (RFC 3629 section 4); stops at the
 * first other byte, or at the byte that is wrong (*ok false). */
static inline const char *wide_end(const char *text, const char *text_end, bool *ok)
{
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char *end = (const unsigned char *)text_end;

    *ok = true;
    while (p < end && *p >= 0x80) {
        size_t left = (size_t)(end - p);
        unsigned char c = p[0];
        if (c >= 0xe1 && c <= 0xef && c != 0xed) {
            if (left < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80)
                break;
            p += 3;
        } else if (c >= 0xc2 && c <= 0xdf) {
            if (left < 2 || (p[1] & 0xc0) != 0x80)
                break;
            p += 2;
        } else if (c == 0xe0 || c == 0xed) {
            if (left < 3 || (p[1] & 0xe0) != (c == 0xe0 ? 0xa0 : 0x80) || (p[2] & 0xc0) != 0x80)
                break;
            p += 3;
        } else if (c >= 0xf0 && c <= 0xf4) {
            if (left < 4 || p[1] < (c == 0xf0 ? 0x90 : 0x80) || p[1] > (c == 0xf4 ? 0x8f : 0xbf) ||
                (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80)
                break;
            p += 4;
        } else {
            break;
        }
    }
    *ok = p == end || *p < 0x80;
    return (const char *)p;
}

/* Bytes of the escape whose backslash is before p, 0 when it is none. */
static size_t escape_length(const char *p, const char *end)
{
    if (*p != 'u')
        return *p && strchr("\"\\/bfnrt", *p) ? 1 : 0;
    for (int i = 1; i <= 4; i++)
        if (end - p <= i || hex_digit(p[i]) < 0)
            return 0;
    return 5;
}

/* A string from its opening quote to behind its closing one. */
static inline bool string(struct scan *s, bool *escaped)
{
    const char *p = s->p + 1, *end = s->end;

    *escaped = false;
    for (;;) {
        p = plain_end(p, end);
        if (p == end)
            return fail(s, p, JSON_SYNTAX);
        if (*p == '"') {
            s->p = p + 1;
            return true;
        }
        if (*p & 0x80) {
            bool ok;
            p = wide_end(p, end, &ok);
            if (!ok)
                return fail(s, p, JSON_UTF8);
        } else if (*p != '\\' || end - p < 2) {
            return fail(s, p, JSON_SYNTAX);
        } else {
            *escaped = true;
            p++;
            size_t n = escape_length(p, end);
            if (n == 0)
                return fail(s, p, JSON_SYNTAX);
            p += n;
        }
    }
}

/* The number after "\u"; its four digits were checked. */
static unsigned code_unit(const char *p)
{
    unsigned unit = 0;

    for (int i = 0; i < 4; i++)
        unit = unit << 4 | (unsigned)hex_digit(p[i]);
    return unit;
}

/* The character of an escape at *p (behind its backslash, well-formed), -1 for
 * a lone surrogate; *p moves behind it. */
static long escape_char(const char **p, const char *end)
{
    static const char letters[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";

    if (**p != 'u') {
        char c = means[strchr(letters, **p) - letters];
        ++*p;
        return c;
    }
    unsigned unit = code_unit(*p + 1);
    *p += 5;
    if (unit < 0xd800 || unit > 0xdfff)
        return (long)unit;
    if (unit > 0xdbff || end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
        return -1;
    unsigned low = code_unit(*p + 2);
    if (low < 0xdc00 || low > 0xdfff)
        return -1;
    *p += 6;
    return 0x10000 + ((long)(unit - 0xd800) << 10) + (long)(low - 0xdc00);
}

static size_t encode(long c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((0xf00 >> n & 0xff) | c);
    return n;
}

int json_scan_string(struct span value, char *out, size_t room)
{
    const char *p = value.p + 1, *end = value.p + value.n - 1;
    size_t n = 0;

    while (p < end) {
        char text[4] = {*p};
        size_t len = 1;
        if (*p == '\\') {
            p++;
            long c = escape_char(&p, end);
            if (c <= 0)
                return -1;
            len = encode(c, text);
        } else {
            p++;
        }
        if (n + len >= room)
            return -1;
        memcpy(out + n, text, len);
        n += len;
    }
    if (n >= room)
        return -1;
    out[n] = '\0';
    return (int)n;
}

/* ---- numbers and words ---- */

static bool number(struct scan *s)
{
    const char *p = s->p, *end = s->end;

    if (*p == '-')
        p++;
    if (!digit(p, end))
        return fail(s, p, JSON_SYNTAX);
    if (*p == '0')
        p++;
    else
        while (digit(p, end))
            p++;
    if (p < end && *p == '.') {
        if (!digit(++p, end))
            return fail(s, p, JSON_SYNTAX);
        while (digit(p, end))
            p++;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        if (!digit(p, end))
            return fail(s, p, JSON_SYNTAX);
        while (digit(p, end))
            p++;
    }
    s->p = p;
    return true;
}

static bool word(struct scan *s, const char *text, size_t n)
{
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, text, n) != 0)
        return fail(s, s->p, JSON_SYNTAX);
    s->p += n;
    return true;
}

/* ---- structure ---- */

static bool open_level(struct scan *s, bool object)
{
    if (s->depth == JSON_DEPTH_MAX)
        return fail(s, s->p, JSON_DEEP);
    uint64_t bit = UINT64_C(1) << (s->depth % 64), *word64 = &s->objects[s->depth / 64];
    *word64 = object ? *word64 | bit : *word64 & ~bit;
    s->depth++;
    s->p++;
    skip_space(s);
    return true;
}

static inline bool in_object(const struct scan *s)
{
    return s->objects[(s->depth - 1) / 64] >> ((s->depth - 1) % 64) & 1;
}

/* The member that is looked for under this key (with its quotes), or NULL. */
static struct json_member *member_of(struct span key, bool escaped, struct json_member *members,
                                     const size_t *lengths, size_t nmembers)
{
    char decoded[NAME_ROOM];
    struct span name = span_of(key.p + 1, key.n - 2);

    if (escaped) {
        int n = json_scan_string(key, decoded, sizeof(decoded));
        if (n < 0)
            return NULL;
        name = span_of(decoded, (size_t)n);
    }
    for (size_t i = 0; i < nmembers; i++)
        if (lengths[i] == name.n && memcmp(members[i].name, name.p, name.n) == 0)
            return &members[i];
    return NULL;
}

/* A string, number or word; *kind says which. */
static inline bool scalar(struct scan *s, enum json_kind *kind, bool *escaped)
{
    switch (*s->p) {
    case '"':
        *kind = JSON_STRING;
        return string(s, escaped);
    case 't':
        *kind = JSON_TRUE;
        return word(s, "true", 4);
    case 'f':
        *kind = JSON_FALSE;
        return word(s, "false", 5);
    case 'n':
        *kind = JSON_NULL;
        return word(s, "null", 4);
    default:
        *kind = JSON_NUMBER;
        return number(s);
    }
}

/* Scans one value with all that is in it; s->p is at its first byte. */
static bool whole_value(struct scan *s, struct json_member *members, const size_t *lengths,
                        size_t nmembers)
{
    struct json_member *wanted = NULL; /* whose value is being scanned, at depth 1 */
    enum json_kind kind;
    const char *start;
    bool escaped;

value:
    if (s->p == s->end)
        return fail(s, s->p, JSON_SYNTAX);
    start = s->p;
    escaped = false;
    if (*start == '{' || *start == '[') {
        kind = *start == '{' ? JSON_OBJECT : JSON_ARRAY;
        if (!open_level(s, kind == JSON_OBJECT))
            return false;
    } else if (!scalar(s, &kind, &escaped)) {
        return false;
    }
    if (wanted && wanted->kind == JSON_ABSENT) {
        wanted->kind = kind;
        wanted->value.p = start;
        wanted->escaped = escaped;
    }
    if (kind == JSON_OBJECT && !(s->p < s->end && *s->p == '}'))
        goto key;
    if (kind == JSON_ARRAY && !(s->p < s->end && *s->p == ']'))
        goto value;
    if (kind == JSON_OBJECT || kind == JSON_ARRAY)
        goto close;

after:
    if (s->depth == 0)
        return true;
    if (wanted && s->depth == 1) {
        wanted->value.n = (size_t)(s->p - wanted->value.p);
        wanted = NULL;
    }
    skip_space(s);
    if (s->p == s->end)
        return fail(s, s->p, JSON_SYNTAX);
    if (*s->p == ',') {
        s->p++;
        skip_space(s);
        if (in_object(s))
            goto key;
        goto value;
    }
    if (*s->p != (in_object(s) ? '}' : ']'))
        return fail(s, s->p, JSON_SYNTAX);
close:
    s->p++;
    s->depth--;
    goto after;

key:
    if (s->p == s->end || *s->p != '"')
        return fail(s, s->p, JSON_SYNTAX);
    start = s->p;
    if (!string(s, &escaped))
        return false;
    if (s->depth == 1) {
        struct span key = span_of(start, (size_t)(s->p - start));
        wanted = member_of(key, escaped, members, lengths, nmembers);
        if (wanted && wanted->kind != JSON_ABSENT)
            return fail(s, start, JSON_DUPLICATE);
    }
    skip_space(s);
    if (s->p == s->end || *s->p != ':')
        return fail(s, s->p, JSON_SYNTAX);
    s->p++;
    skip_space(s);
    goto value;
}

enum json_fault json_scan(struct span body, struct json_member *members, size_t nmembers,
                          size_t *at, bool *empty_object)
{
    struct scan s = {.p = body.p, .end = body.p + body.n};
    size_t lengths[MEMBERS_MAX];

    ALWAYS(nmembers <= MEMBERS_MAX);
    for (size_t i = 0; i < nmembers; i++) {
        lengths[i] = strlen(members[i].name);
        members[i].kind = JSON_ABSENT;
        members[i].value = span_of(NULL, 0);
        members[i].escaped = false;
    }
    *at = 0;
    if (body.n == 0)
        return JSON_EMPTY;
    skip_space(&s);
    if (s.p == s.end)
        return JSON_EMPTY;

    const char *start = s.p;
    if (whole_value(&s, members, lengths, nmembers)) {
        if (empty_object) {
            struct scan inside = {.p = start + 1, .end = s.p};
            skip_space(&inside);
            *empty_object = *start == '{' && inside.p + 1 == s.p;
        }
        skip_space(&s);
        if (s.p != s.end)
            fail(&s, s.p, JSON_SYNTAX);
        else if (*start != '{')
            fail(&s, start, JSON_NOT_OBJECT);
    }
    *at = (size_t)(s.p - body.p);
    return s.fault;
}

const char *json_fault_text(enum json_fault fault)
{
    static const char *const texts[] = {
#define X(id, text) [JSON_##id] = text,
        JSON_FAULTS(X)
#undef X
    };
    return texts[fault];
}
