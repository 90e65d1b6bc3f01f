/* gateway/loop - see loop.h. */
#include "gateway/loop.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { EVENTS_A_ROUND = 256 };

int loop_init(struct loop *l, struct err *err)
{
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll < 0)
        return err_set(err, 500, "epoll_create1: %s", strerror(errno));
    l->stop = false;
    l->now_ns = clock_ns();
    timers_init(&l->timers, l->now_ns);
    list_init(&l->again);
    list_init(&l->graves);
    return 0;
}

static void release_graves(struct loop *l)
{
    while (!list_empty(&l->graves)) {
        struct grave *g = CONTAINER_OF(l->graves.next, struct grave, link);
        list_remove(&g->link);
        g->release(g);
    }
}

void loop_fini(struct loop *l)
{
    release_graves(l);
    close(l->epoll);
    l->epoll = -1;
}

int loop_watch(struct loop *l, struct watch *w, int fd, uint32_t events,
               void (*on_event)(struct watch *w, uint32_t events))
{
    struct epoll_event e = {
        .events = events ? events : EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.ptr = w,
    };

    w->fd = fd;
    w->on_event = on_event;
    list_init(&w->again);
    return epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &e);
}

void loop_unwatch(struct watch *w)
{
    if (w->fd < 0)
        return;
    list_remove(&w->again);
    close(w->fd); /* also takes it out of the epoll set, if nobody has a duplicate */
    w->fd = -1;
}

void loop_again(struct loop *l, struct watch *w, uint32_t events)
{
    if (list_empty(&w->again)) {
        w->again_events = 0;
        list_append(&l->again, &w->again);
    }
    w->again_events |= events;
}

void loop_bury(struct loop *l, struct grave *g, void (*release)(struct grave *g))
{
    g->release = release;
    list_append(&l->graves, &g->link);
}

/* Calls those who asked for it before this round; who asks again waits for the next. */
static void run_again(struct loop *l)
{
    struct list now;

    if (list_empty(&l->again))
        return;
    now = l->again;
    now.next->prev = &now;
    now.prev->next = &now;
    list_init(&l->again);
    while (!list_empty(&now)) {
        struct watch *w = CONTAINER_OF(now.next, struct watch, again);
        list_remove(&w->again);
        w->on_event(w, w->again_events);
    }
}

void loop_run(struct loop *l)
{
    struct epoll_event events[EVENTS_A_ROUND];

    while (!l->stop) {
        int wait = list_empty(&l->again) ? timers_wait_ms(&l->timers, l->now_ns) : 0;
        int n = epoll_wait(l->epoll, events, EVENTS_A_ROUND, wait);
        l->now_ns = clock_ns();
        ALWAYS(n >= 0 || errno == EINTR);
        for (int i = 0; i < n; i++) {
            struct watch *w = events[i].data.ptr;
            if (w->fd >= 0) /* closed by an earlier event of this round */
                w->on_event(w, events[i].events);
        }
        run_again(l);
        timers_run(&l->timers, l->now_ns);
        release_graves(l);
    }
}
