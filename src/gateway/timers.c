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

/* The first busy slot at or after `from` in the wheel's order, or -1. A slot whose timers
 * were all cleared is found out here and forgotten. */
static int next_busy(struct timers *t, size_t from)
{
    for (size_t seen = 0; seen < WHEEL_SLOTS;) {
        size_t slot = (from + seen) % WHEEL_SLOTS;
        uint64_t word = t->busy[slot / 64] >> (slot % 64);
        if (word == 0) {
            seen += 64 - slot % 64;
            continue;
        }
        unsigned skip = (unsigned)__builtin_ctzll(word);
        slot += skip;
        seen += skip;
        if (seen >= WHEEL_SLOTS)
            break;
        if (!list_empty(&t->slots[slot]))
            return (int)slot;
        t->busy[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
    }
    return -1;
}

int timers_wait_ms(struct timers *t, uint64_t now_ns)
{
    size_t from = t->tick % WHEEL_SLOTS;
    int slot = next_busy(t, from);

    if (slot < 0)
        return -1;
    uint64_t at = (t->tick + ((size_t)slot + WHEEL_SLOTS - from) % WHEEL_SLOTS) * WHEEL_TICK_NS;
    return at <= now_ns ? 0 : (int)((at - now_ns + 999999) / 1000000);
}
