/*
 * The timer wheel against a plain model: an array of timers, each with the time
 * at which it must have fired at the latest.
 */
#include "gateway/timers.h"

#include "base/always.h"
#include "test.h"

enum { TIMERS = 48, STEPS = 20000 };

#define MS UINT64_C(1000000)
#define TURN_NS (WHEEL_SLOTS * WHEEL_TICK_NS)

static uint64_t rng;

static uint64_t dice(void)
{
    /* xorshift64* (Vigna 2014) */
    rng ^= rng >> 12;
    rng ^= rng << 25;
    rng ^= rng >> 27;
    return rng * UINT64_C(2685821657736338717);
}

/* --- the model ------------------------------------------------------------------ */

static struct timers wheel;
static uint64_t now_ns; /* of the run that goes on, or was last */
static struct entry {
    struct timer timer;
    bool set;
    uint64_t latest_ns; /* fires at the first run from here on */
    unsigned fired;     /* in this run */
} entries[TIMERS];
static unsigned fired;
static bool callbacks_act;

static void check_set(void)
{
    for (int i = 0; i < TIMERS; i++)
        assert_int_equal(timer_is_set(&entries[i].timer), entries[i].set);
}

static void model_set(struct entry *e, uint64_t deadline_ns)
{
    uint64_t tick = deadline_ns / WHEEL_TICK_NS + 1, next = now_ns / WHEEL_TICK_NS + 1;

    timer_set(&wheel, &e->timer, deadline_ns);
    e->set = true;
    /* The tick behind the deadline; for a deadline that is over, the next one. */
    e->latest_ns = (tick > next ? tick : next) * WHEEL_TICK_NS;
}

static void model_clear(struct entry *e)
{
    timer_clear(&e->timer);
    e->set = false;
}

/* From long ago to further away than the wheel turns. */
static uint64_t some_deadline(void)
{
    switch (dice() % 8) {
    case 0:
        return now_ns - dice() % (now_ns < TURN_NS ? now_ns : TURN_NS);
    case 1:
        return now_ns;
    case 2:
        return now_ns / WHEEL_TICK_NS * WHEEL_TICK_NS + dice() % 4 * WHEEL_TICK_NS;
    case 3:
        return now_ns + dice() % (3 * TURN_NS);
    case 4:
        return now_ns + TURN_NS - WHEEL_TICK_NS + dice() % (2 * WHEEL_TICK_NS);
    default:
        return now_ns + dice() % (500 * MS);
    }
}

static void act(void)
{
    struct entry *e = &entries[dice() % TIMERS];

    if (dice() % 3)
        model_set(e, some_deadline());
    else
        model_clear(e);
}

static void on_expire(struct timer *t)
{
    struct entry *e = CONTAINER_OF(t, struct entry, timer);

    assert_true(e->set);
    assert_false(timer_is_set(t));
    assert_true(t->deadline_ns <= now_ns); /* never early */
    e->set = false;
    e->fired++;
    fired++;
    if (!callbacks_act)
        return;
    for (uint64_t n = dice() % 4; n; n--)
        act();
    if (dice() % 4 == 0) /* itself */
        model_set(e, some_deadline());
    check_set();
}

static void start(uint64_t seed, bool act_in_callbacks)
{
    rng = seed;
    now_ns = dice() % (UINT64_C(1) << 50);
    callbacks_act = act_in_callbacks;
    fired = 0;
    timers_init(&wheel, now_ns);
    for (int i = 0; i < TIMERS; i++) {
        timer_init(&entries[i].timer, on_expire);
        entries[i].set = false;
    }
}

static void run(uint64_t at_ns)
{
    uint64_t earliest = UINT64_MAX;

    assert_true(at_ns >= now_ns);
    now_ns = at_ns;
    for (int i = 0; i < TIMERS; i++)
        entries[i].fired = 0;
    timers_run(&wheel, now_ns);
    check_set();
    for (int i = 0; i < TIMERS; i++) {
        const struct entry *e = &entries[i];
        if (!callbacks_act)
            assert_true(e->fired <= 1);
        if (!e->set)
            continue;
        assert_true(e->latest_ns / WHEEL_TICK_NS > now_ns / WHEEL_TICK_NS); /* not overlooked */
        if (e->latest_ns < earliest)
            earliest = e->latest_ns;
    }
    /* What the loop sleeps: until the first of them at the longest, never for nothing. */
    int wait = timers_wait_ms(&wheel, now_ns);
    if (earliest == UINT64_MAX) {
        assert_int_equal(wait, -1);
        return;
    }
    assert_true(wait > 0);
    assert_true(((uint64_t)wait - 1) * MS < earliest - now_ns);
}

static uint64_t some_pause(void)
{
    switch (dice() % 16) {
    case 0:
        return dice() % (4 * TURN_NS); /* the process was stopped */
    case 1:
        return TURN_NS - WHEEL_TICK_NS + dice() % (2 * WHEEL_TICK_NS);
    case 2:
        return 0;
    case 3:
        return WHEEL_TICK_NS - now_ns % WHEEL_TICK_NS; /* exactly to a tick */
    case 4:
        return dice() % (2000 * MS);
    default:
        return dice() % (40 * MS);
    }
}

/* --- tests -------------------------------------------------------------------------- */

static void against_the_model(void **state)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        start(seed, seed % 2);
        for (int i = 0; i < STEPS; i++) {
            for (uint64_t n = dice() % 6; n; n--)
                act();
            check_set();
            run(now_ns + some_pause());
        }
        assert_true(fired > STEPS); /* so that the test has tested */
    }
}

/* A loop that sleeps as it is told: one tick and one millisecond late at most. */
static void as_the_loop_does(void **state)
{
    start(99, false);
    for (int i = 0; i < STEPS; i++) {
        if (dice() % 2)
            act();
        int wait = timers_wait_ms(&wheel, now_ns);
        uint64_t late_ns = 0, at_ns = now_ns + (wait < 0 ? 5 : (uint64_t)wait) * MS;
        for (int k = 0; k < TIMERS; k++)
            if (entries[k].set && at_ns > entries[k].latest_ns &&
                at_ns - entries[k].latest_ns > late_ns)
                late_ns = at_ns - entries[k].latest_ns;
        assert_true(late_ns < MS);
        run(at_ns);
    }
    assert_true(fired > STEPS / 10);
}

/* After a pause of whatever length each due timer fires once, in that very run. */
static void long_pauses(void **state)
{
    for (uint64_t pause = WHEEL_TICK_NS; pause < UINT64_C(1) << 52; pause = pause * 3 + 12345) {
        start(pause, false);
        for (int i = 0; i < TIMERS; i++)
            model_set(&entries[i], now_ns + dice() % pause);
        run(now_ns + pause + WHEEL_TICK_NS);
        assert_int_equal(fired, TIMERS);
        run(now_ns + pause);
        assert_int_equal(fired, TIMERS);
        assert_int_equal(timers_wait_ms(&wheel, now_ns), -1);
    }
}

/* A timer that sets itself to the past again and again does not hold the run. */
static struct timer greedy;
static unsigned greedy_fired;

static void on_greedy(struct timer *t)
{
    greedy_fired++;
    timer_set(&wheel, t, 0);
}

static void greedy_timer(void **state)
{
    timers_init(&wheel, 100 * TURN_NS);
    timer_init(&greedy, on_greedy);
    timer_set(&wheel, &greedy, 0);
    greedy_fired = 0;
    for (unsigned i = 0; i <= 10; i++) {
        timers_run(&wheel, 100 * TURN_NS + i * WHEEL_TICK_NS);
        assert_int_equal(greedy_fired, i + 1);
    }
    timers_run(&wheel, 103 * TURN_NS); /* a pause: as often as there are slots, then it ends */
    assert_true(greedy_fired <= 11 + WHEEL_SLOTS);
    assert_true(timer_is_set(&greedy));
}

/* Two timers of one slot that clear, or move, each other: one of them fires. */
static struct timer twins[2];
static unsigned twins_fired;
static uint64_t twin_moves_to;

static void on_twin(struct timer *t)
{
    struct timer *other = t == &twins[0] ? &twins[1] : &twins[0];

    twins_fired++;
    if (twin_moves_to)
        timer_set(&wheel, other, twin_moves_to);
    else
        timer_clear(other);
}

static void twins_clear_each_other(void **state)
{
    for (int moves = 0; moves < 2; moves++) {
        timers_init(&wheel, TURN_NS);
        twins_fired = 0;
        twin_moves_to = moves ? TURN_NS + 3 * TURN_NS : 0;
        for (int i = 0; i < 2; i++) {
            timer_init(&twins[i], on_twin);
            timer_set(&wheel, &twins[i], TURN_NS + 5 * WHEEL_TICK_NS + 7);
        }
        timers_run(&wheel, TURN_NS + 5 * WHEEL_TICK_NS + 8); /* due, but its tick is not over */
        assert_int_equal(twins_fired, 0);
        timers_run(&wheel, TURN_NS + 6 * WHEEL_TICK_NS);
        assert_int_equal(twins_fired, 1);
        assert_int_equal(timer_is_set(&twins[0]) + timer_is_set(&twins[1]), moves);
        timers_run(&wheel, TURN_NS + 3 * TURN_NS - 1);
        assert_int_equal(twins_fired, 1);
        timers_run(&wheel, TURN_NS + 3 * TURN_NS + WHEEL_TICK_NS);
        assert_int_equal(twins_fired, 1 + moves);
    }
}

/* Set and cleared without a run between: no trace of it. */
static void cleared(void **state)
{
    start(7, false);
    for (int i = 0; i < TIMERS; i++) {
        model_set(&entries[i], now_ns + 100 * MS);
        model_set(&entries[i], now_ns + 200 * MS);
        model_clear(&entries[i]);
        model_clear(&entries[i]);
    }
    assert_int_equal(timers_wait_ms(&wheel, now_ns), -1);
    run(now_ns + TURN_NS);
    assert_int_equal(fired, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_the_model),
        cmocka_unit_test(as_the_loop_does),
        cmocka_unit_test(long_pauses),
        cmocka_unit_test(greedy_timer),
        cmocka_unit_test(twins_clear_each_other),
        cmocka_unit_test(cleared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
