/* gateway/timers - see timers.h. */
#include "gateway/timers.h"

void timers_init(struct timers *t, uint64_t now_ns)
{
    for (size_t i = 0; i < WHEEL_SLOTS; i++)
        list_init(&t->slots[i]);
    for (size_t i = 0; i < WHEEL_SLOTS / 64; i++)
        t->busy[i] = 0;
    t->tick = now_ns / WHEEL_TICK_NS;
}

void timer_init(struct timer *timer, void (*on_expire)(struct timer *t))
{
    list_init(&timer->link);
    timer->deadline_ns = 0;
    timer->on_expire = on_expire;
}

void timer_set(struct timers *t, struct timer *timer, uint64_t deadline_ns)
{
    uint64_t tick = deadline_ns / WHEEL_TICK_NS + 1; /* rounded up: never early */
    size_t slot = (tick < t->tick ? t->tick : tick) % WHEEL_SLOTS;

    list_remove(&timer->link);
    timer->deadline_ns = deadline_ns;
    list_append(&t->slots[slot], &timer->link);
    t->busy[slot / 64] |= UINT64_C(1) << (slot % 64);
}

void timer_clear(struct timer *timer)
{
    list_remove(&timer->link);
}

static void run_slot(struct timers *t, size_t slot, uint64_t now_ns)
{
    struct list due;

    if (!(t->busy[slot / 64] & UINT64_C(1) << (slot % 64)))
        return;
    t->busy[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    if (list_empty(&t->slots[slot]))
        return;

    /* The slot's timers move to a list of their own first, because a callback
     * may set a timer that falls into this very slot, or clear any of them. */
    due = t->slots[slot];
    due.next->prev = &due;
    due.prev->next = &due;
    list_init(&t->slots[slot]);
    while (!list_empty(&due)) {
        struct timer *timer = CONTAINER_OF(due.next, struct timer, link);
        list_remove(&timer->link);
        if (timer->deadline_ns <= now_ns) {
            timer->on_expire(timer);
        } else {
            list_append(&t->slots[slot], &timer->link); /* a later turn */
            t->busy[slot / 64] |= UINT64_C(1) << (slot % 64);
        }
    }
}

void timers_run(struct timers *t, uint64_t now_ns)
{
    uint64_t now = now_ns / WHEEL_TICK_NS;

    if (now >= t->tick + WHEEL_SLOTS) /* paused for more than a turn: each slot once */
        t->tick = now - WHEEL_SLOTS + 1;
    while (t->tick <= now) {
        size_t slot = t->tick % WHEEL_SLOTS;
        t->tick++;
        run_slot(t, slot, now_ns);
    }
}

int timers_wait_ms(const struct timers *t, uint64_t now_ns)
{
    for (size_t i = 0; i < WHEEL_SLOTS; i++) {
        size_t slot = (t->tick + i) % WHEEL_SLOTS;
        if (slot % 64 == 0 && t->busy[slot / 64] == 0) {
            i += 63;
            continue;
        }
        if (!(t->busy[slot / 64] & UINT64_C(1) << (slot % 64)) || list_empty(&t->slots[slot]))
            continue;
        uint64_t at = (t->tick + i) * WHEEL_TICK_NS;
        return at <= now_ns ? 0 : (int)((at - now_ns + 999999) / 1000000);
    }
    return -1;
}
