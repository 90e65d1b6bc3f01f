/*
 * call - one request and its answer: what a handler may ask and say.
 *
 * Everything written here goes to conn->out; conn.c sends it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/alloc.h"
#include "http/conn.h"
#include "http/url.h"

struct http_call *call_new(struct conn *c, struct span head)
{
    struct http_call *call = mem_alloc(sizeof(*call));

    /* head is left as it is: http_parse_request() writes what counts. */
    call->conn = c;
    call->head_text = span_dup(head);
    call->body = (struct buf){0};
    chunk_decoder_init(&call->chunks);
    call->on_gone = NULL;
    call->gone_arg = NULL;
    call->started = call->chunked = call->bodiless = false;
    return call;
}

void call_free(struct http_call *call)
{
    free(call->head_text);
    buf_fini(&call->body);
    free(call);
}

const struct http_request_head *http_call_head(const struct http_call *call)
{
    return &call->head;
}

struct span http_call_body(const struct http_call *call)
{
    return buf_span(&call->body);
}

struct span http_call_header(const struct http_call *call, const char *name)
{
    for (size_t i = 0; i < call->head.nfields; i++)
        if (span_eq_nocase(call->head.fields[i].name, span_str(name)))
            return call->head.fields[i].value;
    return span_of(NULL, 0);
}

bool http_call_query(const struct http_call *call, const char *name, char *out, size_t room)
{
    struct span rest = call->head.query;

    while (rest.n) {
        size_t n = span_index(rest, '&');
        struct span pair = span_of(rest.p, n);
        size_t eq = span_index(pair, '=');
        if (span_eq_str(span_of(pair.p, eq), name)) {
            size_t skip = eq < pair.n ? eq + 1 : eq;
            return url_decode(span_of(pair.p + skip, pair.n - skip), out, room);
        }
        n += n < rest.n;
        rest = span_of(rest.p + n, rest.n - n);
    }
    return false;
}

void http_call_on_gone(struct http_call *call, http_gone_cb cb, void *arg)
{
    call->on_gone = cb;
    call->gone_arg = arg;
}

size_t http_call_pending(const struct http_call *call)
{
    return conn_unsent(call->conn);
}

/* ---- writing ---- */

static const char *date_line(struct http_server *s)
{
    time_t now = time(NULL);

    if (now != s->date_second) {
        struct tm tm;
        gmtime_r(&now, &tm);
        strftime(s->date, sizeof(s->date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &tm);
        s->date_second = now;
    }
    return s->date;
}

static void add_head(struct conn *c, int status, const char *content_type, const char *extra)
{
    struct buf *out = &c->out;

    buf_add_str(out, "HTTP/1.1 ");
    buf_add_u64(out, (uint64_t)status);
    buf_add_char(out, ' ');
    buf_add_str(out, http_reason(status));
    buf_add_str(out, "\r\n");
    buf_add_str(out, date_line(c->server));
    if (content_type) {
        buf_add_str(out, "Content-Type: ");
        buf_add_str(out, content_type);
        buf_add_str(out, "\r\n");
    }
    if (extra)
        buf_add_str(out, extra);
}

static void add_length(struct conn *c, size_t n)
{
    buf_add_str(&c->out, "Content-Length: ");
    buf_add_u64(&c->out, n);
    buf_add_str(&c->out, "\r\n");
}

static void add_connection(struct conn *c, const struct http_request_head *head, bool keep)
{
    if (!keep)
        buf_add_str(&c->out, "Connection: close\r\n");
    else if (head->minor == 0)
        buf_add_str(&c->out, "Connection: keep-alive\r\n");
    buf_add_str(&c->out, "\r\n");
}

static bool keeps_open(const struct http_call *call)
{
    return call->head.keep_alive && !call->conn->server->draining;
}

/* Status codes whose answers never have a body (RFC 9110 section 6.4.1). */
static bool no_body(int status)
{
    return status < 200 || status == 204 || status == 304;
}

void http_call_reply(struct http_call *call, int status, const char *content_type,
                     const char *extra, struct span body)
{
    struct conn *c = call->conn;
    bool keep = keeps_open(call);

    ALWAYS(!call->started && status >= 200);
    if (!c->broken) {
        add_head(c, status, content_type, extra);
        if (!no_body(status))
            add_length(c, body.n);
        add_connection(c, &call->head, keep);
        if (!no_body(status) && call->head.method != HTTP_HEAD)
            buf_add_span(&c->out, body);
    }
    conn_answered(c, keep ? AFTER_NEXT : AFTER_LINGER);
}

void http_call_start(struct http_call *call, int status, const char *content_type,
                     const char *extra)
{
    struct conn *c = call->conn;

    ALWAYS(!call->started && status >= 200);
    call->started = true;
    call->bodiless = no_body(status) || call->head.method == HTTP_HEAD;
    call->chunked = call->head.minor == 1 && !no_body(status);
    /* Without chunks only the end of the connection can end the body. */
    if (!call->chunked && !call->bodiless)
        call->head.keep_alive = false;
    if (c->broken)
        return;
    add_head(c, status, content_type, extra);
    if (call->chunked)
        buf_add_str(&c->out, "Transfer-Encoding: chunked\r\n");
    add_connection(c, &call->head, keeps_open(call));
    conn_touch(c);
}

void http_call_write(struct http_call *call, struct span data)
{
    struct conn *c = call->conn;

    ALWAYS(call->started);
    if (data.n == 0 || call->bodiless || c->broken)
        return;
    if (call->chunked) {
        char line[CHUNK_HEAD_ROOM];
        size_t n = chunk_size_line(line + sizeof(line), data.n);
        buf_add(&c->out, line + sizeof(line) - n, n);
        buf_add_span(&c->out, data);
        buf_add_str(&c->out, "\r\n");
    } else {
        buf_add_span(&c->out, data);
    }
    conn_touch(c);
    if (buf_pending(&c->out) >= FLUSH_EARLY)
        conn_push(c);
    if (conn_unsent(c) > c->server->limits.pending_bytes)
        c->broken = true;
}

void http_call_finish(struct http_call *call)
{
    struct conn *c = call->conn;

    ALWAYS(call->started);
    if (call->chunked && !call->bodiless && !c->broken)
        buf_add_str(&c->out, "0\r\n\r\n");
    conn_answered(c, keeps_open(call) ? AFTER_NEXT : AFTER_LINGER);
}

void http_call_cut(struct http_call *call)
{
    struct conn *c = call->conn;

    /* A body that ends with the connection looks whole after FIN. */
    c->reset = !call->chunked;
    conn_answered(c, AFTER_CLOSE);
}

/* ---- errors ---- */

static const char *error_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 409:
        return "conflict_error";
    case 429:
        return "rate_limit_error";
    default:
        return status < 500 ? "invalid_request_error" : "server_error";
    }
}

static void error_body(struct buf *b, int status, const char *code, struct span text)
{
    buf_add_str(b, "{\"error\":{\"message\":\"");
    buf_add_json(b, text);
    buf_add_str(b, "\",\"type\":\"");
    buf_add_str(b, error_type(status));
    buf_add_str(b, "\",\"param\":null,\"code\":");
    if (code) {
        buf_add_char(b, '"');
        buf_add_json(b, span_str(code));
        buf_add_char(b, '"');
    } else {
        buf_add_str(b, "null");
    }
    buf_add_str(b, "}}\n");
}

static const char *retry_line(int status)
{
    return status == 503 || status == 429 ? "Retry-After: 1\r\n" : NULL;
}

void http_call_error(struct http_call *call, int status, const char *code, const char *fmt, ...)
{
    struct buf body = {0};
    char text[ERR_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    error_body(&body, status, code, span_str(text));
    http_call_reply(call, status, "application/json", retry_line(status), buf_span(&body));
    buf_fini(&body);
}

void call_refuse(struct conn *c, int status, const char *code, const char *text)
{
    struct buf body = {0};

    error_body(&body, status, code, span_str(text));
    add_head(c, status, "application/json", retry_line(status));
    add_length(c, buf_pending(&body));
    buf_add_str(&c->out, "Connection: close\r\n\r\n");
    buf_add_span(&c->out, buf_span(&body));
    buf_fini(&body);
    conn_answered(c, AFTER_LINGER);
}
