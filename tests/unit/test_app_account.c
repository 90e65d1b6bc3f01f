/* account, exposition - sums that never go backwards, and how Prometheus is told. */
#include "test.h"

#include <stdlib.h>
#include <unistd.h>

#include "app/account.h"
#include "app/exposition.h"

static struct counters *rows_new(void)
{
    struct err err;
    int fd = counters_create(&err);
    struct counters *rows = fd < 0 ? NULL : counters_map(fd, &err);

    assert_non_null(rows);
    close(fd);
    return rows;
}

/* Slots go from one version to another; no sum ever shrinks, and none counts twice. */
static void test_slots_change_hands(void **state)
{
    struct counters *rows = rows_new();
    struct account *a = account_new();
    struct replica_row *r = &rows->replicas[3][1];

    counter_add(&r->finished, 100); /* of somebody before this manager */
    account_assign(a, rows, 2, 3, "m", "v1", false);
    counter_add(&r->finished, 40);
    counter_add(&r->started, 41);
    histogram_add(&r->first_byte, 1000);
    account_read(a, rows, 2);
    assert_int_equal(account_of(a, "m", "v1")->finished, 40);
    assert_int_equal(account_of(a, "m", "v1")->started, 41);

    counter_add(&r->finished, 1); /* after the replica is gone */
    account_assign(a, rows, 2, 3, "m", "v2", false);
    counter_add(&r->finished, 5);
    histogram_add(&r->first_byte, 3000);
    account_read(a, rows, 2);
    account_read(a, rows, 2);
    assert_int_equal(account_of(a, "m", "v1")->finished, 41);
    assert_int_equal(account_of(a, "m", "v2")->finished, 5);
    assert_int_equal(account_of(a, "m", "v1")->first_byte.sum_us, 1000);
    assert_int_equal(account_of(a, "m", "v2")->first_byte.sum_us, 3000);

    account_assign(a, rows, 2, 3, "m", "v1", false); /* and back */
    counter_add(&r->finished, 2);
    account_assign(a, rows, 2, 9, "m", "v1", false); /* a second replica */
    counter_add(&rows->replicas[9][0].finished, 3);
    account_read(a, rows, 2);
    assert_int_equal(account_of(a, "m", "v1")->finished, 46);
    assert_int_equal(account_of(a, "m", "v2")->finished, 5);
    account_free(a);
    counters_unmap(rows);
}

static void test_adopted(void **state)
{
    struct counters *rows = rows_new();
    struct account *a = account_new();
    size_t n;

    counter_add(&rows->replicas[0][0].finished, 7);
    account_assign(a, rows, 1, 0, "m", "v1", true);
    account_read(a, rows, 1);
    assert_int_equal(account_of(a, "m", "v1")->finished, 7);
    assert_int_equal(account_of(a, "m", "v9")->finished, 0);
    account_entries(a, &n);
    assert_int_equal(n, 1);
    account_free(a);
    counters_unmap(rows);
}

static void test_samples(void **state)
{
    struct buf out = {0};

    exposition_family(&out, "x_total", "counter", "A \\ and\na line.");
    exposition_count(&out, "x_total", NULL, UINT64_MAX);
    exposition_count(&out, "x_total", LABELS({"a", "q\"b\\n\n"}, {"c", ""}), 0);
    exposition_number(&out, "y", LABELS({"a", "b"}), 0.25);
    assert_span(buf_span(&out), "# HELP x_total A \\\\ and\\na line.\n# TYPE x_total counter\n"
                                "x_total 18446744073709551615\n"
                                "x_total{a=\"q\\\"b\\\\n\\n\",c=\"\"} 0\n"
                                "y{a=\"b\"} 0.25\n");
    buf_fini(&out);
}

/* One bucket an octave; each counts what is at most its bound, the last one everything. */
static void test_durations(void **state)
{
    struct histogram h = {0};
    struct durations d = {0};
    struct buf out = {0};

    histogram_add(&h, 10);
    histogram_add(&h, 100);
    histogram_add(&h, 200);
    histogram_add(&h, 500000000); /* above all bounds */
    d.sum_us = counter_read(&h.sum_us);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        d.buckets[i] = counter_read(&h.buckets[i]);
    exposition_durations(&out, "t_seconds", LABELS({"m", "x"}), &d);
    const char *text = buf_cstr(&out);
    assert_int_equal(strncmp(text, "t_seconds_bucket{m=\"x\",le=\"0.000128\"} 2\n", 40), 0);
    assert_non_null(strstr(text, "le=\"0.000256\"} 3\n"));
    assert_non_null(strstr(text, "le=\"67.108864\"} 3\nt_seconds_bucket{m=\"x\",le=\"+Inf\"} 4\n"
                                 "t_seconds_sum{m=\"x\"} 500.00031\nt_seconds_count{m=\"x\"} 4\n"));
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_change_hands),
        cmocka_unit_test(test_adopted),
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_durations),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
