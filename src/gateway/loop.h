/*
 * gateway/loop - one epoll instance for one worker thread.
 *
 * Every descriptor is registered once, edge-triggered, for reading, writing
 * and the peer's end, and stays so until it is closed: no epoll_ctl(2) on the
 * way of a request.  An edge tells that something may be done now; whoever
 * does not do it at once remembers that (a `readable` flag) or asks for
 * another call with loop_again().
 *
 * Closing is a request: an object that ends within an event goes to
 * loop_bury(), and its memory is released when the events of this round are
 * done, because some of them may still point to it.
 */
#pragma once
#include <stdint.h>
#include <sys/epoll.h>

#include "base/err.h"
#include "gateway/timers.h"

struct watch {
    int fd; /* owned; -1 when closed */
    void (*on_event)(struct watch *w, uint32_t events);
    struct list again;     /* in loop->again, or in none */
    uint32_t again_events; /* what that call will be told */
};

struct grave {
    struct list link;
    void (*release)(struct grave *g);
};

struct loop {
    int epoll;       /* owned */
    bool stop;       /* set by anybody on the loop's thread: leave after this round */
    uint64_t now_ns; /* CLOCK_MONOTONIC at the start of this round */
    struct timers timers;
    struct list again;
    struct list graves;
};

int loop_init(struct loop *l, struct err *err) MUST_CHECK;
void loop_fini(struct loop *l);

/* Runs until l->stop. */
void loop_run(struct loop *l);

/* Watches w->fd; `events` e.g. EPOLLIN for a listener (level-triggered), or 0 for
 * all edges. -1 with errno. */
int loop_watch(struct loop *l, struct watch *w, int fd, uint32_t events,
               void (*on_event)(struct watch *w, uint32_t events)) MUST_CHECK;

/* Closes the descriptor; no event comes after. Twice is fine. */
void loop_unwatch(struct watch *w);

/* Calls on_event(w, events) once more, in the next round. */
void loop_again(struct loop *l, struct watch *w, uint32_t events);

void loop_bury(struct loop *l, struct grave *g, void (*release)(struct grave *g));
