/*
 * gateway/worker - see worker.h.
 *
 * What a worker shares with the main thread is in gateway.h: the newest table
 * (an atomic pointer), the wish to stop, and the acknowledgement.
 */
#include "gateway/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "gateway/gateway.h"
#include "gateway/internal.h"

enum {
    ACCEPTS_A_ROUND = 64,
    SCRATCH_BEFORE = 64, /* room for a chunk's size line before the read bytes */
    SCRATCH_AFTER = 64   /* and for its end behind them */
};

struct view *view_new(struct table *t)
{
    struct view *v = NEW(struct view);

    v->table = t;
    v->refs = 1;
    v->held = mem_zero(t->nmodels * sizeof(*v->held));
    return v;
}

void view_unref(struct view *v)
{
    if (!v || --v->refs)
        return;
    table_unref(v->table);
    free(v->held);
    free(v);
}

/* xoroshiro128+ (Blackman, Vigna 2018). */
uint64_t worker_random(struct worker *w)
{
    uint64_t a = w->rng[0], b = w->rng[1], sum = a + b;

    b ^= a;
    w->rng[0] = (a << 24 | a >> 40) ^ b ^ (b << 16);
    w->rng[1] = b << 37 | b >> 27;
    return sum;
}

const char *worker_date(struct worker *w)
{
    uint64_t now = w->loop.now_ns / 1000000000;

    if (now != w->date_s) {
        time_t wall = time(NULL);
        struct tm tm;
        w->date_s = now;
        strftime(w->date, sizeof(w->date), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n",
                 gmtime_r(&wall, &tm));
    }
    return w->date;
}

/* --- accepting --------------------------------------------------------------- */

static int reserve(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* No descriptor is left: the one kept in reserve takes a connection out of the
 * queue, so that its client is told at once and this loop does not spin. */
static void shed_one(struct worker *w, int listen_fd)
{
    if (w->reserve_fd >= 0)
        close(w->reserve_fd);
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        counter_add(&w->row->refused, 1);
    }
    w->reserve_fd = reserve();
}

/* Says no to a connection without reading from it; in TLS nothing can be said so early. */
static void refuse(struct listener *l, int fd, const char *setting)
{
    struct worker *w = l->worker;
    char text[512], body[256];

    int n = snprintf(body, sizeof(body),
                     "{\"error\":{\"message\":\"too many connections are open (%s)\","
                     "\"type\":\"server_error\",\"param\":null,"
                     "\"code\":\"too_many_connections\"}}\n",
                     setting);
    n = snprintf(text, sizeof(text),
                 "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                 "Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s",
                 n, body);
    if (!l->tls && send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        log_debug("worker %u: a refused client was gone already", w->index);
    shutdown(fd, SHUT_WR);
    close(fd);
    counter_add(&w->row->refused, 1);
}

/* One more client, welcome or not. */
static void take(struct listener *l, int fd, const struct sockaddr *peer)
{
    struct worker *w = l->worker;
    const struct limits *limits = &w->view->table->limits;
    unsigned place;

    if (l->tls && !w->tls) { /* the manager has not sent the certificate */
        close(fd);
        counter_add(&w->row->refused, 1);
        return;
    }

    if (w->nclients >= limits->connections / w->gateway_workers) {
        refuse(l, fd, "limits.connections");
        return;
    }
    if (gateway_peer_enter(w->gateway, peer, &place) > limits->client_connections) {
        gateway_peer_leave(w->gateway, place);
        refuse(l, fd, "limits.client_connections");
        return;
    }
    client_accept(w, fd, peer, place, l->tls ? w->tls : NULL);
}

static void on_accept(struct watch *watch, uint32_t events)
{
    struct listener *l = CONTAINER_OF(watch, struct listener, watch);
    struct worker *w = l->worker;

    for (int i = 0; i < ACCEPTS_A_ROUND; i++) {
        struct sockaddr_storage peer;
        socklen_t len = sizeof(peer);
        int fd = accept4(watch->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE)
                shed_one(w, watch->fd);
            return; /* EAGAIN: all taken; ECONNABORTED and the like: next round */
        }
        take(l, fd, (struct sockaddr *)&peer);
    }
}

static void stop_listening(struct worker *w)
{
    for (size_t i = 0; i < w->nlisteners; i++) {
        struct watch *watch = &w->listeners[i].watch;
        /* The manager has them too: closing ours alone would leave them in the set. */
        if (watch->fd >= 0 && epoll_ctl(w->loop.epoll, EPOLL_CTL_DEL, watch->fd, NULL) < 0 &&
            errno != ENOENT) /* the first table has not come */
            log_error("worker %u: cannot stop listening: %s", w->index, strerror(errno));
        loop_unwatch(watch);
    }
}

static int start_listening(struct worker *w)
{
    for (size_t i = 0; i < w->nlisteners; i++) {
        struct listener *l = &w->listeners[i];
        if (loop_watch(&w->loop, &l->watch, l->watch.fd, EPOLLIN, on_accept) < 0)
            return -1;
    }
    return 0;
}

/* --- news from the main thread ----------------------------------------------- */

static void adopt(struct worker *w)
{
    struct table *t = gateway_table(w->gateway); /* a reference for us */

    if (!t)
        return;
    if (w->view && w->view->table == t) {
        table_unref(t);
        return;
    }
    struct view *old = w->view;
    w->view = view_new(t);
    if (!old && start_listening(w) < 0)
        log_error("worker %u: cannot listen: %s", w->index, strerror(errno));
    gateway_adopted(w->gateway, w->index, t->epoch);
    view_unref(old);
    hold_release(w);
}

/* The newest certificate; connections keep theirs. */
static void adopt_tls(struct worker *w)
{
    SSL_CTX_free(w->tls);
    w->tls = gateway_tls(w->gateway);
}

static void drain(struct worker *w)
{
    if (!w->draining) {
        w->draining = true;
        stop_listening(w);
        for (size_t i = 0; i < COUNTERS_SLOTS; i++)
            if (w->pools[i])
                pool_close_idle(w->pools[i]);
        LIST_FOR_EACH_SAFE(it, &w->clients)
        client_drain(CONTAINER_OF(it, struct client, link));
        if (w->nclients == 0)
            w->loop.stop = true;
    }
}

static void end(struct worker *w)
{
    stop_listening(w);
    w->draining = true;
    while (!list_empty(&w->clients))
        client_end(CONTAINER_OF(w->clients.next, struct client, link));
    for (size_t i = 0; i < COUNTERS_SLOTS; i++)
        if (w->pools[i])
            pool_close_idle(w->pools[i]);
    w->loop.stop = true;
}

static void on_wake(struct watch *watch, uint32_t events)
{
    struct worker *w = CONTAINER_OF(watch, struct worker, wake);
    uint64_t n;

    while (read(watch->fd, &n, sizeof(n)) < 0 && errno == EINTR)
        ;
    access_adopt(w);
    adopt_tls(w); /* before the first table lets us listen */
    adopt(w);
    switch (gateway_wish(w->gateway)) {
    case GATEWAY_RUN:
        break;
    case GATEWAY_DRAIN:
        drain(w);
        break;
    case GATEWAY_END:
        end(w);
        break;
    }
}

void worker_wake(struct worker *w)
{
    uint64_t one = 1;

    if (write(w->wake.fd, &one, sizeof(one)) < 0)
        log_error("worker %u: cannot be woken: %s", w->index, strerror(errno));
}

static void on_hold_retry(struct timer *timer)
{
    hold_release(CONTAINER_OF(timer, struct worker, hold_retry));
}

/* --- life -------------------------------------------------------------------- */

struct worker *worker_new(struct gateway *g, unsigned index, unsigned workers,
                          const int *listen_fds, const bool *tls, size_t n,
                          struct counters *counters, struct err *err)
{
    struct worker *w = NEW(struct worker);
    int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    w->gateway = g;
    w->index = index;
    w->gateway_workers = workers;
    w->counters = counters;
    w->row = &counters->workers[index];
    w->wake.fd = -1;
    list_init(&w->clients);
    list_init(&w->held);
    timer_init(&w->hold_retry, on_hold_retry);
    access_init(w);
    w->scratch = (char *)mem_alloc(SCRATCH_BEFORE + SCRATCH_BYTES + SCRATCH_AFTER) + SCRATCH_BEFORE;
    w->flat = mem_alloc(FLAT_BYTES);
    w->reserve_fd = reserve();
    w->nlisteners = n;
    w->listeners = mem_zero(n * sizeof(*w->listeners));
    for (size_t i = 0; i < n; i++) {
        w->listeners[i].worker = w;
        w->listeners[i].watch.fd = listen_fds[i];
        w->listeners[i].tls = tls[i];
        list_init(&w->listeners[i].watch.again);
    }
    if (getrandom(w->rng, sizeof(w->rng), 0) != sizeof(w->rng) || wake < 0 ||
        loop_init(&w->loop, err) < 0) {
        err_set(err, 500, "worker %u: %s", index, strerror(errno));
        return NULL; /* the process ends with this */
    }
    if (loop_watch(&w->loop, &w->wake, wake, EPOLLIN, on_wake) < 0) {
        err_set(err, 500, "worker %u: epoll_ctl: %s", index, strerror(errno));
        return NULL;
    }
    return w;
}

static void *run(void *arg)
{
    struct worker *w = arg;

    loop_run(&w->loop);
    access_fini(w);
    gateway_worker_done(w->gateway);
    return NULL;
}

int worker_start(struct worker *w, struct err *err)
{
    int rc = pthread_create(&w->thread, NULL, run, w);

    return rc ? err_set(err, 500, "worker %u: pthread_create: %s", w->index, strerror(rc)) : 0;
}

void worker_join_free(struct worker *w)
{
    pthread_join(w->thread, NULL);
    loop_unwatch(&w->wake);
    loop_fini(&w->loop);
    view_unref(w->view);
    for (size_t i = 0; i < COUNTERS_SLOTS; i++)
        free(w->pools[i]);
    if (w->reserve_fd >= 0)
        close(w->reserve_fd);
    buf_fini(&w->lines);
    EVP_MD_CTX_free(w->digest);
    SSL_CTX_free(w->tls);
    free(w->scratch - SCRATCH_BEFORE);
    free(w->flat);
    free(w->listeners);
    free(w);
}
