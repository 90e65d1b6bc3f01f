/* rates - quantiles of a histogram, and what happened between two readings. */
#include "test.h"

#include <math.h>
#include <stdlib.h>

#include "base/always.h"
#include "cli/rates.h"

static void is_about(double got, double want)
{
    if (fabs(got - want) > 1e-6)
        fail_msg("%f is not %f", got, want);
}

static void test_quantiles(void **state)
{
    static const double bounds[] = {100, 200, 400, 800};
    static const struct {
        uint64_t counts[5];
        double q, want;
    } rows[] = {
        {{0, 0, 0, 0, 0}, 0.5, -1},     {{1, 0, 0, 0, 0}, 0.5, 50},  {{0, 4, 0, 0, 0}, 0.5, 150},
        {{0, 4, 0, 0, 0}, 1, 200},      {{2, 2, 0, 0, 0}, 0.5, 100}, {{50, 0, 49, 0, 1}, 0.99, 400},
        {{50, 0, 0, 0, 50}, 0.99, 800}, /* above all bounds: the last one that is known */
        {{0, 0, 0, 100, 0}, 0.99, 796}, {{0, 0, 10, 0, 0}, 0, 200},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        is_about(quantile_of(rows[i].counts, 5, bounds, rows[i].q), rows[i].want);
}

static json_t *reading(int64_t at_ns, int finished, int bucket, double cpu_s, int pid)
{
    return json_pack("{s:I, s:[i,i], s:{s:i}, s:[{s:s, s:s, s:{s:i}, s:{s:i, s:[i,i,i]}}], "
                     "s:[{s:s, s:s, s:i, s:f}]}",
                     "at_ns", (json_int_t)at_ns, "bounds_us", 100, 200, "gateway", "requests",
                     finished + 1, "versions", "model", "m", "version", "v1", "counters",
                     "finished", finished, "first_byte", "sum_us", 0, "buckets", 5, bucket, 0,
                     "processes", "process", "gateway", "replica", "", "pid", pid, "cpu_s", cpu_s);
}

static void test_between_readings(void **state)
{
    json_t *a = reading(1000000000, 10, 3, 1.0, 42), *b = reading(3000000000, 30, 23, 2.0, 42);
    struct span_of_time s = {a, b}, back = {b, a};

    is_about(rates_seconds(&s), 2);
    assert_int_equal(rates_gateway(&s, "requests"), 20);
    assert_int_equal(rates_version(&s, "m", "v1", "finished"), 20);
    assert_int_equal(rates_version(&s, "m", "v2", "finished"), 0);
    is_about(rates_quantile(&s, "m", "v1", "first_byte", 0.5), 150);
    is_about(rates_quantile(&s, "m", "v2", "first_byte", 0.5), -1);
    is_about(rates_cpu(&s, "gateway", ""), 0.5);
    is_about(rates_cpu(&s, "engine", "m@v1#0"), -1);
    /* Another manager has begun to count anew. */
    assert_int_equal(rates_version(&back, "m", "v1", "finished"), 0);
    is_about(rates_quantile(&back, "m", "v1", "first_byte", 0.5), -1);
    json_decref(a);
    json_decref(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_between_readings),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
