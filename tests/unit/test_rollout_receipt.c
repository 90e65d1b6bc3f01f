/* The receipt's arithmetic, and by what a file is known again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rollout/fingerprint.h"
#include "rollout/receipt.h"

static struct receipt plain(void)
{
    struct receipt r = {
        .rollout = 4,
        .model = "hy-mt",
        .kind = "deploy",
        .from = "v1",
        .to = "v2",
        .result = "done",
        .reason = "",
        .phases = {{"starting", 812000000}, {"warming", 95999999}},
        .switched = true,
        .switch_began_ns = 1000000,
        .acked_ns = 1412999,
        .epoch = 7,
        .workers = 2,
    };

    /* 5 were running; 100 more came; 2 were moved; 3 run still. */
    r.begin.model = (struct tally){.started = 50, .finished = 45, .in_flight = 5};
    r.end.model = (struct tally){.started = 140,
                                 .pinned = 10,
                                 .finished = 140,
                                 .failed = 1,
                                 .truncated = 1,
                                 .cancelled = 3,
                                 .retried = 2,
                                 .in_flight = 3};
    r.ack.from = (struct tally){.started = 90, .in_flight = 17, .last_start_ns = 1231000};
    r.until.from = r.ack.from;
    r.until.from.in_flight = 0;
    r.until.from.pinned = 4;
    r.begin.held = 3;
    r.end.held = 5;
    return r;
}

static int64_t member(const struct receipt *r, const char *name)
{
    json_t *json = receipt_json(r);
    json_t *value = json_object_get(json, name);
    assert_true(json_is_integer(value));
    int64_t n = json_integer_value(value);

    json_decref(json);
    return n;
}

static void counts_add_up(void **unused)
{
    struct receipt r = plain();

    assert_int_equal(member(&r, "requests"), 5 + 90 + 10 - 2);
    assert_int_equal(member(&r, "requests"), member(&r, "finished") + member(&r, "failed") +
                                                 member(&r, "truncated") + member(&r, "cancelled") +
                                                 member(&r, "in_flight_at_end"));
    assert_int_equal(member(&r, "held"), 2);
    assert_int_equal(member(&r, "retried"), 2);
}

static void the_switch_is_a_point_in_time(void **unused)
{
    struct receipt r = plain();

    assert_int_equal(member(&r, "switch_us"), 412);
    assert_int_equal(member(&r, "last_start_on_old_before_ack_us"), 181);
    assert_int_equal(member(&r, "started_on_old_after_switch"), 0); /* pinned ones do not count */
    assert_int_equal(member(&r, "in_flight_at_switch"), 17);
    assert_int_equal(member(&r, "drained"), 17);
}

static void a_late_start_shows(void **unused)
{
    struct receipt r = plain();

    r.until.from.started += 3;
    r.until.from.last_start_ns = r.acked_ns + 5000;
    assert_int_equal(member(&r, "started_on_old_after_switch"), 3);
    assert_int_equal(member(&r, "last_start_on_old_before_ack_us"), -5);

    r.until.from.started -= 3; /* between the acknowledgement and our reading of it */
    assert_int_equal(member(&r, "started_on_old_after_switch"), 1);
}

static void no_switch_no_proof(void **unused)
{
    struct receipt r = plain();

    r.switched = false;
    r.result = "failed";
    r.reason = "exit 1";
    assert_int_equal(member(&r, "switch_us"), 0);
    assert_int_equal(member(&r, "in_flight_at_switch"), 0);
    json_t *json = receipt_json(&r);
    assert_true(json_is_null(json_object_get(json, "last_start_on_old_before_ack_us")));
    assert_int_equal(json_object_size(json_object_get(json, "phases_ms")), 2);
    json_decref(json);
}

static void tallies(void **unused)
{
    struct tally sum = {.started = 1, .last_start_ns = 5};
    struct tally more = {.started = 2, .in_flight = 1, .last_start_ns = 4};

    tally_add(&sum, &more);
    assert_int_equal(sum.started, 3);
    assert_int_equal(sum.last_start_ns, 5);
    struct tally d = tally_since(&sum, &more); /* a counter that begins anew is not negative */
    assert_int_equal(d.started, 0);
    assert_int_equal(d.in_flight, 1);
}

/* --- files -------------------------------------------------------------------------------- */

static char *file_with(const char *text, char path[64])
{
    snprintf(path, 64, "/tmp/segue-fingerprint-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static void a_file_is_known_again(void **unused)
{
    char path[64], text[FINGERPRINT_TEXT_MAX];
    struct fingerprint f, g;
    struct err err;

    file_with("GGUF and more", path);
    assert_int_equal(fingerprint_model_file(path, &err), 0);
    assert_int_equal(fingerprint_read(path, &f, NULL, &err), 0);
    assert_string_equal(f.sha256,
                        "144581c14596a699068df44aa4ca0ed507e2d4a875f409e78b6319ec468379b3");
    assert_int_equal(fingerprint_same_file(path, &f, &err), 1);
    fingerprint_text(&f, text);
    assert_true(fingerprint_parse(text, &g));
    assert_string_equal(f.sha256, g.sha256);
    assert_true(f.size == g.size && f.mtime_ns == g.mtime_ns);
    assert_int_equal(truncate(path, 5), 0);
    assert_int_equal(fingerprint_same_file(path, &f, &err), 0);
    unlink(path);
    assert_int_equal(fingerprint_same_file(path, &f, &err), -1);
    assert_false(fingerprint_parse("abc 1 2", &g));
    assert_false(fingerprint_parse("", &g));
    assert_false(fingerprint_parse(NULL, &g));
}

static void what_is_no_model_is_refused(void **unused)
{
    static const char *const texts[] = {"", "GGU", "gguf", "PK and so on"};
    char path[64];
    struct err err;

    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        file_with(texts[i], path);
        assert_int_equal(fingerprint_model_file(path, &err), -1);
        assert_int_equal(err.status, 400);
        unlink(path);
    }
    assert_int_equal(fingerprint_model_file("/tmp", &err), -1);
    assert_int_equal(fingerprint_model_file("models/x.gguf", &err), -1);
    assert_int_equal(fingerprint_model_file("/nowhere/x.gguf", &err), -1);
    assert_non_null(strstr(err.text, "No such file"));
}

static void reading_can_be_given_up(void **unused)
{
    char path[64];
    struct fingerprint f;
    struct err err;
    atomic_bool stop = true;

    file_with("GGUF", path);
    assert_int_equal(fingerprint_read(path, &f, &stop, &err), -1);
    assert_int_equal(err.status, 503);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_add_up),
        cmocka_unit_test(the_switch_is_a_point_in_time),
        cmocka_unit_test(a_late_start_shows),
        cmocka_unit_test(no_switch_no_proof),
        cmocka_unit_test(tallies),
        cmocka_unit_test(a_file_is_known_again),
        cmocka_unit_test(what_is_no_model_is_refused),
        cmocka_unit_test(reading_can_be_given_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
