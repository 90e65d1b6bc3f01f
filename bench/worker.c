/* worker - see worker.h; its connections are in conn.c. */
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "conn.h"

enum { EVENTS_MAX = 256 };

#define PACE_NS UINT64_C(50000)    /* between the connects of the beginning */
#define LOOK_NS UINT64_C(50000000) /* longest sleep: `stop` and deadlines are looked at */

bool worker_may_begin(const struct worker *w)
{
    return w->quota > 0 && !atomic_load_explicit(&w->run->stop, memory_order_relaxed);
}

uint64_t worker_next_intended(const struct worker *w)
{
    double at = ((double)w->begun + (double)w->phase / w->run->threads) * w->period_ns;
    return w->run->start_ns + (uint64_t)at;
}

static void expire(struct worker *w)
{
    for (unsigned i = 0; i < w->count; i++) {
        struct conn *c = &w->conns[i];
        if (conn_has_request(c) && w->now - c->started_ns > w->run->timeout_ns)
            conn_finish(c, CAUSE_TIMEOUT, false);
    }
}

static void open_due(struct worker *w)
{
    while (!list_empty(&w->retry)) {
        struct conn *c = CONTAINER_OF(w->retry.next, struct conn, link);
        if (c->due_ns > w->now || atomic_load(&w->run->stop))
            return;
        conn_open(c);
    }
}

/* Gives the intended requests that are due to free connections. */
static void begin_due(struct worker *w)
{
    while (!list_empty(&w->ready) && worker_may_begin(w)) {
        uint64_t intended = w->period_ns > 0 ? worker_next_intended(w) : w->now;
        if (intended > w->now)
            return;
        struct conn *c = CONTAINER_OF(w->ready.next, struct conn, link);
        list_remove(&c->link);
        conn_begin(c, intended);
    }
}

static struct timespec sleep_time(const struct worker *w)
{
    uint64_t until = w->now + LOOK_NS;

    if (!list_empty(&w->retry)) {
        uint64_t due = CONTAINER_OF(w->retry.next, struct conn, link)->due_ns;
        until = due < until ? due : until;
    }
    if (w->period_ns > 0 && !list_empty(&w->ready) && worker_may_begin(w)) {
        uint64_t due = worker_next_intended(w);
        until = due < until ? due : until;
    }
    uint64_t ns = until > w->now ? until - w->now : 0;
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000),
                             .tv_nsec = (long)(ns % 1000000000)};
}

static void turn(struct worker *w)
{
    struct epoll_event events[EVENTS_MAX];
    struct timespec patience = sleep_time(w);

    int n = epoll_pwait2(w->epoll, events, EVENTS_MAX, &patience, NULL);
    w->now = clock_ns();
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c->fd >= 0)
            conn_event(c, events[i].events);
        w->now = clock_ns();
    }
    open_due(w);
    begin_due(w);
    if (w->now - w->looked_ns >= 4 * LOOK_NS) {
        expire(w);
        w->looked_ns = w->now;
    }
}

/* Nothing will start, or the grace is over. A run that only holds connections goes on
 * until it is stopped. */
static bool over(struct worker *w, uint64_t *stopping_ns)
{
    bool stop = atomic_load(&w->run->stop);

    if (stop && !*stopping_ns)
        *stopping_ns = w->now;
    if (w->quota > 0 && !stop)
        return false;
    return w->in_flight == 0 || (stop && w->now - *stopping_ns > w->run->grace_ns);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    uint64_t stopping_ns = 0;

    /* The kernel may wake us 50 us late by default, which is as long as an answer takes. */
    prctl(PR_SET_TIMERSLACK, 1);
    w->now = clock_ns();
    do
        turn(w);
    while (!over(w, &stopping_ns));

    for (unsigned i = 0; i < w->count; i++) {
        struct conn *c = &w->conns[i];
        if (conn_has_request(c) && !c->hold)
            conn_finish(c, CAUSE_UNFINISHED, false);
        if (c->fd >= 0)
            close(c->fd);
        verdict_fini(&c->verdict);
        buf_fini(&c->held);
    }
    atomic_store(&w->ended, true);
    return NULL;
}

/* This worker's part of n. */
static uint64_t part(const struct run *run, unsigned number, uint64_t n)
{
    return n / run->threads + (number < n % run->threads);
}

static void make_conns(struct worker *w, unsigned number)
{
    unsigned load = (unsigned)part(w->run, number, w->run->connections);

    w->count = load + (unsigned)part(w->run, number, w->run->idle);
    w->conns = mem_zero(w->count * sizeof(*w->conns));
    for (unsigned i = 0; i < w->count; i++) {
        struct conn *c = &w->conns[i];
        c->worker = w;
        c->fd = -1;
        c->hold = i >= load;
        c->verdict.memory = &w->memory;
        c->due_ns = w->run->start_ns + i * PACE_NS;
        list_append(&w->retry, &c->link);
    }
}

struct worker *worker_start(struct run *run, unsigned number, struct err *err)
{
    struct worker *w = NEW(struct worker);

    w->run = run;
    w->phase = number;
    w->quota = run->requests ? part(run, number, run->requests) : UINT64_MAX;
    w->period_ns = run->rate > 0 ? 1e9 / (run->rate / run->threads) : 0;
    list_init(&w->retry);
    list_init(&w->ready);
    tally_init(&w->tally);
    pthread_mutex_init(&w->lock, NULL);
    w->bytes = mem_alloc(CONN_READ_BYTES);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    make_conns(w, number);
    int failed = w->epoll < 0 ? errno : pthread_create(&w->thread, NULL, work, w);
    if (!failed)
        return w;

    err_set(err, 0, "cannot start thread %u: %s", number, strerror(failed));
    free(w->conns);
    free(w->bytes);
    free(w);
    return NULL;
}

bool worker_ended(struct worker *w)
{
    return atomic_load(&w->ended);
}

void worker_collect(struct worker *w, struct interval *into, uint64_t *in_flight,
                    uint64_t *idle_open)
{
    pthread_mutex_lock(&w->lock);
    interval_merge(into, &w->interval);
    interval_clear(&w->interval);
    *in_flight += w->in_flight;
    *idle_open += w->idle_open;
    pthread_mutex_unlock(&w->lock);
}

struct record *worker_take_records(struct worker *w, size_t *count)
{
    pthread_mutex_lock(&w->lock);
    struct record *records = w->records;
    *count = w->nrecords;
    w->records = NULL;
    w->nrecords = w->records_room = 0;
    pthread_mutex_unlock(&w->lock);
    return records;
}

void worker_join(struct worker *w, struct tally *into, uint64_t *started,
                 void (*sample)(void *arg, const char *text), void *arg)
{
    pthread_join(w->thread, NULL);
    tally_merge(into, &w->tally);
    *started += w->started;
    for (unsigned i = 0; i < w->nsamples; i++)
        sample(arg, w->sample[i]);
    pthread_mutex_destroy(&w->lock);
    close(w->epoll);
    free(w->records);
    free(w->conns);
    free(w->bytes);
    free(w);
}
