/*
 * conn - see conn.h.
 *
 * A connection sends, reads, has the answer judged (reply.c, verdict.c) and
 * counts what came of it into its worker's tally.
 */
#include "conn.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"

enum { SAMPLES_OF_A_CAUSE = 2 };

#define RETRY_NS UINT64_C(20000000) /* after a failed connect */

#define TO(st) (UINT32_C(1) << CONN_##st)

static const uint32_t allowed[CONN_NSTATES] = {
    [CONN_CLOSED] = TO(CONNECTING),
    [CONN_CONNECTING] = TO(READY) | TO(CLOSED),
    [CONN_READY] = TO(SENDING) | TO(CLOSED),
    [CONN_SENDING] = TO(WAITING) | TO(READING) | TO(CLOSED),
    [CONN_WAITING] = TO(READING) | TO(CLOSED),
    [CONN_READING] = TO(READY) | TO(CLOSED),
};

static void set_state(struct conn *c, enum conn_state next)
{
    ALWAYS(allowed[c->state] & (UINT32_C(1) << next));
    c->state = next;
    ALWAYS((next == CONN_CLOSED) == (c->fd < 0));
    ALWAYS(next < CONN_SENDING || c->request);
}

/* --- the life of a connection ------------------------------------------- */

static void conn_drop(struct conn *c, uint64_t delay_ns)
{
    struct worker *w = c->worker;

    close(c->fd);
    c->fd = -1;
    set_state(c, CONN_CLOSED);
    buf_fini(&c->held);
    list_remove(&c->link);
    c->request = NULL;
    c->due_ns = w->now + delay_ns;
    if (!c->holding)
        list_append(&w->retry, &c->link);
}

static void conn_next(struct conn *c);

static void keep_sample(struct conn *c, enum cause cause)
{
    struct worker *w = c->worker;

    if (w->nsamples == WORKER_SAMPLES || w->tally.cause[cause] > SAMPLES_OF_A_CAUSE)
        return;
    struct span body = buf_span(&c->verdict.held);
    snprintf(w->sample[w->nsamples++], WORKER_SAMPLE_BYTES,
             "%s: %s%s%s; status %d, version %s, %s, %llu events, after %.1f ms: %.*s",
             cause_name(cause), cause_note(cause), c->reply.complaint ? ": " : "",
             c->reply.complaint ? c->reply.complaint : "", c->reply.status,
             c->reply.version[0] ? c->reply.version : "-",
             c->request->stream ? "streamed" : "plain", (unsigned long long)c->verdict.tokens,
             (double)(w->now - c->started_ns) / 1e6, body.n > 160 ? 160 : (int)body.n, body.p);
}

static void keep_record(struct worker *w, const struct conn *c)
{
    if (w->nrecords == w->records_room) {
        w->records_room = w->records_room ? 2 * w->records_room : 4096;
        w->records = mem_grow(w->records, w->records_room * sizeof(*w->records));
    }
    w->records[w->nrecords++] = (struct record){c->started_ns, w->now, c->version};
}

static void count_right(struct conn *c)
{
    struct worker *w = c->worker;
    struct tally *t = &w->tally;
    uint64_t took = w->now - c->intended_ns;

    if (c->request->stream) {
        t->streams_ok++;
        t->tokens += c->verdict.tokens;
        histogram_add(&t->streams, took);
    } else {
        t->plain_ok++;
        histogram_add(&t->plain, took);
    }
    histogram_add(&t->first_byte, c->first_ns - c->started_ns);
    if (c->version >= 0) {
        t->version[c->version]++;
        if (t->first_version < 0) {
            t->first_version = c->version;
            t->first_ended_ns = w->now;
        }
        t->last_version = c->version;
        t->last_right_ns = w->now;
    } else {
        t->unversioned++;
    }
}

/* The request has its verdict. */
static void count(struct conn *c, enum cause cause)
{
    struct worker *w = c->worker;
    bool right = cause == CAUSE_NONE;

    w->tally.cause[cause]++;
    w->tally.last_ended_ns = w->now;
    if (c->reply.status > 0 && c->reply.status < TALLY_STATUSES)
        w->tally.status[c->reply.status]++;
    if (right)
        count_right(c);
    else
        keep_sample(c, cause);

    pthread_mutex_lock(&w->lock);
    w->in_flight--;
    w->interval.ok += right;
    w->interval.failed += !right;
    w->interval.tokens += right ? c->verdict.tokens : 0;
    if (right)
        histogram_add(&w->interval.latency, w->now - c->intended_ns);
    if (right && c->version >= 0)
        w->interval.version[c->version]++;
    if (w->run->keep_records && c->version >= 0)
        keep_record(w, c);
    pthread_mutex_unlock(&w->lock);
}

static void count_held(struct conn *c, enum cause cause)
{
    struct worker *w = c->worker;

    if (cause != CAUSE_NONE) {
        w->tally.idle_failed++;
        keep_sample(c, cause);
        return;
    }
    c->holding = true;
    pthread_mutex_lock(&w->lock);
    w->idle_open++;
    pthread_mutex_unlock(&w->lock);
}

static void conn_lost_held(struct conn *c)
{
    struct worker *w = c->worker;

    w->tally.idle_lost++;
    pthread_mutex_lock(&w->lock);
    w->idle_open--;
    pthread_mutex_unlock(&w->lock);
}

void conn_finish(struct conn *c, enum cause cause, bool reusable)
{
    if (c->hold)
        count_held(c, cause);
    else
        count(c, cause);

    if (c->hold && cause == CAUSE_NONE && !reusable)
        conn_lost_held(c);
    if (!reusable || c->sent < c->request->n) {
        conn_drop(c, cause == CAUSE_NONE || cause > CAUSE_UNFINISHED ? 0 : RETRY_NS);
        return;
    }
    set_state(c, CONN_READY);
    c->request = NULL;
    if (!c->holding)
        conn_next(c);
}

static void conn_write(struct conn *c)
{
    while (c->sent < c->request->n) {
        ssize_t n = send(c->fd, c->request->bytes + c->sent, c->request->n - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            conn_finish(c, CAUSE_UNANSWERED, false);
            return;
        }
        c->sent += (size_t)n;
    }
    set_state(c, CONN_WAITING);
}

static bool turn_to_stream(const struct worker *w, uint64_t number)
{
    double share = w->run->streams;
    return (uint64_t)((double)(number + 1) * share) > (uint64_t)((double)number * share);
}

void conn_begin(struct conn *c, uint64_t intended_ns)
{
    struct worker *w = c->worker;
    const struct script *s = &w->run->script;
    uint64_t number = c->hold ? 0 : w->begun++;
    bool stream = !c->hold && turn_to_stream(w, number);

    c->request = (stream ? s->streamed : s->plain) + (number + w->phase * 17) % s->count;
    c->sent = 0;
    c->head_seen = false;
    c->version = -1;
    c->first_ns = c->event_ns = 0;
    reply_begin(&c->reply);
    verdict_begin(&c->verdict, stream, w->run->keep_text);
    if (!c->hold) {
        w->quota--;
        pthread_mutex_lock(&w->lock);
        w->started++;
        w->in_flight++;
        pthread_mutex_unlock(&w->lock);
    }
    c->intended_ns = intended_ns;
    c->started_ns = w->now = clock_ns();
    set_state(c, CONN_SENDING);
    conn_write(c);
}

/* A READY connection: its next request, or it waits for one. */
static void conn_next(struct conn *c)
{
    struct worker *w = c->worker;

    if (c->hold) {
        conn_begin(c, w->now);
    } else if (!worker_may_begin(w)) {
        list_append(&w->ready, &c->link);
    } else if (w->period_ns > 0) {
        uint64_t intended = worker_next_intended(w);
        if (intended > w->now)
            list_append(&w->ready, &c->link);
        else
            conn_begin(c, intended);
    } else {
        conn_begin(c, w->now);
    }
}

/* A connect failed: whoever wanted to send a request now has failed. */
static void count_no_connect(struct worker *w, const struct conn *c)
{
    if (c->hold) {
        w->tally.idle_failed++;
        return;
    }
    if (!worker_may_begin(w))
        return;
    w->begun++;
    w->quota--;
    w->tally.cause[CAUSE_CONNECT]++;
    pthread_mutex_lock(&w->lock);
    w->started++;
    w->interval.failed++;
    pthread_mutex_unlock(&w->lock);
    if (w->nsamples < WORKER_SAMPLES)
        snprintf(w->sample[w->nsamples++], WORKER_SAMPLE_BYTES, "connect: %s: %s",
                 w->run->address.text, strerror(errno));
}

void conn_open(struct conn *c)
{
    struct worker *w = c->worker;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};

    list_remove(&c->link);
    c->fd = address_connect(&w->run->address);
    if (c->fd >= 0 && epoll_ctl(w->epoll, EPOLL_CTL_ADD, c->fd, &ev) == 0) {
        w->tally.connects++;
        set_state(c, CONN_CONNECTING);
        return;
    }
    count_no_connect(w, c);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->due_ns = w->now + RETRY_NS;
    list_append(&w->retry, &c->link);
}

static void conn_connected(struct conn *c)
{
    int error = 0;
    socklen_t n = sizeof(error);

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n);
    if (error) {
        errno = error;
        count_no_connect(c->worker, c);
        conn_drop(c, RETRY_NS);
        return;
    }
    set_state(c, CONN_READY);
    conn_next(c);
}

/* --- reading ------------------------------------------------------------- */

static void see_head(struct conn *c)
{
    c->head_seen = true;
    verdict_head(&c->verdict, &c->reply);
}

static void on_body(void *arg, struct span body)
{
    struct conn *c = arg;
    struct worker *w = c->worker;

    if (!c->head_seen)
        see_head(c);
    uint64_t before = c->verdict.tokens;
    verdict_body(&c->verdict, body);
    for (uint64_t i = before; i < c->verdict.tokens; i++) {
        if (i == 0)
            histogram_add(&w->tally.first_token, w->now - c->started_ns);
        else
            histogram_add(&w->tally.token_gap, w->now - c->event_ns);
        c->event_ns = w->now;
    }
}

/* The answer is whole: is it right? */
static void conn_judge(struct conn *c)
{
    struct run *run = c->worker->run;

    if (!c->head_seen)
        see_head(c);
    enum cause cause = verdict_end(&c->verdict, &c->reply, run->check_version);

    const char *name = c->reply.version[0] ? c->reply.version : c->verdict.model;
    if (*name)
        c->version = names_index(&run->names, name);
    if (cause == CAUSE_NONE && run->keep_text) {
        const char *want = expect_text(&run->expect, c->version, c->request->sentence);
        if (want && !span_eq_str(buf_span(&c->verdict.text), want))
            cause = CAUSE_WRONG_TEXT;
    }
    conn_finish(c, cause, c->reply.keep_alive && !run->reconnect && !c->ending);
}

/* Feeds bytes to the answer; returns how many were used. */
static size_t conn_feed(struct conn *c, const char *p, size_t n)
{
    if (!c->first_ns)
        c->first_ns = c->worker->now;
    if (c->state != CONN_READING)
        set_state(c, CONN_READING);

    size_t used = reply_feed(&c->reply, p, n, on_body, c);
    if (c->reply.state == REPLY_BROKEN) {
        conn_finish(c, CAUSE_FRAMING, false);
        return n;
    }
    if (c->reply.state != REPLY_WHOLE)
        return used;
    if (used < n) {
        conn_finish(c, CAUSE_SURPLUS, false);
        return n;
    }
    conn_judge(c);
    return n;
}

static void conn_bytes(struct conn *c, size_t n)
{
    struct worker *w = c->worker;

    w->tally.received_bytes += n;
    if (!conn_has_request(c)) {
        w->tally.stray++;
        if (c->holding)
            conn_lost_held(c);
        conn_drop(c, 0);
        return;
    }
    if (buf_pending(&c->held) == 0) {
        size_t used = conn_feed(c, w->bytes, n);
        if (used < n)
            buf_add(&c->held, w->bytes + used, n - used);
        return;
    }
    /* conn_feed may drop the connection, and its buffer with it. */
    struct buf held = c->held;
    c->held = (struct buf){0};
    buf_add(&held, w->bytes, n);
    buf_consume(&held, conn_feed(c, buf_head(&held), buf_pending(&held)));
    if (buf_pending(&held))
        c->held = held;
    else
        buf_fini(&held);
}

/* The other side has ended the connection. */
static void conn_ended(struct conn *c)
{
    if (!conn_has_request(c)) {
        c->worker->tally.closed_idle++;
        if (c->holding)
            conn_lost_held(c);
        conn_drop(c, 0);
    } else if (c->state != CONN_READING) {
        conn_finish(c, CAUSE_UNANSWERED, false);
    } else if (reply_closed(&c->reply)) {
        conn_judge(c);
    } else {
        conn_finish(c, CAUSE_TRUNCATED, false);
    }
}

static void conn_read(struct conn *c)
{
    for (;;) {
        ssize_t n = read(c->fd, c->worker->bytes, CONN_READ_BYTES);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            conn_ended(c);
            return;
        }
        conn_bytes(c, (size_t)n);
        /* A short read has emptied the socket; what comes later is a new edge. */
        if (n < CONN_READ_BYTES || c->fd < 0)
            return;
    }
}

void conn_event(struct conn *c, uint32_t events)
{
    if (c->state == CONN_CONNECTING) {
        conn_connected(c);
        return;
    }
    c->ending = events & EPOLLRDHUP;
    if (c->state == CONN_SENDING && (events & EPOLLOUT))
        conn_write(c);
    if (c->fd >= 0 && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        conn_read(c);
    /* The last bytes and the end may have come as one edge. */
    if (c->fd >= 0 && (events & EPOLLRDHUP))
        conn_read(c);
}
