/*
 * conn - one client connection of the server: reading requests, sending
 * answers, and every reason to end.  See conn.h.
 *
 *   IDLE ──▶ HEAD ──▶ BODY ──▶ CALL ──▶ FLUSH ──▶ IDLE
 *             │         │                 │
 *             └─ fault ─┴──────▶ FLUSH    └──▶ LINGER ──▶ CLOSING
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "http/conn.h"

#define TO(st) (UINT32_C(1) << CONN_##st)

static const uint32_t allowed[CONN_NSTATES] = {
    [CONN_IDLE] = TO(HEAD) | TO(FLUSH) | TO(CLOSING),
    [CONN_HEAD] = TO(BODY) | TO(FLUSH) | TO(CLOSING),
    [CONN_BODY] = TO(CALL) | TO(FLUSH) | TO(CLOSING),
    [CONN_CALL] = TO(FLUSH) | TO(CLOSING),
    [CONN_FLUSH] = TO(IDLE) | TO(LINGER) | TO(CLOSING),
    [CONN_LINGER] = TO(CLOSING),
    [CONN_CLOSING] = 0,
};

/* The only place where the state changes. */
static void set_state(struct conn *c, enum conn_state next)
{
    ALWAYS(allowed[c->state] & (UINT32_C(1) << next));
    if (c->state == CONN_CALL)
        c->server->ncalls--;
    c->state = next;
    if (c->state == CONN_CALL)
        c->server->ncalls++;
    if (next == CONN_BODY || next == CONN_CALL)
        ALWAYS(c->call);
    else if (next != CONN_CLOSING)
        ALWAYS(!c->call);
}

static void on_timer(uv_timer_t *timer);
static void resume_reading(struct conn *c);
static void process(struct conn *c);

static void arm(struct conn *c, uint64_t ms)
{
    ALWAYS(uv_timer_start(&c->timer, on_timer, ms, 0) == 0);
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    struct http_server *s = c->server;

    if (--c->open_handles == 0) {
        buf_fini(&c->in);
        buf_fini(&c->out);
        buf_fini(&c->sending);
        free(c);
    }
    server_handle_closed(s);
}

void conn_close(struct conn *c)
{
    struct http_call *call = c->call;
    bool gone = c->state == CONN_CALL;

    if (c->state == CONN_CLOSING)
        return;
    /* What is not whole must not look whole, and a peer that does not read must
     * not keep the kernel's memory: then a reset instead of FIN. */
    if (conn_unsent(c) || (gone && call->started && !call->chunked && !call->bodiless))
        c->reset = true;
    set_state(c, CONN_CLOSING);
    c->broken = true;
    c->call = NULL;
    list_remove(&c->dirty);
    list_remove(&c->link);
    c->server->nconns--;
    if (!c->reset || c->io.handle.type != UV_TCP || uv_tcp_close_reset(&c->io.tcp, on_closed) != 0)
        uv_close(&c->io.handle, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
    if (gone && call->on_gone)
        call->on_gone(call, call->gone_arg);
    if (call)
        call_free(call);
}

/* ---- sending ---- */

size_t conn_unsent(const struct conn *c)
{
    return buf_pending(&c->out) + (c->writing ? uv_stream_get_write_queue_size(&c->io.stream) : 0);
}

void conn_touch(struct conn *c)
{
    if (c->state != CONN_CLOSING && list_empty(&c->dirty)) {
        list_append(&c->server->dirty, &c->dirty);
        server_touched(c->server);
    }
}

static void on_written(uv_write_t *write, int status)
{
    struct conn *c = write->data;

    c->writing = false;
    buf_fini(&c->sending);
    if (c->state == CONN_CLOSING)
        return;
    if (status < 0)
        c->broken = true;
    conn_flush(c);
}

void conn_push(struct conn *c)
{
    if (c->writing || c->broken)
        return;
    while (buf_pending(&c->out)) {
        uv_buf_t b = uv_buf_init(buf_head(&c->out), (unsigned)buf_pending(&c->out));
        int n = uv_try_write(&c->io.stream, &b, 1);
        if (n == UV_EAGAIN)
            break;
        if (n < 0) {
            c->broken = true;
            return;
        }
        buf_consume(&c->out, (size_t)n);
    }
    if (buf_pending(&c->out) == 0) {
        if (c->out.cap > OUT_KEEP)
            buf_fini(&c->out);
        return;
    }
    c->sending = c->out;
    c->out = (struct buf){0};
    uv_buf_t b = uv_buf_init(buf_head(&c->sending), (unsigned)buf_pending(&c->sending));
    c->write.data = c;
    if (uv_write(&c->write, &c->io.stream, &b, 1, on_written) == 0)
        c->writing = true;
    else
        c->broken = true;
}

/* Our side is shut.  Closing at once, with bytes of the client unread, would
 * reset the connection and could destroy the answer on its way. */
static void linger(struct conn *c)
{
    set_state(c, CONN_LINGER);
    buf_fini(&c->in);
    if (c->peer_ended || uv_shutdown(&c->shutdown, &c->io.stream, NULL) != 0) {
        conn_close(c);
        return;
    }
    arm(c, LINGER_MS);
    resume_reading(c);
}

void conn_flush(struct conn *c)
{
    if (c->state == CONN_CLOSING)
        return;
    conn_push(c);
    if (c->broken) {
        conn_close(c);
        return;
    }
    if (c->state != CONN_FLUSH)
        return;
    size_t unsent = conn_unsent(c);
    if (unsent) {
        c->unsent_before = unsent;
        arm(c, c->server->limits.idle_ms);
    } else if (c->after == AFTER_CLOSE) {
        conn_close(c);
    } else if (c->after == AFTER_LINGER || c->server->draining) {
        linger(c);
    } else {
        set_state(c, CONN_IDLE);
        buf_fini(&c->out);
        arm(c, c->server->limits.idle_ms);
        resume_reading(c);
        process(c);
    }
}

void conn_answered(struct conn *c, enum conn_after after)
{
    if (c->state == CONN_CLOSING)
        return;
    if (c->call)
        call_free(c->call);
    c->call = NULL;
    set_state(c, CONN_FLUSH);
    c->after = after;
    conn_touch(c);
}

/* ---- understanding ---- */

static void refuse_fault(struct conn *c, enum http_fault fault)
{
    call_refuse(c, http_fault_status(fault),
                http_fault_status(fault) == 431 ? "request_head_too_large" : "malformed_request",
                http_fault_text(fault));
}

static void refuse_body_size(struct conn *c)
{
    char text[96];

    snprintf(text, sizeof(text), "the request body is larger than the limit of %zu bytes",
             c->server->limits.body_bytes);
    call_refuse(c, 413, "request_too_large", text);
}

/* Takes a head from `in`; false when more bytes are needed. */
static bool take_head(struct conn *c)
{
    struct http_server *s = c->server;
    size_t n = http_head_end(buf_head(&c->in), buf_pending(&c->in), &c->scanned);

    if ((n ? n : buf_pending(&c->in)) > s->limits.head_bytes) {
        refuse_fault(c, HTTP_FAULT_HEAD_TOO_LARGE);
        return true;
    }
    if (n == 0)
        return false;
    c->scanned = 0;

    struct http_call *call = call_new(c, span_of(buf_head(&c->in), n));
    buf_consume(&c->in, n);
    enum http_fault fault = http_parse_request(&call->head, call->head_text, n);
    if (fault != HTTP_FAULT_NONE) {
        call_free(call);
        refuse_fault(c, fault);
        return true;
    }
    c->call = call;
    set_state(c, CONN_BODY);
    if (call->head.framing == HTTP_BODY_LENGTH &&
        call->head.content_length > s->limits.body_bytes) {
        refuse_body_size(c);
        return true;
    }
    if (call->head.expect_continue && buf_pending(&c->in) == 0) {
        buf_add_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        conn_touch(c);
    }
    return true;
}

/* Moves what `in` has of the body; true when the body is whole. */
static bool take_body(struct conn *c)
{
    struct http_call *call = c->call;
    size_t n = buf_pending(&c->in), used = 0;
    bool done = false;

    if (call->head.framing == HTTP_BODY_NONE)
        return true;
    if (n == 0)
        return call->head.framing == HTTP_BODY_LENGTH && call->head.content_length == 0;
    if (call->head.framing == HTTP_BODY_LENGTH) {
        size_t left = (size_t)call->head.content_length - buf_pending(&call->body);
        used = n < left ? n : left;
        buf_add(&call->body, buf_head(&c->in), used);
        buf_consume(&c->in, used);
        return used == left;
    }
    enum http_fault fault = chunk_decode(&call->chunks, buf_head(&c->in), n, &n, &used, &done);
    if (fault != HTTP_FAULT_NONE) {
        refuse_fault(c, fault);
        return false;
    }
    if (buf_pending(&call->body) + n > c->server->limits.body_bytes) {
        refuse_body_size(c);
        return false;
    }
    buf_add(&call->body, buf_head(&c->in), n);
    buf_consume(&c->in, used);
    return done;
}

/* Passes over a CRLF before a request (RFC 9112 section 2.2); false when
 * nothing of a request is there. */
static bool skip_empty_line(struct conn *c)
{
    if (buf_pending(&c->in))
        buf_consume(&c->in, http_skip_empty_lines(buf_head(&c->in), buf_pending(&c->in)));
    if (buf_pending(&c->in) == 0) {
        buf_fini(&c->in);
        return false;
    }
    return buf_pending(&c->in) > 1 || *buf_head(&c->in) != '\r';
}

/* Goes on with what was read until more is needed or a call runs. */
static void process(struct conn *c)
{
    for (;;) {
        if (c->state == CONN_IDLE) {
            if (!skip_empty_line(c))
                return;
            set_state(c, CONN_HEAD);
            arm(c, c->server->limits.receive_ms);
        } else if (c->state == CONN_HEAD) {
            if (!take_head(c))
                return;
        } else if (c->state == CONN_BODY) {
            if (!take_body(c))
                return;
            set_state(c, CONN_CALL);
            if (buf_pending(&c->in) == 0)
                buf_fini(&c->in);
            uv_timer_stop(&c->timer);
            c->server->handler(c->call, c->server->arg);
        } else {
            return;
        }
    }
}

/* ---- events ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct conn *c = handle->data;

    *buf = uv_buf_init(c->server->scratch, sizeof(c->server->scratch));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = stream->data;

    if (n == UV_EOF && c->state == CONN_FLUSH) {
        /* The answer is ready: whoever shut only its own side still gets it. */
        c->peer_ended = true;
        c->reading = false;
        uv_read_stop(stream);
        if (c->after == AFTER_NEXT)
            c->after = AFTER_CLOSE;
    } else if (n < 0) {
        conn_close(c);
    } else if (n > 0 && c->state != CONN_LINGER) {
        buf_add(&c->in, buf->base, (size_t)n);
        process(c);
        if (c->state != CONN_CLOSING && buf_pending(&c->in) > PIPELINE_MAX) {
            c->reading = false;
            uv_read_stop(stream);
        }
    }
}

static void resume_reading(struct conn *c)
{
    if (c->reading || c->peer_ended)
        return;
    c->reading = true;
    if (uv_read_start(&c->io.stream, on_alloc, on_read) != 0)
        conn_close(c);
}

static void on_timer(uv_timer_t *timer)
{
    struct conn *c = timer->data;

    switch (c->state) {
    case CONN_HEAD:
    case CONN_BODY:
        call_refuse(c, 408, "request_timeout", "the request did not arrive in time");
        break;
    case CONN_FLUSH:
        if (conn_unsent(c) < c->unsent_before) {
            conn_flush(c);
            break;
        }
        conn_close(c);
        break;
    default:
        conn_close(c);
    }
}

void conn_accept(struct http_server *s, uv_stream_t *listener)
{
    struct conn *c = NEW(struct conn);

    c->server = s;
    list_append(&s->conns, &c->link);
    list_init(&c->dirty);
    if (listener->type == UV_TCP)
        ALWAYS(uv_tcp_init(s->loop, &c->io.tcp) == 0);
    else
        ALWAYS(uv_pipe_init(s->loop, &c->io.pipe, 0) == 0);
    ALWAYS(uv_timer_init(s->loop, &c->timer) == 0);
    c->io.handle.data = c->timer.data = c;
    c->open_handles = 2;
    s->handles += 2;
    s->nconns++;

    if (uv_accept(listener, &c->io.stream) != 0 ||
        s->nconns > s->limits.connections + REFUSED_EXTRA_MAX) {
        conn_close(c);
        return;
    }
    if (listener->type == UV_TCP) {
        uv_tcp_nodelay(&c->io.tcp, 1);
        uv_tcp_keepalive(&c->io.tcp, 1, KEEPALIVE_S);
    }
    if (s->nconns > s->limits.connections) {
        call_refuse(c, 503, "too_many_connections", "too many connections are open; try again");
        return;
    }
    arm(c, s->limits.idle_ms);
    resume_reading(c);
}
