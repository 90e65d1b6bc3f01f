/*
 * gateway/upstream - connections to engines, and where they wait (pool).
 *
 * A pool belongs to one worker and one slot; the manager gives a slot to one
 * engine at a time.  An idle connection stays in the epoll set: the moment the
 * engine closes it, or says anything unasked, it is closed here, so that it
 * is not chosen for a request (the race that remains is a retry).
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "gateway/internal.h"

enum {
    IDLE_MAX = 256 /* kept connections of one pool */
};

static void on_event(struct watch *watch, uint32_t events);
static void on_timer(struct timer *timer);

static void set_state(struct upstream *u, enum upstream_state next)
{
    static const unsigned allowed[] = {
        [UPSTREAM_CONNECTING] = 1u << UPSTREAM_BUSY | 1u << UPSTREAM_CLOSED,
        [UPSTREAM_BUSY] = 1u << UPSTREAM_IDLE | 1u << UPSTREAM_CLOSED,
        [UPSTREAM_IDLE] = 1u << UPSTREAM_BUSY | 1u << UPSTREAM_CLOSED,
        [UPSTREAM_CLOSED] = 0,
    };

    ALWAYS(allowed[u->state] & 1u << next);
    u->state = next;
    ALWAYS((u->exchange != NULL) == (next == UPSTREAM_BUSY));
}

struct pool *pool_of(struct worker *w, const struct replica_route *r)
{
    struct pool *p = w->pools[r->slot];

    if (!p) {
        p = w->pools[r->slot] = NEW(struct pool);
        p->slot = r->slot;
        p->address_id = r->address_id;
        p->since_ns = w->loop.now_ns;
        p->row = &w->counters->replicas[r->slot][w->index];
        list_init(&p->idle);
    } else if (p->address_id != r->address_id) {
        /* The slot has a new engine; busy connections to the old one end by themselves. */
        pool_close_idle(p);
        p->address_id = r->address_id;
        p->since_ns = w->loop.now_ns;
        p->failures = p->bad = 0;
        p->avoid_until_ns = 0;
        p->trial = NULL;
    }
    return p;
}

void pool_close_idle(struct pool *p)
{
    while (!list_empty(&p->idle))
        upstream_close(CONTAINER_OF(p->idle.next, struct upstream, link));
}

static void idle_add(struct upstream *u)
{
    list_prepend(&u->pool->idle, &u->link);
    u->pool->nidle++;
}

static void idle_remove(struct upstream *u)
{
    list_remove(&u->link);
    u->pool->nidle--;
}

static struct upstream *upstream_open(struct worker *w, const struct replica_route *r,
                                      struct pool *p)
{
    int one = 1;
    int fd = socket(r->sock.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return NULL;
    if (r->sock.any.sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, &r->sock.any, r->sock_len) < 0 && errno != EINPROGRESS) {
        int why = errno;
        close(fd);
        errno = why;
        return NULL;
    }
    struct upstream *u = NEW(struct upstream);
    u->worker = w;
    u->pool = p;
    u->address_id = r->address_id;
    u->state = UPSTREAM_CONNECTING;
    list_init(&u->link);
    timer_init(&u->timer, on_timer);
    if (loop_watch(&w->loop, &u->watch, fd, 0, on_event) < 0) {
        int why = errno;
        close(fd);
        free(u);
        errno = why;
        return NULL;
    }
    return u;
}

struct upstream *upstream_get(struct worker *w, const struct replica_route *r, struct pool *p,
                              struct exchange *x)
{
    struct upstream *u;

    if (!list_empty(&p->idle)) {
        u = CONTAINER_OF(p->idle.next, struct upstream, link);
        idle_remove(u);
        timer_clear(&u->timer);
        u->exchange = x;
        set_state(u, UPSTREAM_BUSY);
        return u;
    }
    u = upstream_open(w, r, p);
    if (u) {
        u->exchange = x;
        timer_set(&w->loop.timers, &u->timer, w->loop.now_ns + x->view->table->timeouts.connect);
    }
    return u;
}

void upstream_put(struct upstream *u)
{
    struct worker *w = u->worker;

    if (u->address_id != u->pool->address_id || buf_pending(&u->out) || buf_pending(&u->in) ||
        w->draining || u->pool->nidle >= IDLE_MAX) {
        upstream_close(u);
        return;
    }
    u->exchange = NULL;
    u->reused = true;
    u->paused = false;
    buf_fini(&u->in);
    buf_fini(&u->out);
    set_state(u, UPSTREAM_IDLE);
    idle_add(u);
    timer_set(&w->loop.timers, &u->timer, w->loop.now_ns + w->view->table->timeouts.upstream_idle);
}

static void release(struct grave *g)
{
    free(CONTAINER_OF(g, struct upstream, grave));
}

void upstream_close(struct upstream *u)
{
    if (u->state == UPSTREAM_CLOSED)
        return;
    if (u->state == UPSTREAM_IDLE)
        idle_remove(u);
    u->exchange = NULL;
    set_state(u, UPSTREAM_CLOSED);
    timer_clear(&u->timer);
    loop_unwatch(&u->watch);
    buf_fini(&u->in);
    buf_fini(&u->out);
    loop_bury(&u->worker->loop, &u->grave, release);
}

/* One send of pieces: small ones are put together first, which costs less than
 * letting the kernel walk through them. */
static ssize_t send_pieces(struct worker *w, int fd, struct iovec *pieces, int n, size_t total)
{
    struct msghdr m = {.msg_iov = pieces, .msg_iovlen = (size_t)n};

    if (n == 1)
        return send(fd, pieces[0].iov_base, total, MSG_NOSIGNAL);
    if (total <= FLAT_BYTES) {
        char *p = w->flat;
        for (int i = 0; i < n; i++) {
            if (pieces[i].iov_len)
                memcpy(p, pieces[i].iov_base, pieces[i].iov_len);
            p += pieces[i].iov_len;
        }
        return send(fd, w->flat, total, MSG_NOSIGNAL);
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL);
}

/* Shared by both sides: sends pieces and keeps the rest in `out`. */
int socket_send(struct worker *w, int fd, struct buf *out, struct iovec *pieces, int n)
{
    size_t total = 0;
    ssize_t sent = 0;

    for (int i = 0; i < n; i++)
        total += pieces[i].iov_len;
    if (buf_pending(out) == 0) {
        do
            sent = send_pieces(w, fd, pieces, n, total);
        while (sent < 0 && errno == EINTR);
        if (sent < 0 && errno != EAGAIN)
            return -1;
        if (sent < 0)
            sent = 0;
    }
    size_t skip = (size_t)sent;
    for (int i = 0; i < n; i++) {
        size_t len = pieces[i].iov_len;
        if (skip < len)
            buf_add(out, (char *)pieces[i].iov_base + skip, len - skip);
        skip -= skip < len ? skip : len;
    }
    return 0;
}

/* 1: all gone, 0: some left, -1: errno. */
int socket_flush(int fd, struct buf *out)
{
    while (buf_pending(out)) {
        ssize_t n = send(fd, buf_head(out), buf_pending(out), MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        buf_consume(out, (size_t)n);
    }
    buf_fini(out);
    return 1;
}

int upstream_send(struct upstream *u, struct iovec *pieces, int n)
{
    return socket_send(u->worker, u->watch.fd, &u->out, pieces, n);
}

/* An exchange is told, and decides; an idle connection just ends. */
static void ended(struct upstream *u, int why)
{
    if (u->exchange)
        exchange_on_upstream_end(u->exchange, why);
    else
        upstream_close(u);
}

static void read_on(struct upstream *u, bool hangup)
{
    struct worker *w = u->worker;

    for (int i = 0; i < READS_A_ROUND; i++) {
        ssize_t n = recv(u->watch.fd, w->scratch, SCRATCH_BYTES, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            ended(u, n < 0 ? errno : 0);
            return;
        }
        if (!u->exchange) { /* bytes that nobody asked for must not become an answer */
            upstream_close(u);
            return;
        }
        /* A short read has emptied the socket; whatever comes later is a new
         * edge, except an end that this very event has announced. */
        bool drained = n < SCRATCH_BYTES && !hangup;
        if (!exchange_on_bytes(u->exchange, w->scratch, (size_t)n, drained) || drained)
            return;
    }
    loop_again(&w->loop, &u->watch, EPOLLIN | (hangup ? EPOLLRDHUP : 0));
}

void upstream_resume(struct upstream *u)
{
    if (u->paused) {
        u->paused = false;
        timer_set(&u->worker->loop.timers, &u->timer,
                  u->worker->loop.now_ns + u->worker->view->table->timeouts.between_bytes);
        loop_again(&u->worker->loop, &u->watch, EPOLLIN | EPOLLRDHUP);
    }
}

static int connect_error(int fd)
{
    int why = 0;
    socklen_t n = sizeof(why);

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &n) < 0 ? errno : why;
}

static void on_event(struct watch *watch, uint32_t events)
{
    struct upstream *u = CONTAINER_OF(watch, struct upstream, watch);

    if (u->state == UPSTREAM_CONNECTING) {
        int why = connect_error(watch->fd);
        if (why) {
            exchange_on_upstream_end(u->exchange, why);
            return;
        }
        if (!(events & EPOLLOUT))
            return;
        timer_clear(&u->timer);
        set_state(u, UPSTREAM_BUSY);
        exchange_on_connected(u->exchange);
        if (u->state != UPSTREAM_BUSY)
            return;
    }
    if ((events & EPOLLOUT) && buf_pending(&u->out) && socket_flush(watch->fd, &u->out) < 0) {
        /* The engine may have answered before it stopped to listen: read that first. */
        buf_fini(&u->out);
        events |= EPOLLIN | EPOLLRDHUP;
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && !u->paused)
        read_on(u, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
}

static void on_timer(struct timer *timer)
{
    struct upstream *u = CONTAINER_OF(timer, struct upstream, timer);

    if (u->exchange)
        exchange_on_timeout(u->exchange);
    else
        upstream_close(u);
}
