/*
 * gateway/client - a connection from outside: requests in, answers out.
 *
 *               first byte      head whole       body whole      answer whole
 *      IDLE ───────────▶ HEAD ───────────▶ BODY ───────────▶ BUSY ───────▶ FLUSH ─┐
 *        ▲                                                                        │
 *        └──────────────────────────── keep-alive ────────────────────────────────┤
 *                                                          last answer: LINGER ◀──┘
 *
 * Requests are answered one at a time, in order; while one is being answered
 * the socket is not read, so a client that sends more waits in the kernel.
 * The usual request comes with one read and is handled in the read buffer
 * itself; only parts are kept in `in`.
 *
 * A peer that shuts its side while its request is being answered has left: its
 * engine's time must not be wasted.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "gateway/cors.h"
#include "gateway/gateway.h"
#include "gateway/internal.h"
#include "gateway/tls.h"

enum {
    LINGER_BYTES = 1 << 20, /* discarded at most, so that a refusal reaches an uploader */
    LINGER_MS = 2000
};

static void on_event(struct watch *watch, uint32_t events);
static void on_timer(struct timer *timer);

static void arm(struct client *c, uint64_t after_ns)
{
    timer_set(&c->worker->loop.timers, &c->timer, c->worker->loop.now_ns + after_ns);
}

static const struct table *table_of(const struct client *c)
{
    return c->worker->view->table;
}

/* Bytes that the socket has and the peer has not acknowledged. */
static int untaken(const struct client *c)
{
    int n = 0;

    return ioctl(c->watch.fd, SIOCOUTQ, &n) < 0 ? 0 : n;
}

/* The peer has timeouts.send to take something of what it is owed. */
static void arm_send(struct client *c)
{
    c->untaken = untaken(c);
    arm(c, table_of(c)->timeouts.send);
}

static void set_state(struct client *c, enum client_state next)
{
#define TO(id) (1u << CLIENT_##id)
    static const unsigned allowed[] = {
        [CLIENT_IDLE] = TO(HEAD) | TO(BODY) | TO(BUSY) | TO(FLUSH) | TO(LINGER) | TO(CLOSED),
        [CLIENT_HEAD] = TO(BODY) | TO(BUSY) | TO(FLUSH) | TO(LINGER) | TO(CLOSED),
        [CLIENT_BODY] = TO(BUSY) | TO(FLUSH) | TO(LINGER) | TO(CLOSED),
        [CLIENT_BUSY] = TO(IDLE) | TO(FLUSH) | TO(LINGER) | TO(CLOSED),
        [CLIENT_FLUSH] = TO(IDLE) | TO(LINGER) | TO(CLOSED),
        [CLIENT_LINGER] = TO(CLOSED),
        [CLIENT_HANDSHAKE] = TO(IDLE) | TO(LINGER) | TO(CLOSED),
        [CLIENT_CLOSED] = 0,
    };
#undef TO
    ALWAYS(allowed[c->state] & 1u << next);
    c->state = next;
    ALWAYS(c->exchange == NULL || next == CLIENT_BUSY);
}

/* --- life ------------------------------------------------------------------- */

static void peer_text(struct client *c, const struct sockaddr *peer)
{
    const struct sockaddr_in *in = (const void *)peer;
    const struct sockaddr_in6 *in6 = (const void *)peer;

    if (peer->sa_family == AF_INET)
        inet_ntop(AF_INET, &in->sin_addr, c->ip, sizeof(c->ip));
    else if (peer->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &in6->sin6_addr, c->ip, sizeof(c->ip));
    else
        strcpy(c->ip, "unix");
}

/* What a client keeps of a request that is not whole counts against a common limit. */
static bool count_body(struct client *c)
{
    struct worker *w = c->worker;
    size_t now = c->in.cap;

    w->body_bytes += now - c->counted;
    c->counted = now;
    /* A worker's part may be less than one body: who is alone comes in. */
    return w->body_bytes <= table_of(c)->limits.body_memory_bytes / w->gateway_workers ||
           w->body_bytes - now <= BODY_SMALL;
}

void client_accept(struct worker *w, int fd, const struct sockaddr *peer, unsigned place,
                   SSL_CTX *tls)
{
    struct client *c = NEW(struct client);
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    c->worker = w;
    peer_text(c, peer);
    timer_init(&c->timer, on_timer);
    c->peer_place = place;
    list_append(&w->clients, &c->link);
    w->nclients++;
    counter_add(&w->row->opened, 1);
    if (tls)
        c->state = CLIENT_HANDSHAKE;
    if ((tls && !(c->ssl = tls_new(tls, fd))) ||
        loop_watch(&w->loop, &c->watch, fd, 0, on_event) < 0) {
        c->watch.fd = fd;
        client_close(c);
        return;
    }
    arm(c, tls ? table_of(c)->timeouts.head : table_of(c)->timeouts.idle);
}

static void release(struct grave *g)
{
    free(CONTAINER_OF(g, struct client, grave));
}

/* The client leaves. A request that did not come whole, and was not answered, leaves no line. */
static void note_left(struct client *c)
{
    if (c->state == CLIENT_BUSY || access_answered(c))
        access_end(c, ACCESS_CANCELLED);
    else
        access_drop(c);
}

static void reset_at_close(struct client *c)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};

    setsockopt(c->watch.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

void client_close(struct client *c)
{
    bool whole = !c->exchange && !c->cut && buf_pending(&c->out) == 0;

    if (c->state == CLIENT_CLOSED)
        return;
    if (c->exchange)
        exchange_cancel(c->exchange);
    /* It cannot be whole any more.  The kernel would keep what it has of it, megabytes
     * for a peer that does not read, for minutes. */
    if (buf_pending(&c->out))
        reset_at_close(c);
    if (c->note)
        note_left(c);
    if (c->state == CLIENT_BUSY)
        counter_add(&c->worker->row->unanswered, 1);
    set_state(c, CLIENT_CLOSED);
    list_remove(&c->link);
    c->worker->nclients--;
    gateway_peer_leave(c->worker->gateway, c->peer_place);
    if (c->worker->draining && c->worker->nclients == 0)
        c->worker->loop.stop = true;
    counter_add(&c->worker->row->closed, 1);
    timer_clear(&c->timer);
    if (c->ssl)
        tls_free(c->ssl, whole);
    c->ssl = NULL;
    loop_unwatch(&c->watch);
    buf_fini(&c->in);
    buf_fini(&c->out);
    free(c->cors);
    c->cors = NULL;
    count_body(c);
    loop_bury(&c->worker->loop, &c->grave, release);
}

/* Shuts our side and waits for the peer to do so: closing at once while its
 * bytes are unread would reset the connection and could destroy our answer. */
static void linger(struct client *c)
{
    buf_fini(&c->in);
    count_body(c);
    if (c->ssl)
        tls_goodbye(c->ssl);
    shutdown(c->watch.fd, SHUT_WR);
    c->discard = LINGER_BYTES;
    set_state(c, CLIENT_LINGER);
    arm(c, LINGER_MS * UINT64_C(1000000));
    loop_again(&c->worker->loop, &c->watch, EPOLLIN);
}

/* The end of an answer that is not whole must not look like its end. */
static void close_cut(struct client *c)
{
    /* With a length or chunks the missing rest tells; where the connection's end
     * is the answer's end, only a reset does. */
    if (c->close_delimited)
        reset_at_close(c);
    c->cut = true;
    client_close(c);
}

void client_end(struct client *c)
{
    if (c->exchange)
        exchange_stop(c->exchange);
    if (c->state == CLIENT_CLOSED)
        return;
    if (buf_pending(&c->out))
        close_cut(c);
    else
        client_close(c);
}

void client_cut(struct client *c)
{
    if (c->state == CLIENT_CLOSED)
        return;
    if (c->note)
        access_end(c, ACCESS_TRUNCATED);
    if (buf_pending(&c->out) == 0) {
        close_cut(c);
        return;
    }
    c->cut = true;
    counter_add(&c->worker->row->unanswered, 1);
    set_state(c, CLIENT_FLUSH);
}

/* --- out --------------------------------------------------------------------- */

static int send_pieces(struct client *c, struct iovec *pieces, int n)
{
    if (c->ssl)
        return tls_send(c->ssl, &c->out, pieces, n, c->worker->flat, FLAT_BYTES);
    return socket_send(c->worker, c->watch.fd, &c->out, pieces, n);
}

int client_send(struct client *c, struct iovec *pieces, int n)
{
    bool was_empty = buf_pending(&c->out) == 0;

    if (c->state == CLIENT_CLOSED || send_pieces(c, pieces, n) < 0)
        return -1;
    if (was_empty && buf_pending(&c->out))
        arm_send(c);
    return 0;
}

static void feed(struct client *c, char *p, size_t n);
static void read_on(struct client *c);

/* After a whole answer that the client has taken. */
static void next_request(struct client *c)
{
    if (!c->keep_alive || c->worker->draining) {
        if (c->ssl && !tls_goodbye(c->ssl)) { /* it waits as the answer did */
            arm_send(c);
            return;
        }
        /* Nothing more is to come after a whole request, and nothing unread can be there
         * if the last read was short: plain close. */
        if (c->unread || c->readable || buf_pending(&c->in))
            linger(c);
        else
            client_close(c);
        return;
    }
    set_state(c, CLIENT_IDLE);
    c->close_delimited = false;
    arm(c, table_of(c)->timeouts.idle);
    if (c->feeding)
        return; /* its loop goes on */
    if (buf_pending(&c->in))
        feed(c, NULL, 0);
    if (c->state == CLIENT_BUSY && c->hangup) {
        client_close(c);
        return;
    }
    if (c->state <= CLIENT_BODY && c->readable)
        loop_again(&c->worker->loop, &c->watch, EPOLLIN);
}

void client_answered(struct client *c)
{
    counter_add(&c->worker->row->answered, 1);
    if (c->note)
        access_end(c, ACCESS_FINISHED);
    timer_clear(&c->timer);
    c->unread = c->state != CLIENT_BUSY;
    if (c->unread)
        counter_add(&c->worker->row->rejected, 1);
    set_state(c, CLIENT_FLUSH);
    if (buf_pending(&c->out)) {
        arm_send(c);
        return;
    }
    next_request(c);
}

/* --- in ---------------------------------------------------------------------- */

/* An answer after which the connection ends: what comes behind it cannot be trusted. */
#define REFUSE(c, ...) ((c)->keep_alive = false, client_error((c), __VA_ARGS__))

static void refuse_head(struct client *c, enum http_fault fault)
{
    enum gateway_error e = GATEWAY_ERROR_BAD_REQUEST;

    switch (http_fault_status(fault)) {
    case 431:
        e = GATEWAY_ERROR_HEAD_TOO_LARGE;
        break;
    case 417:
        e = GATEWAY_ERROR_EXPECTATION;
        break;
    case 505:
        e = GATEWAY_ERROR_VERSION;
        break;
    }
    c->minor = 1;
    c->head_only = false;
    REFUSE(c, e, "%s", http_fault_text(fault));
}

static void too_large(struct client *c)
{
    REFUSE(c, GATEWAY_ERROR_TOO_LARGE, "the body is larger than %zu bytes (limits.body_bytes)",
           table_of(c)->limits.body_bytes);
}

/* A whole request; p stays valid for this call. */
static void handle(struct client *c, const struct http_request_head *head, struct span body)
{
    timer_clear(&c->timer);
    if (buf_pending(&c->out))
        arm_send(c); /* a 100 that the client has not taken */
    counter_add(&c->worker->row->requests, 1);
    set_state(c, CLIENT_BUSY);
    c->key = NULL;
    if (table_of(c)->cors || c->cors) {
        cors_take(c, head);
        if (cors_preflight(c, head))
            return;
    }
    if (table_of(c)->keyring && !admit(c, head))
        return;
    if (page_answer(c, head))
        return;
    exchange_begin(c, head, body);
}

/* What both the first look at a head and a later one need. */
static void take_head(struct client *c, const struct http_request_head *head)
{
    c->minor = head->minor;
    c->keep_alive = head->keep_alive;
    c->head_only = head->method == HTTP_HEAD;
    c->close_delimited = false;
    if (c->worker->log.fd >= 0)
        access_begin(c, head);
}

/* The head is whole and the body has begun to arrive: is it welcome? */
static bool begin_body(struct client *c, const struct http_request_head *head, size_t head_len,
                       size_t have)
{
    if (head->framing == HTTP_BODY_LENGTH &&
        head->content_length > table_of(c)->limits.body_bytes) {
        too_large(c);
        return false;
    }
    if (table_of(c)->keyring) { /* a body is not taken from everybody */
        bool keep_alive = c->keep_alive;
        c->keep_alive = false;
        if (table_of(c)->cors || c->cors)
            cors_take(c, head);
        if (!admit(c, head))
            return false;
        c->key = NULL; /* looked up again when the body is here */
        c->keep_alive = keep_alive;
    }
    c->head_len = head_len;
    c->body_len = 0;
    c->framing = head->framing;
    c->content_length = head->framing == HTTP_BODY_LENGTH ? (size_t)head->content_length : 0;
    chunk_decoder_init(&c->chunks);
    if (head->expect_continue && head->minor >= 1 && have == 0) {
        struct iovec go = {"HTTP/1.1 100 Continue\r\n\r\n", 25};
        if (client_send(c, &go, 1) < 0) {
            client_close(c);
            return false;
        }
    }
    set_state(c, CLIENT_BODY);
    arm(c, table_of(c)->timeouts.body);
    return true;
}

/* Bytes at p, the head already understood: used = 0 and *keep if more is needed. */
static size_t step_body(struct client *c, char *p, size_t n, size_t *keep)
{
    struct http_request_head head;
    size_t used = 0, body_len = 0, data = 0;
    bool done = false;

    *keep = n;
    if (c->framing == HTTP_BODY_LENGTH) {
        body_len = c->content_length;
        used = c->head_len + body_len;
        if (n < used)
            return 0;
    } else {
        size_t at = c->head_len + c->body_len;
        size_t raw = 0;
        enum http_fault fault = chunk_decode(&c->chunks, p + at, n - at, &data, &raw, &done);
        if (fault != HTTP_FAULT_NONE) {
            refuse_head(c, fault);
            return 0;
        }
        c->body_len += data;
        if (c->body_len > table_of(c)->limits.body_bytes) {
            too_large(c);
            return 0;
        }
        if (!done) {
            *keep = c->head_len + c->body_len; /* what was framing is gone */
            return 0;
        }
        body_len = c->body_len;
        used = at + raw;
    }
    /* Parsed once more: the first time its spans pointed into another buffer. */
    enum http_fault fault = http_parse_request(&head, p, c->head_len);
    ALWAYS(fault == HTTP_FAULT_NONE);
    handle(c, &head, span_of(p + c->head_len, body_len));
    return used;
}

static size_t step_head(struct client *c, char *p, size_t n, size_t *keep)
{
    struct http_request_head head;
    size_t limit = table_of(c)->limits.head_bytes;
    size_t skip = c->scanned ? 0 : http_skip_empty_lines(p, n);

    *keep = n;
    if (skip)
        return skip;
    if (n == 1 && p[0] == '\r')
        return 0; /* perhaps half an empty line */
    size_t len = http_head_end(p, n, &c->scanned);
    if (len > limit || (len == 0 && n > limit)) {
        refuse_head(c, HTTP_FAULT_HEAD_TOO_LARGE);
        return 0;
    }
    if (len == 0) {
        if (c->state == CLIENT_IDLE && n) {
            set_state(c, CLIENT_HEAD);
            arm(c, table_of(c)->timeouts.head);
        }
        return 0;
    }
    c->scanned = 0;
    enum http_fault fault = http_parse_request(&head, p, len);
    if (fault != HTTP_FAULT_NONE) {
        refuse_head(c, fault);
        return 0;
    }
    take_head(c, &head);
    if (head.framing == HTTP_BODY_NONE) {
        handle(c, &head, span_of(NULL, 0));
        return len;
    }
    if (head.framing == HTTP_BODY_LENGTH && head.content_length <= n - len &&
        head.content_length <= table_of(c)->limits.body_bytes) {
        size_t body_len = (size_t)head.content_length;
        handle(c, &head, span_of(p + len, body_len));
        return len + body_len;
    }
    if (!begin_body(c, &head, len, n - len))
        return 0;
    return step_body(c, p, n, keep);
}

/* New bytes at p (or none: what is in `in` is looked at again). Handles as many
 * requests as are whole, until one must wait for its answer. */
static void feed(struct client *c, char *p, size_t n)
{
    bool kept = buf_pending(&c->in) > 0;
    size_t used = 0, keep = 0;

    if (kept) {
        buf_add(&c->in, p, n);
        p = buf_head(&c->in);
        n = buf_pending(&c->in);
    }
    c->feeding = true;
    while (c->state <= CLIENT_BODY && used < n) {
        size_t step = c->state == CLIENT_BODY ? step_body(c, p + used, n - used, &keep)
                                              : step_head(c, p + used, n - used, &keep);
        if (step == 0)
            break;
        used += step;
    }
    c->feeding = false;
    if (c->state == CLIENT_CLOSED || c->state == CLIENT_LINGER)
        return;
    /* Kept: the part of a request (BODY, HEAD), or requests that wait their turn. */
    size_t rest = c->state <= CLIENT_BODY && used < n ? keep : n - used;
    if (kept) {
        buf_consume(&c->in, used);
        if (rest)
            c->in.len = c->in.pos + rest;
        else
            buf_fini(&c->in);
    } else if (rest) {
        buf_add(&c->in, p + used, rest);
    }
    if (!count_body(c) && c->state <= CLIENT_BODY && c->in.cap > BODY_SMALL)
        REFUSE(c, GATEWAY_ERROR_OVERLOADED,
               "too many request bodies are arriving at once (limits.body_memory_bytes)");
}

static void peer_left(struct client *c)
{
    client_close(c);
}

/* What a lingering peer sends is only counted, so not deciphered either. */
static ssize_t receive(struct client *c)
{
    char *scratch = c->worker->scratch;

    if (c->ssl && c->state != CLIENT_LINGER)
        return tls_recv(c->ssl, scratch, SCRATCH_BYTES, &c->hangup);
    return recv(c->watch.fd, scratch, SCRATCH_BYTES, 0);
}

static void read_on(struct client *c)
{
    struct worker *w = c->worker;

    for (int i = 0; i < READS_A_ROUND; i++) {
        ssize_t n = receive(c);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            c->readable = false;
            return;
        }
        if (n <= 0) {
            peer_left(c);
            return;
        }
        if (c->state == CLIENT_LINGER) {
            if ((size_t)n >= c->discard) {
                client_close(c);
                return;
            }
            c->discard -= (size_t)n;
            continue;
        }
        if (n < SCRATCH_BYTES && !c->hangup)
            c->readable = false; /* a short read has emptied the socket */
        feed(c, w->scratch, (size_t)n);
        if (c->state == CLIENT_BUSY && c->hangup) {
            peer_left(c); /* it sent its request and its end together */
            return;
        }
        if (c->state > CLIENT_BODY && c->state != CLIENT_LINGER)
            return; /* one request at a time */
        if (!c->readable && c->state != CLIENT_LINGER)
            return;
    }
    if (c->state != CLIENT_CLOSED)
        loop_again(&w->loop, &c->watch, EPOLLIN);
}

static void flush(struct client *c)
{
    size_t before = buf_pending(&c->out);
    int all = c->ssl ? tls_flush(c->ssl, &c->out) : socket_flush(c->watch.fd, &c->out);

    if (all < 0) {
        client_close(c);
        return;
    }
    if (c->exchange && c->exchange->upstream &&
        buf_pending(&c->out) <= table_of(c)->limits.client_buffer_bytes / 2)
        upstream_resume(c->exchange->upstream);
    if (c->state <= CLIENT_BODY)
        return; /* it was a 100: the deadline of the body goes on */
    if (all == 0) {
        if (buf_pending(&c->out) < before)
            arm_send(c);
        return;
    }
    timer_clear(&c->timer);
    if (c->state != CLIENT_FLUSH)
        return;
    if (c->cut)
        close_cut(c);
    else
        next_request(c);
}

static void shake_hands(struct client *c)
{
    static const char plain[] =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        "{\"error\":{\"message\":\"TLS is spoken here: ask https://\","
        "\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"bad_request\"}}\n";
    enum tls_progress progress = tls_handshake(c->ssl);

    if (progress == TLS_AGAIN)
        return;
    if (progress == TLS_DONE) {
        set_state(c, CLIENT_IDLE);
        arm(c, table_of(c)->timeouts.idle);
        c->readable = true; /* the request may have come with the handshake's end */
        read_on(c);
        return;
    }
    if (progress == TLS_PLAIN &&
        send(c->watch.fd, plain, sizeof(plain) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_debug("a client without TLS was gone already");
    linger(c); /* so that the alert, or this, can be read */
}

static void on_event(struct watch *watch, uint32_t events)
{
    struct client *c = CONTAINER_OF(watch, struct client, watch);

    if (events & (EPOLLERR | EPOLLHUP)) {
        client_close(c);
        return;
    }
    if (c->state == CLIENT_HANDSHAKE) {
        c->hangup |= (events & EPOLLRDHUP) != 0;
        shake_hands(c);
        return;
    }
    /* In FLUSH without bytes it is the end of TLS that waits. */
    if ((events & EPOLLOUT) && (buf_pending(&c->out) || c->state == CLIENT_FLUSH)) {
        flush(c);
        if (c->state == CLIENT_CLOSED)
            return;
    }
    if (!(events & (EPOLLIN | EPOLLRDHUP)))
        return;
    c->readable = true;
    c->hangup |= (events & EPOLLRDHUP) != 0;
    if (c->state <= CLIENT_BODY || c->state == CLIENT_LINGER)
        read_on(c);
    else if (events & EPOLLRDHUP)
        peer_left(c);
}

static void on_timer(struct timer *timer)
{
    struct client *c = CONTAINER_OF(timer, struct client, timer);

    switch (c->state) {
    case CLIENT_HEAD:
    case CLIENT_BODY:
        if (c->state == CLIENT_HEAD)
            c->minor = 1, c->head_only = false;
        REFUSE(c, GATEWAY_ERROR_TIMEOUT, "the request did not arrive in time (timeouts.%s)",
               c->state == CLIENT_HEAD ? "head" : "body");
        break;
    case CLIENT_BUSY:
    case CLIENT_FLUSH:
        /* The socket asks for more only when a large part of what it has, megabytes perhaps,
         * was taken: who reads slowly is seen in what is left of it. */
        if (untaken(c) < c->untaken) {
            arm_send(c);
            break;
        }
        client_close(c);
        break;
    case CLIENT_IDLE:
    case CLIENT_LINGER:
    case CLIENT_HANDSHAKE:
    case CLIENT_CLOSED:
        client_close(c);
    }
}

void client_drain(struct client *c)
{
    if (c->state == CLIENT_IDLE || c->state == CLIENT_HANDSHAKE)
        client_close(c);
    else
        c->keep_alive = false;
}
