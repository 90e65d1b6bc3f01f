/*
 * gateway/timers - deadlines that nearly always are cleared before they fire.
 *
 * A wheel of WHEEL_SLOTS slots of WHEEL_TICK_NS each.  A deadline further away
 * than one turn waits in its slot and is looked at once a turn.  Setting and
 * clearing are constant time; a deadline fires up to one tick late, never
 * early.  After a long pause (a stopped process) each due timer fires once.
 */
#pragma once
#include <stdint.h>

#include "base/list.h"

enum { WHEEL_SLOTS = 1024 };
#define WHEEL_TICK_NS UINT64_C(16000000)

struct timer {
    struct list link; /* in its slot's list, or in none */
    uint64_t deadline_ns;
    void (*on_expire)(struct timer *t);
};

struct timers {
    struct list slots[WHEEL_SLOTS];
    uint64_t busy[WHEEL_SLOTS / 64]; /* a bit for each slot that may hold timers */
    uint64_t tick;                   /* all slots before it have been looked at */
};

void timers_init(struct timers *t, uint64_t now_ns);

void timer_init(struct timer *timer, void (*on_expire)(struct timer *t));

/* Sets or moves the deadline. */
void timer_set(struct timers *t, struct timer *timer, uint64_t deadline_ns);
void timer_clear(struct timer *timer);

static inline bool timer_is_set(const struct timer *timer)
{
    return !list_empty(&timer->link);
}

/* Fires what is due. A callback may set and clear any timer. */
void timers_run(struct timers *t, uint64_t now_ns);

/* Milliseconds until something may be due, or -1 when no timer is set. */
int timers_wait_ms(struct timers *t, uint64_t now_ns);
