/*
 * The counters: durations in buckets against floating point, what is in
 * flight, and what a dead gateway's open exchanges are booked as.
 */
#include "gateway/counters.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "test.h"

/* --- histogram ------------------------------------------------------------------- */

static unsigned bucket_of(uint64_t us)
{
    static struct histogram h;
    unsigned found = 0, n = 0;

    memset(&h, 0, sizeof(h));
    histogram_add(&h, us);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (counter_read(&h.buckets[i])) {
            assert_int_equal(counter_read(&h.buckets[i]), 1);
            found = i;
            n++;
        }
    }
    assert_int_equal(n, 1);
    assert_int_equal(counter_read(&h.sum_us), us);
    return found;
}

static void bounds(void **state)
{
    for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
        double want = HISTOGRAM_FIRST_US * pow(2, (i + 1) / 4.0);
        uint64_t got = histogram_bound_us(i);
        assert_true(fabs((double)got - want) <= 1 + want * 1e-5);
        if (i)
            assert_true(got > histogram_bound_us(i - 1));
    }
    assert_true(histogram_bound_us(HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
    assert_true(histogram_bound_us(HISTOGRAM_BUCKETS) == UINT64_MAX);
    assert_true(histogram_bound_us(UINT32_MAX) == UINT64_MAX);
}

static void check_value(uint64_t us)
{
    unsigned got = bucket_of(us);
    double exact = us < HISTOGRAM_FIRST_US ? 0 : 4 * log2((double)us / HISTOGRAM_FIRST_US);
    unsigned want = exact >= HISTOGRAM_BUCKETS ? HISTOGRAM_BUCKETS - 1 : (unsigned)exact;

    /* The bounds are rounded to 1/65536: right at one, either side will do. */
    if (got != want && fabs(exact - round(exact)) > 1e-4)
        fail_msg("%llu us: bucket %u, not %u", (unsigned long long)us, got, want);
    assert_true(us <= histogram_bound_us(got));
    if (got)
        assert_true(us >= histogram_bound_us(got - 1));
    if (us >= HISTOGRAM_FIRST_US && got < HISTOGRAM_BUCKETS - 1)
        assert_true((double)histogram_bound_us(got) <= (double)us * 1.1893);
}

static void buckets(void **state)
{
    uint64_t random = 1;
    unsigned last = 0;

    for (uint64_t us = 0; us < 20000; us++) {
        check_value(us);
        assert_true(bucket_of(us) >= last); /* monotone */
        last = bucket_of(us);
    }
    for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++)
        for (int d = -2; d <= 2; d++)
            check_value(histogram_bound_us(i) + (uint64_t)(int64_t)d);
    for (int i = 0; i < 20000; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        check_value(random >> (random >> 58));
    }
}

static void buckets_at_the_ends(void **state)
{
    static const uint64_t endless[] = {UINT64_C(200000000), UINT64_C(1) << 40,
                                       UINT64_C(1) << 48,   (UINT64_C(1) << 48) - 1,
                                       UINT64_C(1) << 63,   UINT64_MAX};

    for (uint64_t us = 0; us <= HISTOGRAM_FIRST_US; us++)
        assert_int_equal(bucket_of(us), 0);
    for (size_t i = 0; i < COUNT_OF(endless); i++)
        assert_int_equal(bucket_of(endless[i]), HISTOGRAM_BUCKETS - 1);
    /* The last bound is beyond what `first_byte` and the like allow to wait usually. */
    assert_int_equal(bucket_of(100000000), HISTOGRAM_BUCKETS - 2);
}

static void sums(void **state)
{
    static struct histogram h;
    uint64_t sum = 0, n = 0;

    memset(&h, 0, sizeof(h));
    for (uint64_t us = 1; us < 1000000; us = us * 5 / 4 + 1) {
        histogram_add(&h, us);
        sum += us;
        n++;
    }
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        n -= counter_read(&h.buckets[i]);
    assert_int_equal(counter_read(&h.sum_us), sum);
    assert_int_equal(n, 0);
}

/* --- rows -------------------------------------------------------------------------- */

static void in_flight(void **state)
{
    static struct replica_row r;

    memset(&r, 0, sizeof(r));
    assert_int_equal(replica_row_in_flight(&r), 0);
    counter_add(&r.started, 5);
    counter_add(&r.pinned, 3);
    counter_add(&r.tokens, 1000);
    assert_int_equal(replica_row_in_flight(&r), 8);
    counter_add(&r.finished, 2);
    counter_add(&r.failed, 1);
    counter_add(&r.truncated, 1);
    counter_add(&r.cancelled, 1);
    counter_add(&r.retried, 1);
    assert_int_equal(replica_row_in_flight(&r), 2);
    /* Read while it is written: ends may be newer than starts, never below nothing. */
    counter_add(&r.finished, 5);
    assert_int_equal(replica_row_in_flight(&r), 0);
}

static void settle(void **state)
{
    struct err err;
    int fd = counters_create(&err);
    struct counters *c = counters_map(fd, &err);

    assert_non_null(c);
    assert_int_equal(counters_settle(c), 0);
    struct replica_row *a = &c->replicas[0][0], *b = &c->replicas[2][COUNTERS_WORKERS - 1];
    struct replica_row *never = &c->replicas[3][0];
    counter_add(&a->started, 10);
    counter_add(&a->finished, 6);
    counter_add(&a->cancelled, 1);
    counter_add(&b->pinned, 4);
    counter_add(&b->truncated, 1);
    counter_add(&never->started, 1); /* behind nslots: no row was ever there */
    atomic_store(&c->nslots, 3);
    counter_add(&c->workers[1].opened, 9);
    counter_add(&c->workers[1].closed, 4);
    counter_add(&c->workers[1].requests, 20);
    counter_add(&c->workers[1].rejected, 2);
    counter_add(&c->workers[1].answered, 15);
    counter_add(&c->workers[1].unanswered, 1);
    counter_add(&c->workers[1].held_total, 3);
    counter_add(&c->workers[1].unheld, 2);

    /* Another mapping is the same memory, as of the next gateway. */
    struct counters *next = counters_map(fd, &err);
    assert_non_null(next);
    assert_int_equal(counters_settle(next), 6);
    assert_int_equal(counter_read(&a->truncated), 3);
    assert_int_equal(counter_read(&b->truncated), 4);
    assert_int_equal(replica_row_in_flight(a), 0);
    assert_int_equal(replica_row_in_flight(b), 0);
    assert_int_equal(counter_read(&a->finished), 6);
    assert_int_equal(counter_read(&never->truncated), 0);
    assert_int_equal(counter_read(&c->workers[1].closed), 9);
    assert_int_equal(counter_read(&c->workers[1].unanswered), 7);
    assert_int_equal(counter_read(&c->workers[1].unheld), 3);
    assert_int_equal(counter_read(&c->workers[0].closed), 0);
    assert_int_equal(counters_settle(next), 0); /* once */
    assert_int_equal(counter_read(&a->truncated), 3);
    counters_unmap(next);
    counters_unmap(c);
    counters_unmap(NULL);
    close(fd);
}

static void segments(void **state)
{
    struct err err;
    uint64_t version = COUNTERS_VERSION + 1;
    char sentence[128];
    int fd = counters_create(&err);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &version, sizeof(version), 0), sizeof(version));
    assert_null(counters_map(fd, &err));
    snprintf(sentence, sizeof(sentence), "the counters segment has layout %d, this segue needs %d",
             COUNTERS_VERSION + 1, COUNTERS_VERSION);
    assert_string_equal(err.text, sentence);
    assert_int_equal(ftruncate(fd, sizeof(struct counters) - 1), 0);
    assert_null(counters_map(fd, &err));
    assert_string_equal(err.text,
                        "the counters segment does not have the size of this version of segue");
    close(fd);
    assert_null(counters_map(fd, &err)); /* no descriptor at all */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds),
        cmocka_unit_test(buckets),
        cmocka_unit_test(buckets_at_the_ends),
        cmocka_unit_test(sums),
        cmocka_unit_test(in_flight),
        cmocka_unit_test(settle),
        cmocka_unit_test(segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
