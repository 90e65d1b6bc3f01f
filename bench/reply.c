/* reply - see reply.h. */
#include "reply.h"

#include <stdlib.h>

enum { LINE_MAX_BYTES = 65536 };

#define TO(st) (UINT32_C(1) << REPLY_##st)
#define ANY_BODY (TO(LENGTH) | TO(CHUNK_SIZE) | TO(UNTIL_CLOSE) | TO(WHOLE) | TO(HEAD))

static const uint32_t allowed[REPLY_NSTATES] = {
    [REPLY_HEAD] = ANY_BODY | TO(BROKEN),
    [REPLY_LENGTH] = TO(WHOLE),
    [REPLY_CHUNK_SIZE] = TO(CHUNK_DATA) | TO(TRAILER) | TO(BROKEN),
    [REPLY_CHUNK_DATA] = TO(CHUNK_END),
    [REPLY_CHUNK_END] = TO(CHUNK_SIZE) | TO(BROKEN),
    [REPLY_TRAILER] = TO(WHOLE) | TO(BROKEN),
    [REPLY_UNTIL_CLOSE] = TO(WHOLE),
};

static void set_state(struct reply *r, enum reply_state next)
{
    ALWAYS(allowed[r->state] & (UINT32_C(1) << next));
    r->state = next;
    ALWAYS((next == REPLY_BROKEN) == (r->complaint != NULL));
}

static void broken(struct reply *r, const char *complaint)
{
    r->complaint = complaint;
    set_state(r, REPLY_BROKEN);
}

void reply_begin(struct reply *r)
{
    *r = (struct reply){.state = REPLY_HEAD};
}

/* What the fields said about framing, before it is judged. */
struct framing {
    unsigned lengths, codings;
    uint64_t length;
    bool bad;
};

static void read_field(struct reply *r, struct framing *f, struct span line)
{
    size_t colon = span_index(line, ':');
    struct span name = span_of(line.p, colon);
    if (colon == 0 || colon == line.n) {
        f->bad = true;
        return;
    }
    struct span value = span_trim(span_of(line.p + colon + 1, line.n - colon - 1));

    if (span_eq_nocase(name, SPAN_LIT("content-length"))) {
        f->lengths++;
        if (!span_u64(value, &f->length))
            f->bad = true;
    } else if (span_eq_nocase(name, SPAN_LIT("transfer-encoding"))) {
        f->codings++;
        if (!span_eq_nocase(value, SPAN_LIT("chunked")))
            f->bad = true;
    } else if (span_eq_nocase(name, SPAN_LIT("connection"))) {
        if (span_eq_nocase(value, SPAN_LIT("close")))
            r->keep_alive = false;
        else if (span_eq_nocase(value, SPAN_LIT("keep-alive")))
            r->keep_alive = true;
    } else if (span_eq_nocase(name, SPAN_LIT("content-type"))) {
        r->event_stream = span_starts(value, SPAN_LIT("text/event-stream"));
    } else if (span_eq_nocase(name, SPAN_LIT("x-segue-version"))) {
        r->versions++;
        size_t n = value.n < sizeof(r->version) - 1 ? value.n : sizeof(r->version) - 1;
        memcpy(r->version, value.p, n);
        r->version[n] = 0;
    }
}

/* "HTTP/1.1 200 OK", the reason may be missing. */
static bool read_status_line(struct reply *r, struct span line)
{
    uint64_t status;

    if (line.n < 12 || memcmp(line.p, "HTTP/1.", 7) != 0 || line.p[8] != ' ' ||
        (line.p[7] != '0' && line.p[7] != '1') || (line.n > 12 && line.p[12] != ' ') ||
        !span_u64(span_of(line.p + 9, 3), &status) || status < 100)
        return false;
    r->status = (int)status;
    r->keep_alive = line.p[7] == '1';
    return true;
}

/* The line at p without its CRLF or LF; *used is 0 when its end is not there. */
static struct span next_line(const char *p, size_t n, size_t *used)
{
    const char *lf = memchr(p, '\n', n);

    *used = lf ? (size_t)(lf - p) + 1 : 0;
    if (!lf)
        return span_of(p, 0);
    return span_of(p, (size_t)(lf - p) - (lf > p && lf[-1] == '\r'));
}

static void judge_framing(struct reply *r, const struct framing *f)
{
    if (f->bad || f->lengths > 1 || f->codings > 1 || (f->lengths && f->codings)) {
        broken(r, "the answer's framing is ambiguous or not valid");
    } else if (r->status < 200) {
        reply_begin(r); /* an informational answer; the final one follows */
    } else if (r->status == 204 || r->status == 304) {
        set_state(r, REPLY_WHOLE);
    } else if (f->codings) {
        set_state(r, REPLY_CHUNK_SIZE);
    } else if (f->lengths) {
        r->left = f->length;
        set_state(r, f->length ? REPLY_LENGTH : REPLY_WHOLE);
    } else {
        r->keep_alive = false;
        set_state(r, REPLY_UNTIL_CLOSE);
    }
}

static size_t head_length(const char *p, size_t n)
{
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    return end ? (size_t)(end - p) + 4 : 0;
}

static size_t feed_head(struct reply *r, const char *p, size_t n)
{
    struct framing f = {0};
    size_t head = head_length(p, n), used;

    if (!head) {
        if (n > LINE_MAX_BYTES)
            broken(r, "the answer's head is larger than 64 KiB");
        return 0;
    }
    if (!read_status_line(r, next_line(p, head, &used))) {
        broken(r, "the answer does not begin with a status line");
        return 0;
    }
    for (size_t at = used; at < head - 2; at += used)
        read_field(r, &f, next_line(p + at, head - at, &used));
    judge_framing(r, &f);
    return head;
}

static size_t feed_chunk_size(struct reply *r, const char *p, size_t n)
{
    size_t used, digits = 0;
    struct span line = next_line(p, n, &used);

    if (!used) {
        if (n > LINE_MAX_BYTES)
            broken(r, "a chunk's size line does not end");
        return 0;
    }
    r->left = 0;
    for (; digits < line.n && digits < 16; digits++) {
        int c = line.p[digits] | 32;
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            break;
        r->left = r->left * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (digits == 0 || (digits < line.n && line.p[digits] != ';' && line.p[digits] != ' '))
        broken(r, "a chunk's size is not a hexadecimal number");
    else
        set_state(r, r->left ? REPLY_CHUNK_DATA : REPLY_TRAILER);
    return used;
}

static size_t feed_chunk_end(struct reply *r, const char *p, size_t n)
{
    if (n < 2)
        return 0;
    if (p[0] != '\r' || p[1] != '\n')
        broken(r, "a chunk is longer than its size says");
    else
        set_state(r, REPLY_CHUNK_SIZE);
    return 2;
}

static size_t feed_trailer(struct reply *r, const char *p, size_t n)
{
    size_t used;
    struct span line = next_line(p, n, &used);

    if (used && line.n == 0)
        set_state(r, REPLY_WHOLE);
    else if (n > LINE_MAX_BYTES)
        broken(r, "a trailer line does not end");
    return used;
}

static size_t feed_body(struct reply *r, const char *p, size_t n, reply_body_cb body, void *arg)
{
    size_t take = r->state != REPLY_UNTIL_CLOSE && r->left < n ? (size_t)r->left : n;

    if (take)
        body(arg, span_of(p, take));
    if (r->state == REPLY_UNTIL_CLOSE)
        return take;
    r->left -= take;
    if (r->left == 0)
        set_state(r, r->state == REPLY_LENGTH ? REPLY_WHOLE : REPLY_CHUNK_END);
    return take;
}

size_t reply_feed(struct reply *r, const char *p, size_t n, reply_body_cb body, void *arg)
{
    size_t at = 0;

    while (at < n && r->state != REPLY_WHOLE && r->state != REPLY_BROKEN) {
        size_t used = 0;
        switch (r->state) {
        case REPLY_HEAD:
            used = feed_head(r, p + at, n - at);
            break;
        case REPLY_CHUNK_SIZE:
            used = feed_chunk_size(r, p + at, n - at);
            break;
        case REPLY_CHUNK_END:
            used = feed_chunk_end(r, p + at, n - at);
            break;
        case REPLY_TRAILER:
            used = feed_trailer(r, p + at, n - at);
            break;
        default:
            used = feed_body(r, p + at, n - at, body, arg);
        }
        if (used == 0)
            break;
        at += used;
    }
    return at;
}

bool reply_closed(struct reply *r)
{
    if (r->state == REPLY_UNTIL_CLOSE)
        set_state(r, REPLY_WHOLE);
    return r->state == REPLY_WHOLE;
}
