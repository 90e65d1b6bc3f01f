/* gateway/access - see access.h. */
#include "gateway/access.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "gateway/gateway.h"
#include "gateway/internal.h"
#include "gateway/keyring.h"

enum {
    WRITE_AT = 32768,      /* bytes that are written at once */
    KEEP_MAX = 256 * 1024, /* bytes that are kept for a file that does not take them */
    WRITE_AFTER_MS = 1000, /* a line is not older when it is written */
    KEY_MAX = 64,
    METHOD_MAX = 16,
    PATH_MAX_SHOWN = 256
};

/* What is known of a request before its exchange, and without one. */
struct access_note {
    uint64_t began_ns;
    struct exchange *exchange; /* borrowed; ended within this call stack */
    const char *error;         /* static; NULL: none */
    int status;                /* of an answer of our own; 0: none was made */
    uint64_t bytes;
    size_t method_n, path_n, id_n, key_n;
    char method[METHOD_MAX], path[PATH_MAX_SHOWN], id[REQUEST_ID_MAX], key[KEY_MAX];
};

/* --- a line ------------------------------------------------------------------ */

static const char *const outcome_names[] = {
#define X(id, name, note) [ACCESS_##id] = name,
    ACCESS_OUTCOMES(X)
#undef X
};

/* Where the line goes on; there is room for all of it (line_room). */
struct line {
    char *p;
    bool text;
};

enum { FIXED_MAX = 1024, ESCAPED_MAX = 6 /* bytes that one byte may become */ };

/* The longest line that a record can make. */
static size_t line_room(const struct access_record *r)
{
    size_t n = r->request_id.n + r->client.n + r->key.n + r->method.n + r->path.n + r->model.n +
               r->version.n + r->replica.n + r->error.n;

    return FIXED_MAX + ESCAPED_MAX * n;
}

static inline void add(struct line *l, const char *p, size_t n)
{
    memcpy(l->p, p, n);
    l->p += n;
}

#define ADD(l, literal) \
    add(l, literal, sizeof(literal) - 1) /* What stands before a value, but the first one. */
#define MEMBER(l, name) ((l)->text ? ADD(l, " " name "=") : ADD(l, ",\"" name "\":"))

/* A character of n bytes as UTF-16; n is 0: what is no character. The number of units. */
static size_t utf16(const char *p, size_t n, uint16_t out[2])
{
    static const unsigned char first[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = n ? (unsigned char)p[0] & first[n] : 0xfffd;

    for (size_t i = 1; i < n; i++)
        c = c << 6 | ((unsigned char)p[i] & 0x3f);
    if (c < 0x10000) {
        out[0] = (uint16_t)c;
        return 1;
    }
    c -= 0x10000;
    out[0] = (uint16_t)(0xd800 | c >> 10);
    out[1] = (uint16_t)(0xdc00 | (c & 0x3ff));
    return 2;
}

static void add_unit(struct line *l, uint16_t unit)
{
    static const char hex[] = "0123456789abcdef";

    ADD(l, "\\u");
    for (int shift = 12; shift >= 0; shift -= 4)
        *l->p++ = hex[unit >> shift & 15];
}

/* As the inside of a JSON string that is all ASCII: not every reader of lines ends them at
 * a line feed only, and a terminal does strange things with some characters. */
static void add_escaped(struct line *l, struct span s)
{
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= ' ' && c < 0x7f) {
            if (c == '"' || c == '\\')
                *l->p++ = '\\';
            *l->p++ = (char)c;
            i++;
            continue;
        }
        size_t n = utf8_length(s.p + i, s.n - i);
        uint16_t units[2];
        for (size_t k = 0, m = utf16(s.p + i, n, units); k < m; k++)
            add_unit(l, units[k]);
        i += n ? n : 1;
    }
}

/* Text that stands for itself: printable ASCII without a quote, a backslash, and, outside
 * quotes, a blank or '='. */
static bool is_plain(struct span s, bool quoted)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < ' ' || c >= 0x7f || c == '"' || c == '\\' || (!quoted && (c == ' ' || c == '=')))
            return false;
    }
    return true;
}

/* Escaped in both formats, so that no client can end a line or begin a member. */
static void add_text(struct line *l, struct span s)
{
    if (s.n == 0) {
        l->text ? ADD(l, "-") : ADD(l, "null");
    } else if (l->text && is_plain(s, false) && !span_eq(s, SPAN_LIT("-"))) {
        add(l, s.p, s.n);
    } else {
        *l->p++ = '"';
        if (is_plain(s, true))
            add(l, s.p, s.n);
        else
            add_escaped(l, s);
        *l->p++ = '"';
    }
}

static void add_number(struct line *l, uint64_t n)
{
    char digits[20];
    size_t i = sizeof(digits);

    if (n == ACCESS_NONE) {
        l->text ? ADD(l, "-") : ADD(l, "null");
        return;
    }
    do
        digits[--i] = (char)('0' + n % 10);
    while (n /= 10);
    add(l, digits + i, sizeof(digits) - i);
}

/* n, below 1000, with three digits. */
static void add_three(struct line *l, unsigned n)
{
    *l->p++ = (char)('0' + n / 100);
    *l->p++ = (char)('0' + n / 10 % 10);
    *l->p++ = (char)('0' + n % 10);
}

/* Microseconds as milliseconds: 12345 is 12.345. */
static void add_millis(struct line *l, uint64_t us)
{
    add_number(l, us == ACCESS_NONE ? us : us / 1000);
    if (us != ACCESS_NONE) {
        *l->p++ = '.';
        add_three(l, (unsigned)(us % 1000));
    }
}

static void add_time(struct line *l, int64_t wall_ms)
{
    /* The text of a second; to make it costs more than the rest of a line. */
    static _Thread_local int64_t second = -1;
    static _Thread_local char when[CLOCK_TEXT_MAX];

    if (wall_ms / 1000 != second) {
        second = wall_ms / 1000;
        clock_text(second * 1000, when);
    }
    add(l, when, sizeof("2026-01-31T12:00:00.") - 1);
    add_three(l, (unsigned)(wall_ms % 1000));
    *l->p++ = 'Z';
}

void access_format(struct buf *out, const struct access_record *r, bool text)
{
    size_t room = line_room(r);
    char *begin = buf_room(out, room);
    struct line l = {.p = begin, .text = text};
    struct span outcome = span_str(outcome_names[r->outcome]);

    text ? ADD(&l, "time=") : ADD(&l, "{\"time\":\"");
    add_time(&l, r->wall_ms);
    if (!text)
        *l.p++ = '"';
    MEMBER(&l, "request_id"), add_text(&l, r->request_id);
    MEMBER(&l, "client"), add_text(&l, r->client);
    MEMBER(&l, "key"), add_text(&l, r->key);
    MEMBER(&l, "method"), add_text(&l, r->method);
    MEMBER(&l, "path"), add_text(&l, r->path);
    MEMBER(&l, "model"), add_text(&l, r->model);
    MEMBER(&l, "version"), add_text(&l, r->version);
    MEMBER(&l, "replica"), add_text(&l, r->replica);
    MEMBER(&l, "status"), add_number(&l, r->status ? (uint64_t)r->status : ACCESS_NONE);
    MEMBER(&l, "outcome"), add_text(&l, outcome);
    MEMBER(&l, "error"), add_text(&l, r->error);
    MEMBER(&l, "bytes"), add_number(&l, r->bytes);
    MEMBER(&l, "events"), add_number(&l, r->events);
    MEMBER(&l, "first_byte_ms"), add_millis(&l, r->first_byte_us);
    MEMBER(&l, "token_ms"), add_millis(&l, r->token_us);
    MEMBER(&l, "total_ms"), add_millis(&l, r->total_us);
    MEMBER(&l, "held_ms"), add_millis(&l, r->held_us);
    MEMBER(&l, "tries"), add_number(&l, r->tries);
    MEMBER(&l, "overhead_us"), add_number(&l, r->overhead_us);
    text ? ADD(&l, "\n") : ADD(&l, "}\n");
    ALWAYS((size_t)(l.p - begin) <= room);
    buf_added(out, (size_t)(l.p - begin));
}

/* --- writing ----------------------------------------------------------------- */

static size_t count_lines(const char *p, size_t n)
{
    size_t lines = 0;

    for (const char *end = p + n; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
        lines++;
    return lines;
}

/* Bytes up to the end of the last whole line within the first n. */
static size_t whole_lines(const char *p, size_t n)
{
    const char *last = n ? memrchr(p, '\n', n) : NULL;

    return last ? (size_t)(last + 1 - p) : 0;
}

/* One write(2) of whole lines; how many bytes of them are in the file, all or less. */
static size_t write_lines(struct access_log *log, const char *p, size_t n)
{
    struct iovec pieces[2] = {{(char *)"\n", log->torn}, {(char *)p, n}};
    ssize_t taken;

    do
        taken = writev(log->fd, pieces, 2);
    while (taken < 0 && errno == EINTR);
    if (taken <= 0)
        return 0;
    taken -= log->torn;
    /* The rest of a line that was cut is not written later, where another worker's
     * line may stand: the whole line is, after a line feed. */
    size_t whole = whole_lines(p, (size_t)taken);
    log->torn = whole < (size_t)taken;
    return whole;
}

static void write_out(struct worker *w)
{
    struct access_log *log = &w->log;
    size_t n;
    bool took = true;

    while (took && (n = buf_pending(&log->out)) > 0) {
        size_t most = log->pieces && n > PIPE_BUF ? PIPE_BUF : n;
        size_t lines = whole_lines(buf_head(&log->out), most);
        size_t done = write_lines(log, buf_head(&log->out), lines);
        counter_add(&w->row->log_lines, count_lines(buf_head(&log->out), done));
        buf_consume(&log->out, done);
        took = done == lines;
    }
    if (!took && !log->failing)
        log_warn("worker %u: the access log's file does not take its lines: %s", w->index,
                 strerror(errno));
    if (took && log->failing)
        log_info("worker %u: the access log is written again; %llu lines were lost", w->index,
                 (unsigned long long)log->lost);
    log->failing = !took;
    if (took)
        log->lost = 0;
}

static void on_timer(struct timer *timer)
{
    struct worker *w = CONTAINER_OF(timer, struct worker, log.timer);

    write_out(w);
    if (buf_pending(&w->log.out))
        timer_set(&w->loop.timers, timer, w->loop.now_ns + WRITE_AFTER_MS * UINT64_C(1000000));
}

static void lose(struct worker *w, uint64_t lines)
{
    w->log.lost += lines;
    counter_add(&w->row->log_lost, lines);
}

static void put(struct worker *w, const struct access_record *r)
{
    struct access_log *log = &w->log;

    if (buf_pending(&log->out) >= KEEP_MAX) {
        lose(w, 1);
        return;
    }
    access_format(&log->out, r, log->text);
    if (buf_pending(&log->out) >= WRITE_AT && !log->failing)
        write_out(w);
    if (buf_pending(&log->out) && !timer_is_set(&log->timer))
        timer_set(&w->loop.timers, &log->timer,
                  w->loop.now_ns + WRITE_AFTER_MS * UINT64_C(1000000));
}

/* --- the file ---------------------------------------------------------------- */

void access_init(struct worker *w)
{
    w->log.fd = -1;
    timer_init(&w->log.timer, on_timer);
}

void access_fini(struct worker *w)
{
    struct access_log *log = &w->log;

    timer_clear(&log->timer);
    if (log->fd < 0)
        return;
    write_out(w);
    if (buf_pending(&log->out))
        lose(w, count_lines(buf_head(&log->out), buf_pending(&log->out)));
    buf_fini(&log->out);
    close(log->fd);
    log->fd = -1;
}

void access_adopt(struct worker *w)
{
    struct stat st;
    int fd;
    bool text;

    if (!gateway_access(w->gateway, &w->log.seen, &fd, &text))
        return;
    access_fini(w);
    w->log.fd = fd;
    w->log.text = text;
    w->log.failing = w->log.torn = false;
    w->log.lost = 0;
    w->log.pieces = fd >= 0 && fstat(fd, &st) == 0 && !S_ISREG(st.st_mode);
}

/* --- a request --------------------------------------------------------------- */

static size_t copy(char *out, size_t room, struct span from)
{
    size_t n = from.n < room ? from.n : room;

    if (n)
        memcpy(out, from.p, n);
    return n;
}

void access_begin(struct client *c, const struct http_request_head *head)
{
    struct access_note *n = mem_alloc(sizeof(*n));

    access_drop(c);
    memset(n, 0, offsetof(struct access_note, method)); /* the texts have their lengths */
    c->note = n;
    n->began_ns = c->worker->loop.now_ns;
    if (!head)
        return;
    n->method_n = copy(n->method, sizeof(n->method), head->method_text);
    n->path_n = copy(n->path, sizeof(n->path), head->path);
    const struct http_field *f =
        http_field_find(head->fields, head->nfields, HTTP_FIELD_X_REQUEST_ID);
    if (f && request_id_ok(f->value))
        n->id_n = copy(n->id, sizeof(n->id), f->value);
}

void access_answer(struct client *c, int status, uint64_t bytes)
{
    c->note->status = status;
    c->note->bytes = bytes;
}

bool access_answered(const struct client *c)
{
    return c->note->status != 0;
}

void access_error(struct client *c, const char *code)
{
    if (!c->note)
        access_begin(c, NULL);
    c->note->error = code;
}

void access_exchange(struct client *c, struct exchange *x)
{
    /* The table that c->key is borrowed from is there while a request is taken, which is
     * when an exchange ends that has not counted its key. */
    const struct api_key *key = x->key ? x->key : c->key;

    c->note->exchange = x;
    if (key)
        c->note->key_n = copy(c->note->key, sizeof(c->note->key), span_str(key->name));
}

static uint64_t micros(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

/* What only an exchange has. */
static void fill(struct access_record *r, const struct exchange *x, uint64_t now)
{
    if (x->request_id[0])
        r->request_id = span_str(x->request_id);
    r->model = span_str(x->name);
    if (x->version)
        r->version = span_str(x->version->tag);
    if (x->replica)
        r->replica = span_str(x->replica->name);
    r->tries = x->tries;
    r->total_us = micros(x->began_ns, now);
    if (x->held_ns)
        r->held_us = micros(x->held_ns, x->sent_ns > x->held_ns ? x->sent_ns : now);
    if (r->status)
        return; /* the answer is one of our own */
    r->status = x->status ? x->status : x->committed ? 200 : 0;
    r->bytes = x->bytes;
    r->events = x->events;
    if (x->overhead_ns)
        r->overhead_us = x->overhead_ns / 1000;
    if (x->first_ns)
        r->first_byte_us = micros(x->sent_ns, x->first_ns);
    if (x->events > 1)
        r->token_us = micros(x->first_ns, now) / (x->events - 1);
}

void access_end(struct client *c, enum access_outcome outcome)
{
    struct access_note *n = c->note;
    struct worker *w = c->worker;
    struct access_record r = {
        .wall_ms = clock_wall_ms(),
        .request_id = span_of(n->id, n->id_n),
        .client = span_str(c->ip),
        .key = span_of(n->key, n->key_n),
        .method = span_of(n->method, n->method_n),
        .path = span_of(n->path, n->path_n),
        .error = span_str(n->error),
        .status = n->status,
        .outcome = outcome,
        .bytes = n->bytes,
        .first_byte_us = ACCESS_NONE,
        .token_us = ACCESS_NONE,
        .total_us = micros(n->began_ns, w->loop.now_ns),
        .overhead_us = ACCESS_NONE,
    };

    if (n->exchange)
        fill(&r, n->exchange, w->loop.now_ns);
    if (outcome == ACCESS_FINISHED && n->error)
        r.outcome = r.tries ? ACCESS_FAILED : ACCESS_REFUSED;
    else if ((outcome == ACCESS_FINISHED && r.status >= 500) ||
             (outcome == ACCESS_TRUNCATED && n->error))
        r.outcome = ACCESS_FAILED;
    if (w->log.fd >= 0)
        put(w, &r);
    access_drop(c);
}

void access_drop(struct client *c)
{
    free(c->note);
    c->note = NULL;
}
