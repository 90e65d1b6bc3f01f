/*
 * client - see client.h.
 *
 *   RESOLVE ──▶ CONNECT ──▶ HEAD ──▶ BODY ──▶ ENDED
 *
 * Whatever ends a request goes through finish(), which tells on_done and closes
 * the handles; the memory goes when libuv has let go of the last one.  What
 * is noticed outside of an event (a bad address, a cancel) is left in `failure`
 * for the timer, so that callbacks come only from the loop.
 */
#include "http/client.h"

#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "http/address.h"
#include "http/chunk.h"

enum {
    HEAD_MAX = 65536,
    INTERIM_MAX = 16, /* 1xx answers before the real one */
    BODY_MAX_DEFAULT = 16 << 20,
    READ_ROOM = 65536
};

//      id         what is true while we are here
#define FETCH_STATES(X)                                          \
    X(RESOLVE) /* the host name is being looked up */            \
    X(CONNECT) /* no connection yet */                           \
    X(HEAD)    /* request on its way; answer's head not whole */ \
    X(BODY)    /* head was given out */                          \
    X(ENDED)   /* on_done was called; handles are closing */

enum fetch_state {
#define X(id) FETCH_##id,
    FETCH_STATES(X)
#undef X
};

struct http_fetch {
    uv_loop_t *loop; /* borrowed */
    struct http_fetch_events events;
    void *arg; /* borrowed */
    enum fetch_state state;
    char *title; /* owned; "GET /health at 127.0.0.1:8000", for sentences */
    struct address address;
    struct addrinfo *hosts; /* owned; what the name resolved to */
    struct addrinfo *host;  /* the one that is tried */
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } io;
    bool io_open;
    uv_timer_t timer;
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    uv_write_t write;
    bool resolving;     /* libuv holds `resolve` */
    int open_handles;   /* not closed yet */
    struct buf request; /* given to uv_write() */
    int write_status;
    bool head_only;
    size_t scanned, body_max;
    int interim;
    struct buf in;                   /* read, not yet understood */
    struct buf body;                 /* collected when nobody takes on_data */
    struct http_response_head *head; /* owned; set in BODY, its spans end with on_head */
    struct chunk_decoder chunks;
    uint64_t got; /* body bytes so far */
    uint64_t deadline_ms, silence_ms, heard_ms, timeout_ms;
    bool failed; /* `failure` waits for the timer */
    struct err failure;
};

static void on_timer(uv_timer_t *timer);
static void try_host(struct http_fetch *f);

/* ---- the end ---- */

static void release(struct http_fetch *f)
{
    if (f->open_handles || f->resolving || f->state != FETCH_ENDED)
        return;
    if (f->hosts)
        uv_freeaddrinfo(f->hosts);
    free(f->title);
    free(f->head);
    buf_fini(&f->request);
    buf_fini(&f->in);
    buf_fini(&f->body);
    free(f);
}

static void on_closed(uv_handle_t *handle)
{
    struct http_fetch *f = handle->data;

    f->open_handles--;
    release(f);
}

static void on_io_closed(uv_handle_t *handle)
{
    struct http_fetch *f = handle->data;

    f->open_handles--;
    if (f->state == FETCH_ENDED)
        release(f);
    else
        try_host(f);
}

static void close_io(struct http_fetch *f)
{
    if (f->io_open) {
        f->io_open = false;
        uv_close(&f->io.handle, on_io_closed);
    }
}

/* Ends it, once: err NULL for a whole answer. */
static void finish(struct http_fetch *f, const struct err *err)
{
    ALWAYS(f->state != FETCH_ENDED);
    f->state = FETCH_ENDED;
    close_io(f);
    uv_close((uv_handle_t *)&f->timer, on_closed);
    if (f->resolving)
        uv_cancel((uv_req_t *)&f->resolve);
    if (f->events.on_done)
        f->events.on_done(err ? 0 : f->head->status, err ? span_of(NULL, 0) : buf_span(&f->body),
                          err, f->arg);
}

static void set_failure(struct http_fetch *f, struct err *err, const char *fmt, va_list args)
{
    char text[ERR_TEXT_MAX];

    vsnprintf(text, sizeof(text), fmt, args);
    err_set(err, 502, "%s: %s", f->title, text);
}

/* Ends it with an error, from inside an event. */
static void PRINTF_LIKE(2, 3) fail(struct http_fetch *f, const char *fmt, ...)
{
    struct err err;
    va_list args;

    va_start(args, fmt);
    set_failure(f, &err, fmt, args);
    va_end(args);
    finish(f, &err);
}

/* Ends it with an error in the next turn of the loop; until then it is mute. */
static void PRINTF_LIKE(2, 3) fail_later(struct http_fetch *f, const char *fmt, ...)
{
    va_list args;

    if (f->failed || f->state == FETCH_ENDED)
        return;
    va_start(args, fmt);
    set_failure(f, &f->failure, fmt, args);
    va_end(args);
    f->failed = true;
    uv_timer_start(&f->timer, on_timer, 0, 0);
}

/* ---- time ---- */

static void arm(struct http_fetch *f)
{
    uint64_t now = uv_now(f->loop), at = UINT64_MAX;

    if (f->failed)
        return;
    if (f->deadline_ms)
        at = f->deadline_ms;
    if (f->silence_ms && f->heard_ms + f->silence_ms < at)
        at = f->heard_ms + f->silence_ms;
    if (at != UINT64_MAX)
        uv_timer_start(&f->timer, on_timer, at > now ? at - now : 0, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct http_fetch *f = timer->data;
    uint64_t now = uv_now(f->loop);

    if (f->failed)
        finish(f, &f->failure);
    else if (f->deadline_ms && now >= f->deadline_ms)
        fail(f, "no whole answer after %llu ms", (unsigned long long)f->timeout_ms);
    else if (f->silence_ms && now >= f->heard_ms + f->silence_ms)
        fail(f, "nothing came for %llu ms", (unsigned long long)f->silence_ms);
    else
        arm(f);
}

/* ---- the answer ---- */

/* Gives out body bytes; false when the request has ended or must not go on. */
static bool give(struct http_fetch *f, struct span data)
{
    if (data.n == 0)
        return true;
    f->got += data.n;
    if (f->events.on_data) {
        f->events.on_data(data, f->arg);
        return !f->failed;
    }
    if (buf_pending(&f->body) + data.n > f->body_max) {
        fail(f, "the answer is larger than %zu bytes", f->body_max);
        return false;
    }
    buf_add_span(&f->body, data);
    return true;
}

static void take_body(struct http_fetch *f)
{
    size_t n = buf_pending(&f->in), used = n;
    enum http_framing framing = f->head->framing;
    bool done = false;

    if (framing == HTTP_BODY_NONE || (framing == HTTP_BODY_LENGTH && !f->head->content_length)) {
        finish(f, NULL);
        return;
    }
    if (n == 0)
        return;
    if (framing == HTTP_BODY_CHUNKED) {
        enum http_fault fault = chunk_decode(&f->chunks, buf_head(&f->in), n, &n, &used, &done);
        if (fault != HTTP_FAULT_NONE) {
            fail(f, "the answer is not valid: %s", http_fault_text(fault));
            return;
        }
    } else if (framing == HTTP_BODY_LENGTH) {
        uint64_t left = f->head->content_length - f->got;
        n = used = n < left ? n : (size_t)left;
        done = n == left;
    }
    if (!give(f, span_of(buf_head(&f->in), n)))
        return;
    buf_consume(&f->in, used);
    if (done)
        finish(f, NULL);
}

/* Takes the final head; false when more bytes are needed or it has ended. */
static bool take_head(struct http_fetch *f)
{
    for (;;) {
        size_t n = buf_pending(&f->in);
        n = n ? http_head_end(buf_head(&f->in), n, &f->scanned) : 0;
        if ((n ? n : buf_pending(&f->in)) > HEAD_MAX) {
            fail(f, "the answer's head is larger than %d bytes", HEAD_MAX);
            return false;
        }
        if (n == 0)
            return false;
        f->scanned = 0;
        enum http_fault fault = http_parse_response(f->head, buf_head(&f->in), n, f->head_only);
        if (fault != HTTP_FAULT_NONE) {
            fail(f, "the answer is not valid: %s", http_fault_text(fault));
            return false;
        }
        if (f->head->status >= 200) {
            f->state = FETCH_BODY;
            if (f->events.on_head)
                f->events.on_head(f->head, f->arg);
            buf_consume(&f->in, n);
            return !f->failed;
        }
        if (++f->interim > INTERIM_MAX) {
            fail(f, "more than %d interim answers came", INTERIM_MAX);
            return false;
        }
        buf_consume(&f->in, n);
    }
}

static void on_end(struct http_fetch *f, int status)
{
    if (f->state == FETCH_BODY && status == UV_EOF && f->head->framing == HTTP_BODY_CLOSE)
        finish(f, NULL);
    else if (f->state == FETCH_BODY)
        fail(f, "the answer was cut after %llu body bytes: %s", (unsigned long long)f->got,
             status == UV_EOF ? "the connection was closed" : uv_strerror(status));
    else if (f->write_status < 0)
        fail(f, "the request could not be sent: %s", uv_strerror(f->write_status));
    else
        fail(f, "no answer came: %s",
             status == UV_EOF ? "the connection was closed" : uv_strerror(status));
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct http_fetch *f = handle->data;

    *buf = uv_buf_init(buf_room(&f->in, READ_ROOM), READ_ROOM);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct http_fetch *f = stream->data;

    if (f->failed || f->state == FETCH_ENDED || n == 0)
        return;
    if (n < 0) {
        on_end(f, (int)n);
        return;
    }
    buf_added(&f->in, (size_t)n);
    f->heard_ms = uv_now(f->loop);
    if (f->state == FETCH_HEAD && !take_head(f))
        return;
    take_body(f);
}

/* ---- connection and request ---- */

static void on_written(uv_write_t *write, int status)
{
    struct http_fetch *f = write->data;

    /* Not the end: a server that refuses the body may have answered. */
    f->write_status = status;
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct http_fetch *f = connect->data;

    if (f->failed || f->state == FETCH_ENDED)
        return;
    if (status < 0) {
        if (f->host && f->host->ai_next) {
            f->host = f->host->ai_next;
            close_io(f);
        } else {
            fail(f, "cannot connect: %s", uv_strerror(status));
        }
        return;
    }
    f->state = FETCH_HEAD;
    uv_buf_t b = uv_buf_init(buf_head(&f->request), (unsigned)buf_pending(&f->request));
    f->write.data = f;
    int rc = uv_read_start(&f->io.stream, on_alloc, on_read);
    if (rc == 0)
        rc = uv_write(&f->write, &f->io.stream, &b, 1, on_written);
    if (rc != 0)
        fail(f, "the request could not be sent: %s", uv_strerror(rc));
}

static void open_io(struct http_fetch *f)
{
    int rc = f->address.is_unix ? uv_pipe_init(f->loop, &f->io.pipe, 0)
                                : uv_tcp_init(f->loop, &f->io.tcp);

    ALWAYS(rc == 0);
    f->io_open = true;
    f->open_handles++;
    f->io.handle.data = f;
    f->connect.data = f;
    f->state = FETCH_CONNECT;
}

static void connect_tcp(struct http_fetch *f, const struct sockaddr *where)
{
    open_io(f);
    int rc = uv_tcp_connect(&f->connect, &f->io.tcp, where, on_connected);
    if (rc != 0)
        fail_later(f, "cannot connect: %s", uv_strerror(rc));
    else
        uv_tcp_nodelay(&f->io.tcp, 1);
}

/* Tries f->host, one of the addresses of a name. */
static void try_host(struct http_fetch *f)
{
    if (!f->failed)
        connect_tcp(f, f->host->ai_addr);
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *hosts)
{
    struct http_fetch *f = resolve->data;

    f->resolving = false;
    f->hosts = f->host = hosts;
    if (f->state == FETCH_ENDED)
        release(f);
    else if (f->failed)
        return;
    else if (status < 0)
        fail(f, "cannot find the host \"%s\": %s", f->address.host, uv_strerror(status));
    else
        try_host(f);
}

static void resolve(struct http_fetch *f)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char port[8];

    snprintf(port, sizeof(port), "%d", f->address.port);
    f->resolve.data = f;
    f->resolving = true;
    int rc = uv_getaddrinfo(f->loop, &f->resolve, on_resolved, f->address.host, port, &hints);
    if (rc != 0) {
        f->resolving = false;
        fail_later(f, "cannot look up the host \"%s\": %s", f->address.host, uv_strerror(rc));
    }
}

static void begin(struct http_fetch *f, const char *text)
{
    struct sockaddr_storage where;
    struct err err;

    if (address_parse(text, &f->address, &err) != 0) {
        fail_later(f, "%s", err.text);
    } else if (f->address.is_unix) {
        open_io(f);
        uv_pipe_connect(&f->connect, &f->io.pipe, f->address.path.sun_path, on_connected);
    } else if (address_numeric(&f->address, &where)) {
        connect_tcp(f, (const struct sockaddr *)&where);
    } else {
        resolve(f);
    }
}

static void write_request(struct http_fetch *f, const struct http_fetch_options *o)
{
    struct buf *b = &f->request;
    bool is_unix = strncmp(o->address, "unix:", 5) == 0;

    buf_addf(b, "%s %s HTTP/1.1\r\nHost: %s\r\n", o->method, o->target,
             is_unix ? "localhost" : o->address);
    buf_add_str(b, "Connection: close\r\n");
    if (o->headers)
        buf_add_str(b, o->headers);
    if (o->body.n || strcmp(o->method, "GET") != 0)
        buf_addf(b, "Content-Length: %zu\r\n", o->body.n);
    buf_add_str(b, "\r\n");
    buf_add_span(b, o->body);
}

struct http_fetch *http_fetch_start(uv_loop_t *loop, const struct http_fetch_options *o,
                                    const struct http_fetch_events *events, void *arg)
{
    struct http_fetch *f = NEW(struct http_fetch);

    /* libuv writes with plain write(2): a server that left must be an error
     * code, not a signal. */
    signal(SIGPIPE, SIG_IGN);
    f->loop = loop;
    f->events = *events;
    f->arg = arg;
    f->title = str_fmt("%s %s at %s", o->method, o->target, o->address);
    f->head_only = strcmp(o->method, "HEAD") == 0;
    f->body_max = o->body_max ? o->body_max : BODY_MAX_DEFAULT;
    f->head = mem_alloc(sizeof(*f->head));
    chunk_decoder_init(&f->chunks);
    write_request(f, o);

    ALWAYS(uv_timer_init(loop, &f->timer) == 0);
    f->timer.data = f;
    f->open_handles = 1;
    /* The loop's idea of now may be old when we are called outside of it. */
    uv_update_time(loop);
    f->heard_ms = uv_now(loop);
    f->timeout_ms = o->timeout_ms;
    f->deadline_ms = o->timeout_ms ? f->heard_ms + o->timeout_ms : 0;
    f->silence_ms = o->silence_ms;
    arm(f);
    begin(f, o->address);
    return f;
}

void http_fetch_cancel(struct http_fetch *f)
{
    fail_later(f, "cancelled");
}
