/*
 * parse - see parse.h.
 *
 * One pass over the head: the first line by hand, then a loop over the field
 * lines.  A field name is checked byte by byte against a table, found by a
 * small hash of its length and its first and last letter, and what it means
 * for framing is acted on at once; a value is run over 16 bytes at a time
 * where the machine can.  Nothing is copied and nothing is allocated; of the
 * result only what is used is written.
 */
#include "http/parse.h"

#include <arpa/inet.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { CONNECTION_OPTIONS_MAX = 32 };

/* What a byte may be part of. */
enum {
    TOKEN = 1,  /* RFC 9110 section 5.6.2 */
    TARGET = 2, /* RFC 3986 path and query, and [ ] ^ ` { | } that browsers send as they are */
    HOST = 4,   /* RFC 3986 reg-name */
    HEX = 8
};

// clang-format off
static const uint8_t classes[256] = {
    ['!'] = TOKEN | TARGET | HOST, ['#'] = TOKEN, ['$'] = TOKEN | TARGET | HOST,
    ['%'] = TOKEN, /* target and host: only before two hexadecimal digits */
    ['&'] = TOKEN | TARGET | HOST, ['\''] = TOKEN | TARGET | HOST,
    ['('] = TARGET | HOST, [')'] = TARGET | HOST, ['*'] = TOKEN | TARGET | HOST,
    ['+'] = TOKEN | TARGET | HOST, [','] = TARGET | HOST, ['-'] = TOKEN | TARGET | HOST,
    ['.'] = TOKEN | TARGET | HOST, ['/'] = TARGET, ['0' ... '9'] = TOKEN | TARGET | HOST | HEX,
    [':'] = TARGET, [';'] = TARGET | HOST, ['='] = TARGET | HOST, ['?'] = TARGET, ['@'] = TARGET,
    ['A' ... 'F'] = TOKEN | TARGET | HOST | HEX, ['G' ... 'Z'] = TOKEN | TARGET | HOST,
    ['['] = TARGET, [']'] = TARGET, ['^'] = TOKEN | TARGET, ['_'] = TOKEN | TARGET | HOST,
    ['`'] = TOKEN | TARGET, ['a' ... 'f'] = TOKEN | TARGET | HOST | HEX,
    ['g' ... 'z'] = TOKEN | TARGET | HOST, ['{'] = TARGET, ['|'] = TOKEN | TARGET,
    ['}'] = TARGET, ['~'] = TOKEN | TARGET | HOST,
};
// clang-format on

static inline bool is(char c, unsigned what)
{
    return classes[(unsigned char)c] & what;
}

static inline const char *skip(const char *p, const char *end, unsigned what)
{
    while (p < end && is(*p, what))
        p++;
    return p;
}

/* Runs over bytes of the class and %XX; stops at the first other byte. */
static const char *skip_escaped(const char *p, const char *end, unsigned what)
{
    for (;;) {
        p = skip(p, end, what);
        if (end - p < 3 || *p != '%' || !is(p[1], HEX) || !is(p[2], HEX))
            return p;
        p += 3;
    }
}

/* The first byte that a field value cannot hold (RFC 9110 section 5.5: a
 * control byte other than HTAB), which in a good head is its CR. */
static inline const char *value_end(const char *p, const char *end)
{
#ifdef __SSE2__
    const __m128i last_control = _mm_set1_epi8(0x1f);
    const __m128i tab = _mm_set1_epi8('\t');
    const __m128i del = _mm_set1_epi8(0x7f);
    while (end - p >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, last_control), v);
        __m128i bad =
            _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, tab), control), _mm_cmpeq_epi8(v, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(bad);
        if (mask)
            return p + __builtin_ctz(mask);
        p += 16;
    }
#endif
    while (p < end && (((unsigned char)*p >= 0x20 && *p != 0x7f) || *p == '\t'))
        p++;
    return p;
}

size_t http_head_end(const char *p, size_t n, size_t *scanned)
{
    size_t i = *scanned;

#ifdef __SSE2__
    const __m128i lf = _mm_set1_epi8('\n');
    for (; n - i >= 16; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, lf));
        for (; mask; mask &= mask - 1) {
            size_t at = i + (unsigned)__builtin_ctz(mask);
            size_t back = at && p[at - 1] == '\r' ? 2 : 1;
            if (at >= back && p[at - back] == '\n')
                return at + 1;
        }
    }
#endif
    for (; i < n; i++) {
        if (p[i] != '\n')
            continue;
        size_t back = i && p[i - 1] == '\r' ? 2 : 1;
        if (i >= back && p[i - back] == '\n')
            return i + 1;
    }
    *scanned = n;
    return 0;
}

size_t http_skip_empty_lines(const char *p, size_t n)
{
    return n >= 2 && p[0] == '\r' && p[1] == '\n' ? 2 : 0;
}

/* ---- field names ---- */

struct known_field {
    const char *name;
    uint8_t n;
    bool hop;
};

static const struct known_field known[HTTP_NFIELD_IDS] = {
#define X(id, name, hop) [HTTP_FIELD_##id] = {name, sizeof(name) - 1, hop},
    HTTP_FIELDS(X)
#undef X
};

/* With these factors no two of the known names share a slot. */
enum { SLOTS = 64, SLOT_N = 2, SLOT_FIRST = 11, SLOT_LAST = 9 };

/* Open addressing; filled once before main() from the table in parse.h, so
 * that a new row there needs nothing here. */
static uint8_t slots[SLOTS];

static inline unsigned slot_of(const char *name, size_t n)
{
    return (unsigned)(n * SLOT_N + (name[0] | 0x20) * SLOT_FIRST +
                      (name[n - 1] | 0x20) * SLOT_LAST) %
           SLOTS;
}

__attribute__((constructor)) static void fill_slots(void)
{
    for (unsigned id = 1; id < HTTP_NFIELD_IDS; id++) {
        unsigned slot = slot_of(known[id].name, known[id].n);
        while (slots[slot])
            slot = (slot + 1) % SLOTS;
        slots[slot] = (uint8_t)id;
    }
}

/* Whether a token is this lower-case name in any case.  Setting bit 5 makes
 * letters small and leaves the hyphen; no other token byte becomes either. */
static inline bool is_name(const char *token, const char *name, size_t n)
{
    const uint64_t bit5 = UINT64_C(0x2020202020202020);
    uint64_t a, b;
    size_t i = 0;

    for (; n - i >= 8; i += 8) {
        memcpy(&a, token + i, 8);
        memcpy(&b, name + i, 8);
        if ((a | bit5) != b)
            return false;
    }
    for (; i < n; i++)
        if ((token[i] | 0x20) != name[i])
            return false;
    return true;
}

static inline enum http_field_id field_id(const char *name, size_t n)
{
    for (unsigned slot = slot_of(name, n); slots[slot]; slot = (slot + 1) % SLOTS) {
        unsigned id = slots[slot];
        if (known[id].n == n && is_name(name, known[id].name, n))
            return (enum http_field_id)id;
    }
    return HTTP_FIELD_OTHER;
}

const struct http_field *http_field_find(const struct http_field *fields, size_t n,
                                         enum http_field_id id)
{
    for (size_t i = 0; i < n; i++)
        if (fields[i].id == id)
            return &fields[i];
    return NULL;
}

/* ---- field values that decide something ---- */

/* uri-host [ ":" port ] (RFC 9110 section 7.2), the host not empty. */
static bool host_valid(struct span host)
{
    const char *p = host.p, *end = host.p + host.n;

    if (host.n && *p == '[') {
        const char *close = memchr(p, ']', host.n);
        char text[INET6_ADDRSTRLEN];
        struct in6_addr address;
        size_t n = close ? (size_t)(close - p) - 1 : sizeof(text);
        if (n >= sizeof(text))
            return false;
        memcpy(text, p + 1, n);
        text[n] = '\0';
        if (strlen(text) != n || inet_pton(AF_INET6, text, &address) != 1)
            return false;
        p = close + 1;
    } else {
        p = skip_escaped(p, end, HOST);
        if (p == host.p)
            return false;
    }
    if (p == end)
        return true;
    unsigned port = 0;
    if (*p++ != ':')
        return false;
    for (; p < end && *p >= '0' && *p <= '9' && port <= 65535; p++)
        port = port * 10 + (unsigned)(*p - '0');
    return p == end && port <= 65535;
}

/* What the field lines said about the message as a whole. */
struct message {
    bool host, length, coding;
    bool close, stay; /* Connection: close, keep-alive */
    bool nominated;   /* Connection names other fields */
    struct span host_value;
    uint64_t content_length;
};

/* Takes the next member of a comma-separated list, trimmed; false at its end. */
static bool list_next(struct span *list, struct span *member)
{
    if (list->n == 0)
        return false;
    size_t n = span_index(*list, ',');
    *member = span_trim(span_of(list->p, n));
    n += n < list->n;
    *list = span_of(list->p + n, list->n - n);
    return true;
}

static enum http_fault on_connection(struct message *m, struct span list)
{
    struct span option;

    if (list.n == 5 && is_name(list.p, "close", 5)) {
        m->close = true;
        return HTTP_FAULT_NONE;
    }
    if (list.n == 10 && is_name(list.p, "keep-alive", 10)) {
        m->stay = true;
        return HTTP_FAULT_NONE;
    }
    for (int count = 0; list_next(&list, &option); count++) {
        if (count == CONNECTION_OPTIONS_MAX ||
            skip(option.p, option.p + option.n, TOKEN) != option.p + option.n)
            return HTTP_FAULT_BAD_CONNECTION;
        if (option.n == 5 && is_name(option.p, "close", 5))
            m->close = true;
        else if (option.n == 10 && is_name(option.p, "keep-alive", 10))
            m->stay = true;
        else if (option.n)
            m->nominated = true;
    }
    return HTTP_FAULT_NONE;
}

/* Fields that Connection names become hop-by-hop, but never those that
 * somebody here acts on: a client must not be able to strip Content-Type,
 * Authorization or X-Forwarded-For (RFC 9110 section 7.6.1). */
static void mark_nominated(struct http_field *fields, size_t n)
{
    struct span list, option;

    for (size_t i = 0; i < n; i++) {
        if (fields[i].id != HTTP_FIELD_CONNECTION)
            continue;
        list = fields[i].value;
        while (list_next(&list, &option))
            for (size_t k = 0; option.n && k < n; k++)
                if (fields[k].id == HTTP_FIELD_OTHER && span_eq_nocase(fields[k].name, option))
                    fields[k].hop = true;
    }
}

static inline enum http_fault on_field(struct message *m, const struct http_field *f, int minor,
                                       bool request)
{
    switch (f->id) {
    case HTTP_FIELD_HOST:
        if (!request)
            break;
        if (m->host || !host_valid(f->value))
            return HTTP_FAULT_BAD_HOST;
        m->host = true;
        m->host_value = f->value;
        break;
    case HTTP_FIELD_CONTENT_LENGTH:
        if (m->length || !span_u64(f->value, &m->content_length))
            return HTTP_FAULT_BAD_LENGTH;
        m->length = true;
        break;
    case HTTP_FIELD_TRANSFER_ENCODING:
        /* HTTP/1.0 has no transfer codings; who sends one may frame by it or not. */
        if (m->coding || minor == 0 || f->value.n != 7 || !is_name(f->value.p, "chunked", 7))
            return HTTP_FAULT_BAD_CODING;
        m->coding = true;
        break;
    case HTTP_FIELD_CONNECTION:
        return on_connection(m, f->value);
    case HTTP_FIELD_EXPECT:
        if (request && !span_eq_nocase(f->value, SPAN_LIT("100-continue")))
            return HTTP_FAULT_BAD_EXPECT;
        break;
    default:
        break;
    }
    return HTTP_FAULT_NONE;
}

/* ---- lines ---- */

/* The fault of a line that ends at p, where something else was needed. */
static enum http_fault line_fault(const char *p, const char *end, enum http_fault otherwise)
{
    if (p < end && *p == '\n')
        return HTTP_FAULT_BARE_CR_OR_LF;
    if (p < end && *p == '\r' && (p + 1 == end || p[1] != '\n'))
        return HTTP_FAULT_BARE_CR_OR_LF;
    return otherwise;
}

static inline bool at_crlf(const char *p, const char *end)
{
    return end - p >= 2 && p[0] == '\r' && p[1] == '\n';
}

/* name ":" OWS value OWS CRLF */
static inline enum http_fault field_line(const char **at, const char *end, struct http_field *f)
{
    const char *name = *at;

    if (*name == ' ' || *name == '\t')
        return HTTP_FAULT_OBS_FOLD;
    const char *p = skip(name, end, TOKEN);
    if (p == end || *p != ':' || p == name)
        return line_fault(p, end, HTTP_FAULT_BAD_FIELD_NAME);
    f->name = span_of(name, (size_t)(p - name));
    f->id = field_id(name, f->name.n);
    f->hop = known[f->id].hop;

    p++;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    const char *stop = value_end(p, end);
    if (!at_crlf(stop, end))
        return line_fault(stop, end, HTTP_FAULT_BAD_FIELD_VALUE);
    *at = stop + 2;
    while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    f->value = span_of(p, (size_t)(stop - p));
    return HTTP_FAULT_NONE;
}

static inline __attribute__((always_inline)) enum http_fault
field_lines(const char *p, const char *end, struct http_field *fields, size_t *nfields,
            struct message *m, int minor, bool request)
{
    size_t n = 0;

    while (p < end && !at_crlf(p, end)) {
        if (n == HTTP_FIELDS_MAX)
            return HTTP_FAULT_TOO_MANY_FIELDS;
        enum http_fault fault = field_line(&p, end, &fields[n]);
        if (fault == HTTP_FAULT_NONE)
            fault = on_field(m, &fields[n], minor, request);
        if (fault != HTTP_FAULT_NONE)
            return fault;
        n++;
    }
    if (end - p != 2)
        return HTTP_FAULT_BAD_LINE;
    if (m->length && m->coding)
        return HTTP_FAULT_LENGTH_AND_CODING;
    if (m->nominated)
        mark_nominated(fields, n);
    *nfields = n;
    return HTTP_FAULT_NONE;
}

/* ---- requests ---- */

static enum http_method method_of(struct span s)
{
#define X(id)                                                 \
    if (s.n == sizeof(#id) - 1 && memcmp(s.p, #id, s.n) == 0) \
        return HTTP_##id;
    HTTP_METHODS(X)
#undef X
    return HTTP_METHOD_OTHER;
}

/* Splits at the first '?'. */
static void split_query(struct http_request_head *head, struct span s)
{
    size_t n = span_index(s, '?');

    head->path = span_of(s.p, n);
    head->query = n < s.n ? span_of(s.p + n + 1, s.n - n - 1) : span_of(s.p + n, 0);
}

/* Finds path and query; *authority is set for the absolute form. */
static bool split_target(struct http_request_head *head, struct span *authority)
{
    struct span t = head->target;

    if (t.p[0] == '/') {
        split_query(head, t);
        return true;
    }
    if (t.n == 1 && t.p[0] == '*') {
        split_query(head, t);
        return head->method == HTTP_OPTIONS;
    }
    size_t scheme = t.n > 7 && span_eq_nocase(span_of(t.p, 7), SPAN_LIT("http://"))    ? 7
                    : t.n > 8 && span_eq_nocase(span_of(t.p, 8), SPAN_LIT("https://")) ? 8
                                                                                       : 0;
    if (!scheme)
        return false;
    struct span rest = span_of(t.p + scheme, t.n - scheme);
    size_t n = 0;
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
        n++;
    *authority = span_of(rest.p, n);
    split_query(head, span_of(rest.p + n, rest.n - n));
    if (head->path.n == 0)
        head->path = span_of(rest.p - 1, 1); /* the last slash of "://" stands for "/" */
    return host_valid(*authority);
}

static enum http_fault version_fault(const char *p, const char *end)
{
    const char *q = p;

    if (end - q >= 8 && memcmp(q, "HTTP/", 5) == 0 && q[5] >= '0' && q[5] <= '9' && q[6] == '.' &&
        q[7] >= '0' && q[7] <= '9')
        return HTTP_FAULT_BAD_VERSION;
    while (q < end && *q != '\r' && *q != '\n')
        q++;
    return line_fault(q, end, HTTP_FAULT_BAD_LINE);
}

/* "HTTP/1.x": the minor version, or -1. */
static inline int minor_version(const char *p, const char *end)
{
    if (end - p < 8 || memcmp(p, "HTTP/1.", 7) != 0)
        return -1;
    return p[7] == '1' ? 1 : p[7] == '0' ? 0 : -1;
}

static inline enum http_fault request_line(struct http_request_head *head, const char **at,
                                           const char *end)
{
    const char *start = *at;
    const char *p = skip(start, end, TOKEN);

    if (p == start || p == end || *p != ' ')
        return line_fault(p, end, p == start ? HTTP_FAULT_BAD_LINE : HTTP_FAULT_BAD_METHOD);
    head->method_text = span_of(start, (size_t)(p - start));
    head->method = method_of(head->method_text);

    start = ++p;
    p = skip_escaped(start, end, TARGET);
    if (p == start || p == end || *p != ' ')
        return line_fault(p, end, at_crlf(p, end) ? HTTP_FAULT_BAD_LINE : HTTP_FAULT_BAD_TARGET);
    head->target = span_of(start, (size_t)(p - start));

    p++;
    head->minor = minor_version(p, end);
    if (head->minor < 0)
        return version_fault(p, end);
    p += 8;
    if (!at_crlf(p, end))
        return line_fault(p, end, HTTP_FAULT_BAD_LINE);
    *at = p + 2;
    return HTTP_FAULT_NONE;
}

enum http_fault http_parse_request(struct http_request_head *head, const char *p, size_t n)
{
    const char *end = p + n;
    struct message m = {0};
    struct span authority = {0};

    enum http_fault fault = request_line(head, &p, end);
    if (fault != HTTP_FAULT_NONE)
        return fault;
    if (!split_target(head, &authority))
        return HTTP_FAULT_BAD_TARGET;
    fault = field_lines(p, end, head->fields, &head->nfields, &m, head->minor, true);
    if (fault != HTTP_FAULT_NONE)
        return fault;
    if (!m.host && head->minor == 1)
        return HTTP_FAULT_NO_HOST;
    if (authority.p && m.host && !span_eq_nocase(authority, m.host_value))
        return HTTP_FAULT_HOST_MISMATCH;

    head->host = m.host_value;
    head->content_length = m.content_length;
    head->framing = m.coding ? HTTP_BODY_CHUNKED : m.length ? HTTP_BODY_LENGTH : HTTP_BODY_NONE;
    head->keep_alive = !m.close && (head->minor == 1 || m.stay);
    head->expect_continue = false;
    /* HTTP/1.0 knows no 100 (RFC 9110 section 10.1.1), and without a body
     * nobody waits for one. */
    if (head->minor == 1 && (m.coding || m.content_length))
        head->expect_continue =
            http_field_find(head->fields, head->nfields, HTTP_FIELD_EXPECT) != NULL;
    return HTTP_FAULT_NONE;
}

/* ---- answers ---- */

static enum http_fault status_line(struct http_response_head *head, const char **at,
                                   const char *end)
{
    const char *p = *at;

    head->minor = minor_version(p, end);
    if (head->minor < 0) {
        enum http_fault fault = version_fault(p, end);
        return fault == HTTP_FAULT_BAD_LINE ? HTTP_FAULT_BAD_STATUS : fault;
    }
    p += 8;
    if (end - p < 6 || p[0] != ' ' || p[1] < '1' || p[1] > '5' || p[2] < '0' || p[2] > '9' ||
        p[3] < '0' || p[3] > '9')
        return line_fault(p, end, HTTP_FAULT_BAD_STATUS);
    head->status = (p[1] - '0') * 100 + (p[2] - '0') * 10 + (p[3] - '0');
    p += 4;
    if (*p == ' ')
        p++;
    else if (!at_crlf(p, end))
        return line_fault(p, end, HTTP_FAULT_BAD_STATUS);
    const char *stop = value_end(p, end);
    if (!at_crlf(stop, end))
        return line_fault(stop, end, HTTP_FAULT_BAD_STATUS);
    head->reason = span_of(p, (size_t)(stop - p));
    *at = stop + 2;
    /* Nobody here asks for another protocol. */
    return head->status == 101 ? HTTP_FAULT_BAD_STATUS : HTTP_FAULT_NONE;
}

enum http_fault http_parse_response(struct http_response_head *head, const char *p, size_t n,
                                    bool head_only)
{
    const char *end = p + n;
    struct message m = {0};

    enum http_fault fault = status_line(head, &p, end);
    if (fault != HTTP_FAULT_NONE)
        return fault;
    fault = field_lines(p, end, head->fields, &head->nfields, &m, head->minor, false);
    if (fault != HTTP_FAULT_NONE)
        return fault;

    head->content_length = m.content_length;
    if (head_only || head->status < 200 || head->status == 204 || head->status == 304)
        head->framing = HTTP_BODY_NONE;
    else
        head->framing = m.coding   ? HTTP_BODY_CHUNKED
                        : m.length ? HTTP_BODY_LENGTH
                                   : HTTP_BODY_CLOSE;
    head->keep_alive = !m.close && (head->minor == 1 || m.stay) && head->framing != HTTP_BODY_CLOSE;
    return HTTP_FAULT_NONE;
}

/* ---- words ---- */

static const struct {
    int status;
    const char *text;
} faults[] = {
#define X(id, status, text) [HTTP_FAULT_##id] = {status, text},
    HTTP_FAULTS(X)
#undef X
};

const char *http_fault_text(enum http_fault fault)
{
    return faults[fault].text;
}

int http_fault_status(enum http_fault fault)
{
    return faults[fault].status;
}

// clang-format off
#define REASONS(X)                                                              \
    X(100, "Continue")            X(200, "OK")                                  \
    X(201, "Created")             X(202, "Accepted")                            \
    X(204, "No Content")          X(206, "Partial Content")                     \
    X(301, "Moved Permanently")   X(302, "Found")                               \
    X(303, "See Other")           X(304, "Not Modified")                        \
    X(307, "Temporary Redirect")  X(308, "Permanent Redirect")                  \
    X(400, "Bad Request")         X(401, "Unauthorized")                        \
    X(403, "Forbidden")           X(404, "Not Found")                           \
    X(405, "Method Not Allowed")  X(406, "Not Acceptable")                      \
    X(408, "Request Timeout")     X(409, "Conflict")                            \
    X(411, "Length Required")     X(412, "Precondition Failed")                 \
    X(413, "Content Too Large")   X(414, "URI Too Long")                        \
    X(415, "Unsupported Media Type")  X(416, "Range Not Satisfiable")           \
    X(417, "Expectation Failed")  X(421, "Misdirected Request")                 \
    X(422, "Unprocessable Content")   X(425, "Too Early")                       \
    X(426, "Upgrade Required")    X(429, "Too Many Requests")                   \
    X(431, "Request Header Fields Too Large")                                   \
    X(499, "Client Closed Request")                                             \
    X(500, "Internal Server Error")   X(501, "Not Implemented")                 \
    X(502, "Bad Gateway")         X(503, "Service Unavailable")                 \
    X(504, "Gateway Timeout")     X(505, "HTTP Version Not Supported")          \
    X(507, "Insufficient Storage")
// clang-format on

const char *http_reason(int status)
{
    switch (status) {
#define X(code, text) \
    case code:        \
        return text;
        REASONS(X)
#undef X
    }
    return status < 200   ? "Informational"
           : status < 300 ? "Success"
           : status < 400 ? "Redirection"
           : status < 500 ? "Client Error"
                          : "Server Error";
}
