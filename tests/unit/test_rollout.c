/*
 * The update's state machine: every state with every event, whole lives with a
 * fake owner, a store that fails, and recovery.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "rollout/rollout.h"

/* --- the table ---------------------------------------------------------------------------- */

/* What must follow; pairs that are not named mean nothing. */
static const struct {
    enum rollout_state state;
    enum rollout_event event;
    enum rollout_state next;
} moves[] = {
    {ROLLOUT_CHECKING, ROLLOUT_ON_CHECKED, ROLLOUT_STARTING},
    {ROLLOUT_CHECKING, ROLLOUT_ON_REFUSED, ROLLOUT_FAILED},
    {ROLLOUT_STARTING, ROLLOUT_ON_HEALTHY, ROLLOUT_WARMING},
    {ROLLOUT_STARTING, ROLLOUT_ON_DIED, ROLLOUT_FAILED},
    {ROLLOUT_WARMING, ROLLOUT_ON_READY, ROLLOUT_SWITCHING},
    {ROLLOUT_WARMING, ROLLOUT_ON_DIED, ROLLOUT_FAILED},
    {ROLLOUT_SWITCHING, ROLLOUT_ON_ACKED, ROLLOUT_DRAINING},
    {ROLLOUT_SWITCHING, ROLLOUT_ON_DIED, ROLLOUT_ROLLING_BACK},
    {ROLLOUT_DRAINING, ROLLOUT_ON_DRAINED, ROLLOUT_SETTLING},
    {ROLLOUT_DRAINING, ROLLOUT_ON_DIED, ROLLOUT_ROLLING_BACK},
    {ROLLOUT_DRAINING, ROLLOUT_ON_SPOILED, ROLLOUT_ROLLING_BACK},
    {ROLLOUT_DRAINING, ROLLOUT_ON_REPLACED, ROLLOUT_DONE},
    {ROLLOUT_DRAINING, ROLLOUT_ON_TAKEN_BACK, ROLLOUT_ROLLED_BACK},
    {ROLLOUT_SETTLING, ROLLOUT_ON_SETTLED, ROLLOUT_DONE},
    {ROLLOUT_SETTLING, ROLLOUT_ON_DIED, ROLLOUT_ROLLING_BACK},
    {ROLLOUT_SETTLING, ROLLOUT_ON_SPOILED, ROLLOUT_ROLLING_BACK},
    {ROLLOUT_SETTLING, ROLLOUT_ON_REPLACED, ROLLOUT_DONE},
    {ROLLOUT_SETTLING, ROLLOUT_ON_TAKEN_BACK, ROLLOUT_ROLLED_BACK},
    {ROLLOUT_ROLLING_BACK, ROLLOUT_ON_ACKED, ROLLOUT_ROLLED_BACK},
};

static enum rollout_state expected(enum rollout_state state, enum rollout_event event)
{
    for (size_t i = 0; i < COUNT_OF(moves); i++)
        if (moves[i].state == state && moves[i].event == event)
            return moves[i].next;
    return state;
}

static void every_state_with_every_event(void **unused)
{
    for (int s = 0; s < ROLLOUT_NSTATES; s++)
        for (int e = 0; e < ROLLOUT_NEVENTS; e++) {
            enum rollout_state next = rollout_next(s, e);

            assert_string_equal(rollout_state_name(next), rollout_state_name(expected(s, e)));
            assert_true(next == (enum rollout_state)s || rollout_may_move(s, next));
        }
}

static void ends_are_ends(void **unused)
{
    for (int s = 0; s < ROLLOUT_NSTATES; s++)
        for (int to = 0; to < ROLLOUT_NSTATES; to++)
            if (rollout_state_ended(s))
                assert_false(rollout_may_move(s, to));
}

static void names_are_read_back(void **unused)
{
    for (int s = 0; s < ROLLOUT_NSTATES; s++)
        assert_int_equal(rollout_state_by_name(rollout_state_name(s)), s);
    assert_int_equal(rollout_state_by_name("flying"), -1);
    assert_int_equal(rollout_kind_by_name("switch"), ROLLOUT_SWITCH);
    assert_int_equal(rollout_kind_by_name("rolback"), -1);
}

/* --- a fake owner ------------------------------------------------------------------------- */

struct owner {
    struct buf story; /* "record:starting start ..." */
    uint64_t now;
    uint64_t epoch;
    const char *fails; /* the word of the story that must not succeed; NULL: none */
    struct receipt_reading reading;
};

static int tell(struct owner *o, struct err *err, const char *word, const char *what)
{
    char text[96];

    snprintf(text, sizeof(text), "%s%s", word, what);
    buf_addf(&o->story, "%s%s", buf_pending(&o->story) ? " " : "", text);
    if (o->fails && strcmp(o->fails, text) == 0)
        return err_set(err, 500, "no luck with %s", text);
    return 0;
}

static int on_record(struct rollout *r, enum rollout_state next, const char *reason, void *arg,
                     struct err *err)
{
    if (!rollout_id(r))
        rollout_set_id(r, 7);
    return tell(arg, err, "record:", rollout_state_name(next));
}

static int on_check(struct rollout *r, void *arg, struct err *err)
{
    return tell(arg, err, "check", "");
}

static int on_start(struct rollout *r, void *arg, struct err *err)
{
    return tell(arg, err, "start:", rollout_to(r));
}

static void on_route(struct rollout *r, const char *version, uint64_t *epoch, void *arg)
{
    struct owner *o = arg;

    *epoch = ++o->epoch;
    tell(o, NULL, "route:", version);
}

static void on_read(const struct rollout *r, struct receipt_reading *out, void *arg)
{
    *out = ((struct owner *)arg)->reading;
}

static uint64_t on_now(void *arg)
{
    return ((struct owner *)arg)->now += 1000000;
}

static void on_moved(struct rollout *r, void *arg)
{
}

static const struct rollout_ops ops = {on_record, on_check, on_start, on_route,
                                       on_read,   on_now,   on_moved};

static struct rollout *make(struct owner *o, enum rollout_kind kind)
{
    struct rollout_want want = {
        .kind = kind,
        .model = "hy-mt",
        .from = "v1",
        .to = "v2",
        .asked_ns = o->now,
        .limits = {.drain_ns = 1000000000,
                   .settle_requests = 50,
                   .settle_ns = 3000000000,
                   .settle_failures = 0.05},
    };

    return rollout_new(&want, &ops, o);
}

static struct rollout_facts facts_of(struct owner *o, unsigned healthy, unsigned ready,
                                     unsigned dead)
{
    return (struct rollout_facts){.wanted = 2,
                                  .healthy = healthy,
                                  .ready = ready,
                                  .dead = dead,
                                  .dead_reason = dead ? "exit 1: no memory" : "",
                                  .old_ready = true,
                                  .reading = o->reading};
}

static void look(struct rollout *r, struct owner *o, unsigned healthy, unsigned ready,
                 unsigned dead)
{
    struct rollout_facts f = facts_of(o, healthy, ready, dead);

    rollout_look(r, &f);
}

static void end(struct rollout *r, struct owner *o, enum rollout_state state, const char *story)
{
    assert_string_equal(rollout_state_name(rollout_state(r)), rollout_state_name(state));
    assert_string_equal(buf_cstr(&o->story), story);
    rollout_free(r);
    buf_fini(&o->story);
}

#define TO_SWITCHING \
    "record:checking check record:starting start:v2 record:warming record:switching route:v2"

/* A deploy that waits for its acknowledgement. */
static struct rollout *switching(struct owner *o)
{
    struct rollout *r = make(o, ROLLOUT_DEPLOY);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_CHECKING, &err), 0);
    rollout_checked(r, NULL);
    look(r, o, 1, 0, 0);
    assert_int_equal(rollout_state(r), ROLLOUT_STARTING);
    look(r, o, 2, 1, 0);
    assert_int_equal(rollout_state(r), ROLLOUT_WARMING);
    look(r, o, 2, 2, 0);
    assert_int_equal(rollout_state(r), ROLLOUT_SWITCHING);
    return r;
}

static struct rollout *draining(struct owner *o)
{
    struct rollout *r = switching(o);

    o->reading.from.in_flight = 3;
    rollout_acked(r, o->epoch, o->now);
    assert_int_equal(rollout_state(r), ROLLOUT_DRAINING);
    return r;
}

static void a_deploy_is_done(void **unused)
{
    struct owner o = {0};
    struct rollout *r = draining(&o);

    look(r, &o, 2, 2, 0);
    assert_int_equal(rollout_state(r), ROLLOUT_DRAINING);
    o.reading.from.in_flight = 0;
    look(r, &o, 2, 2, 0);
    assert_int_equal(rollout_state(r), ROLLOUT_SETTLING);
    o.reading.to.finished = 50;
    look(r, &o, 2, 2, 0);

    const struct receipt *receipt = rollout_receipt(r);
    assert_string_equal(receipt->result, "done");
    assert_string_equal(receipt->phases[0].name, "checking");
    assert_string_equal(receipt->phases[5].name, "settling");
    end(r, &o, ROLLOUT_DONE, TO_SWITCHING " record:draining record:settling record:done");
}

static void all_ready_at_once_goes_on_to_the_switch(void **unused)
{
    struct owner o = {0};
    struct rollout *r = make(&o, ROLLOUT_DEPLOY);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_STARTING, &err), 0);
    look(r, &o, 2, 2, 0);
    end(r, &o, ROLLOUT_SWITCHING,
        "record:starting start:v2 record:warming record:switching route:v2");
}

static void a_switch_counts_from_its_request(void **unused)
{
    struct owner o = {.now = 5000};
    struct rollout *r = make(&o, ROLLOUT_SWITCH);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_SWITCHING, &err), 0);
    rollout_acked(r, 1, 5000 + 412000);
    assert_int_equal(receipt_switch_us(rollout_receipt(r)), 412);
    end(r, &o, ROLLOUT_DRAINING, "record:switching route:v2 record:draining");
}

static void an_older_acknowledgement_means_nothing(void **unused)
{
    struct owner o = {.epoch = 10};
    struct rollout *r = switching(&o);

    rollout_acked(r, 10, o.now);
    assert_int_equal(rollout_state(r), ROLLOUT_SWITCHING);
    rollout_acked(r, 12, o.now); /* a later table has the same promise */
    end(r, &o, ROLLOUT_DRAINING, TO_SWITCHING " record:draining");
}

static void a_bad_file_fails(void **unused)
{
    struct owner o = {0};
    struct rollout *r = make(&o, ROLLOUT_DEPLOY);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_CHECKING, &err), 0);
    rollout_checked(r, "another file");
    assert_string_equal(rollout_reason(r), "another file");
    end(r, &o, ROLLOUT_FAILED, "record:checking check record:failed");
}

static void a_dead_engine_fails_with_its_last_words(void **unused)
{
    struct owner o = {0};
    struct rollout *r = make(&o, ROLLOUT_DEPLOY);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_STARTING, &err), 0);
    look(r, &o, 1, 0, 1);
    assert_string_equal(rollout_reason(r), "exit 1: no memory");
    end(r, &o, ROLLOUT_FAILED, "record:starting start:v2 record:failed");
}

static void an_engine_that_cannot_be_started_fails(void **unused)
{
    struct owner o = {.fails = "start:v2"};
    struct rollout *r = make(&o, ROLLOUT_DEPLOY);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_STARTING, &err), 0);
    assert_string_equal(rollout_reason(r), "no luck with start:v2");
    end(r, &o, ROLLOUT_FAILED, "record:starting start:v2 record:failed");
}

static void nothing_is_begun_that_cannot_be_recorded(void **unused)
{
    struct owner o = {.fails = "record:switching"};
    struct rollout *r = make(&o, ROLLOUT_SWITCH);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_SWITCHING, &err), -1);
    assert_string_equal(err.text, "no luck with record:switching");
    end(r, &o, ROLLOUT_NEW, "record:switching");
}

static void a_store_that_fails_before_the_switch_ends_it(void **unused)
{
    struct owner o = {.fails = "record:warming"};
    struct rollout *r = make(&o, ROLLOUT_DEPLOY);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_STARTING, &err), 0);
    look(r, &o, 2, 2, 0);
    end(r, &o, ROLLOUT_FAILED, "record:starting start:v2 record:warming record:failed");
}

static void a_route_that_cannot_be_stored_ends_it(void **unused)
{
    struct owner o = {.fails = "record:switching"};
    struct rollout *r = make(&o, ROLLOUT_DEPLOY);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_STARTING, &err), 0);
    look(r, &o, 2, 2, 0);
    assert_string_equal(rollout_reason(r), "no luck with record:switching");
    end(r, &o, ROLLOUT_FAILED,
        "record:starting start:v2 record:warming record:switching record:failed");
}

static void an_old_route_that_cannot_be_stored_is_published(void **unused)
{
    struct owner o = {.fails = "record:rolling back"};
    struct rollout *r = draining(&o);

    look(r, &o, 0, 0, 2);
    end(r, &o, ROLLOUT_ROLLING_BACK, TO_SWITCHING " record:draining record:rolling back route:v1");
}

static void a_store_that_fails_after_the_switch_stops_nothing(void **unused)
{
    struct owner o = {.fails = "record:draining"};
    struct rollout *r = switching(&o);

    rollout_acked(r, o.epoch, o.now);
    end(r, &o, ROLLOUT_DRAINING, TO_SWITCHING " record:draining");
}

static void draining_has_a_limit(void **unused)
{
    struct owner o = {0};
    struct rollout *r = draining(&o);

    o.now += 1000000000;
    look(r, &o, 2, 2, 0);
    end(r, &o, ROLLOUT_SETTLING, TO_SWITCHING " record:draining record:settling");
}

static void settling_has_a_limit(void **unused)
{
    struct owner o = {0};
    struct rollout *r = draining(&o);

    o.reading.from.in_flight = 0;
    look(r, &o, 2, 2, 0);
    o.now += 3000000000;
    look(r, &o, 2, 2, 0);
    end(r, &o, ROLLOUT_DONE, TO_SWITCHING " record:draining record:settling record:done");
}

static void failed_answers_roll_it_back(void **unused)
{
    struct owner o = {0};
    struct rollout *r = draining(&o);

    o.reading.to.finished = 17;
    o.reading.to.failed = 2;
    look(r, &o, 2, 2, 0); /* 19 answers prove nothing */
    assert_int_equal(rollout_state(r), ROLLOUT_DRAINING);
    o.reading.to.finished = 18;
    look(r, &o, 2, 2, 0);
    assert_int_equal(rollout_state(r), ROLLOUT_ROLLING_BACK);
    assert_non_null(strstr(rollout_reason(r), "2 of 20 answers of v2 failed"));
    o.reading.from.started = 1000; /* those after the way back do not count */
    rollout_acked(r, o.epoch, o.now);

    json_t *json = receipt_json(rollout_receipt(r));
    assert_int_equal(json_integer_value(json_object_get(json, "started_on_old_after_switch")), 0);
    assert_string_equal(json_string_value(json_object_get(json, "result")), "rolled back");
    json_decref(json);
    end(r, &o, ROLLOUT_ROLLED_BACK,
        TO_SWITCHING " record:draining record:rolling back route:v1 record:rolled back");
}

static void failures_before_the_switch_do_not_count(void **unused)
{
    struct owner o = {.reading.to.failed = 100};
    struct rollout *r = draining(&o);

    o.reading.to.finished = 20;
    look(r, &o, 2, 2, 0);
    end(r, &o, ROLLOUT_DRAINING, TO_SWITCHING " record:draining");
}

static void dead_replicas_roll_it_back(void **unused)
{
    struct owner o = {0};
    struct rollout *r = draining(&o);

    look(r, &o, 1, 1, 1); /* one of two still answers */
    assert_int_equal(rollout_state(r), ROLLOUT_DRAINING);
    look(r, &o, 0, 0, 2);
    end(r, &o, ROLLOUT_ROLLING_BACK, TO_SWITCHING " record:draining record:rolling back route:v1");
}

static void nobody_goes_back_to_a_dead_version(void **unused)
{
    struct owner o = {0};
    struct rollout *r = draining(&o);
    struct rollout_facts f = facts_of(&o, 0, 0, 2);

    f.old_ready = false;
    rollout_look(r, &f);
    end(r, &o, ROLLOUT_DRAINING, TO_SWITCHING " record:draining");
}

static void a_target_that_dies_in_the_switch_is_left(void **unused)
{
    struct owner o = {0};
    struct rollout *r = switching(&o);
    uint64_t first = o.epoch;

    look(r, &o, 0, 0, 2);
    assert_int_equal(rollout_state(r), ROLLOUT_ROLLING_BACK);
    rollout_acked(r, first, o.now); /* the switch's own, late */
    assert_int_equal(rollout_state(r), ROLLOUT_ROLLING_BACK);
    rollout_acked(r, o.epoch, o.now);
    end(r, &o, ROLLOUT_ROLLED_BACK,
        TO_SWITCHING " record:rolling back route:v1 record:rolled back");
}

static void a_rollback_is_not_taken_back(void **unused)
{
    struct owner o = {0};
    struct rollout *r = make(&o, ROLLOUT_ROLLBACK);
    struct err err;

    assert_int_equal(rollout_begin(r, ROLLOUT_SWITCHING, &err), 0);
    o.reading.from.in_flight = 1;
    rollout_acked(r, 1, o.now);
    o.reading.to.failed = 100;
    look(r, &o, 0, 0, 2);
    end(r, &o, ROLLOUT_DRAINING, "record:switching route:v2 record:draining");
}

static void a_newer_update_may_take_over_after_the_switch_only(void **unused)
{
    struct owner o = {0};
    struct rollout *r = switching(&o);

    assert_false(rollout_replace(r, false, "no"));
    rollout_acked(r, o.epoch, o.now);
    assert_true(rollout_replace(r, true, "v1 was asked for"));
    assert_string_equal(rollout_receipt(r)->reason, "v1 was asked for");
    end(r, &o, ROLLOUT_ROLLED_BACK, TO_SWITCHING " record:draining record:rolled back");
}

static void a_new_manager_goes_on_with_draining(void **unused)
{
    struct owner o = {.reading.from.in_flight = 0};
    struct rollout *r = make(&o, ROLLOUT_DEPLOY);

    rollout_resume(r, 12, ROLLOUT_DRAINING, 30, 412);
    look(r, &o, 2, 2, 0);
    assert_int_equal(rollout_state(r), ROLLOUT_DRAINING); /* the table is not out yet */
    rollout_acked(r, 30, o.now);
    o.reading.to.finished = 50;
    look(r, &o, 2, 2, 0);
    assert_true(rollout_receipt(r)->recovered);
    assert_int_equal(receipt_switch_us(rollout_receipt(r)), 412);
    end(r, &o, ROLLOUT_DONE, "record:settling record:done");
}

static void a_new_manager_ends_rolling_back(void **unused)
{
    struct owner o = {0};
    struct rollout *r = make(&o, ROLLOUT_DEPLOY);

    rollout_resume(r, 12, ROLLOUT_ROLLING_BACK, 30, 0);
    rollout_acked(r, 30, o.now);
    end(r, &o, ROLLOUT_ROLLED_BACK, "record:rolled back");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_with_every_event),
        cmocka_unit_test(ends_are_ends),
        cmocka_unit_test(names_are_read_back),
        cmocka_unit_test(a_deploy_is_done),
        cmocka_unit_test(all_ready_at_once_goes_on_to_the_switch),
        cmocka_unit_test(a_switch_counts_from_its_request),
        cmocka_unit_test(an_older_acknowledgement_means_nothing),
        cmocka_unit_test(a_bad_file_fails),
        cmocka_unit_test(a_dead_engine_fails_with_its_last_words),
        cmocka_unit_test(an_engine_that_cannot_be_started_fails),
        cmocka_unit_test(nothing_is_begun_that_cannot_be_recorded),
        cmocka_unit_test(a_store_that_fails_before_the_switch_ends_it),
        cmocka_unit_test(a_route_that_cannot_be_stored_ends_it),
        cmocka_unit_test(an_old_route_that_cannot_be_stored_is_published),
        cmocka_unit_test(a_store_that_fails_after_the_switch_stops_nothing),
        cmocka_unit_test(draining_has_a_limit),
        cmocka_unit_test(settling_has_a_limit),
        cmocka_unit_test(failed_answers_roll_it_back),
        cmocka_unit_test(failures_before_the_switch_do_not_count),
        cmocka_unit_test(dead_replicas_roll_it_back),
        cmocka_unit_test(nobody_goes_back_to_a_dead_version),
        cmocka_unit_test(a_target_that_dies_in_the_switch_is_left),
        cmocka_unit_test(a_rollback_is_not_taken_back),
        cmocka_unit_test(a_newer_update_may_take_over_after_the_switch_only),
        cmocka_unit_test(a_new_manager_goes_on_with_draining),
        cmocka_unit_test(a_new_manager_ends_rolling_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
