/*
 * The choices: a version by weight, a replica by its state and its load.  The
 * worker here has no thread, no sockets and no clock but the test's.
 */
#include "gateway/route.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "gateway/internal.h"
#include "gateway/sticky.h"
#include "gateway_message.h"

/* --- versions ---------------------------------------------------------------------- */

enum { VERSIONS_MAX = 5 };

/* A model whose versions have these weights and no replicas. */
static struct model_route *model_with(const unsigned *weights, size_t n)
{
    struct model_route *m = NEW(struct model_route);

    m->versions = mem_zero(VERSIONS_MAX * sizeof(*m->versions));
    m->nversions = n;
    for (size_t i = 0; i < n; i++) {
        m->versions[i].weight = weights[i];
        m->total_weight += weights[i];
    }
    return m;
}

static void model_end(struct model_route *m)
{
    free(m->versions);
    free(m);
}

static size_t chosen(const struct model_route *m, uint64_t dice)
{
    const struct version_route *v = route_version(m, dice);

    assert_non_null(v);
    assert_true(v->weight > 0);
    return (size_t)(v - m->versions);
}

/* The first point of the line that belongs to the k-th of `total` equal parts. */
static uint64_t part_begin(unsigned k, unsigned total)
{
    return (uint64_t)((((unsigned __int128)k << 64) + total - 1) / total);
}

/* Each version has exactly its part of the line, the newest the beginning. */
static void shares_exact(void **state)
{
    static const struct {
        unsigned weights[VERSIONS_MAX];
        size_t n;
    } cases[] = {
        {{1}, 1},
        {{1, 0}, 2},
        {{0, 1}, 2},
        {{99, 1}, 2},
        {{1, 99}, 2},
        {{1, 1, 1}, 3},
        {{0, 3, 0, 4, 0}, 5},
        {{1000003, 17, 65536}, 3},
        {{UINT32_MAX - 1, 1}, 2},
    };

    for (size_t c = 0; c < COUNT_OF(cases); c++) {
        struct model_route *m = model_with(cases[c].weights, cases[c].n);
        unsigned at = 0;
        for (size_t i = m->nversions; i-- > 0;) {
            unsigned weight = m->versions[i].weight;
            if (weight == 0)
                continue;
            /* first and last point of its part; the last of all is the line's end */
            assert_int_equal(chosen(m, part_begin(at, m->total_weight)), i);
            at += weight;
            uint64_t end = at == m->total_weight ? 0 : part_begin(at, m->total_weight);
            assert_int_equal(chosen(m, end - 1), i);
        }
        assert_int_equal(at, m->total_weight);
        model_end(m);
    }
}

/* The same by counting evenly spread points. */
static void shares_counted(void **state)
{
    enum { POINTS = 10000 };
    static const unsigned weights[] = {70, 0, 25, 5};
    struct model_route *m = model_with(weights, COUNT_OF(weights));
    unsigned counts[COUNT_OF(weights)] = {0};

    for (uint64_t i = 0; i < POINTS; i++)
        counts[chosen(m, part_begin((unsigned)i, POINTS))]++;
    for (size_t i = 0; i < COUNT_OF(weights); i++)
        assert_int_equal(counts[i], weights[i] * POINTS / 100);
    model_end(m);
}

static void no_share(void **state)
{
    static const unsigned weights[] = {0, 0};
    struct model_route *m = model_with(weights, 2);

    assert_null(route_version(m, 0));
    assert_null(route_version(m, UINT64_MAX));
    model_end(m);
    m = model_with(weights, 0);
    assert_null(route_version(m, 1));
    model_end(m);
}

/* One version's share grows from 0 to 100 %; the rest is the other one's.  Whoever
 * has come stays. */
static void grows(size_t n, size_t growing, size_t other)
{
    enum { POINTS = 2000 };
    static size_t was[POINTS];
    unsigned moved = 0;

    for (unsigned share = 0; share <= 100; share++) {
        unsigned weights[VERSIONS_MAX] = {0};
        weights[growing] = share;
        weights[other] = 100 - share;
        struct model_route *m = model_with(weights, n);
        for (unsigned i = 0; i < POINTS; i++) {
            size_t now = chosen(m, part_begin(i, POINTS) + i % 2 * 1000);
            if (share == 0)
                was[i] = other;
            if (was[i] == growing)
                assert_int_equal(now, growing);
            moved += now != was[i];
            was[i] = now;
        }
        model_end(m);
    }
    assert_int_equal(moved, POINTS); /* each once */
}

static void nobody_goes_back(void **state)
{
    grows(2, 1, 0); /* an update */
    grows(2, 0, 1); /* an older version again */
    grows(3, 2, 0); /* the spare between them */
    grows(3, 2, 1);
    grows(5, 1, 4);
    grows(5, 3, 2);
}

/* Steps that are not written as hundredths. */
static void nobody_goes_back_in_other_steps(void **state)
{
    static const unsigned steps[][2] = {{1, 0},  {999, 1}, {99, 1}, {19, 1},
                                        {10, 1}, {3, 1},   {1, 1},  {0, 7}};

    for (uint64_t point = 0; point < 1000; point++) {
        bool came = false;
        for (size_t i = 0; i < COUNT_OF(steps); i++) {
            struct model_route *m = model_with(steps[i], 2);
            bool there = chosen(m, point * UINT64_C(0x9E3779B97F4A7C15)) == 1;
            assert_true(there || !came);
            came = there;
            model_end(m);
        }
        assert_true(came);
    }
}

/* Real conversations' numbers: the shares hold for them too. */
static void conversations(void **state)
{
    enum { PEOPLE = 20000 };
    static const unsigned weights[] = {90, 10};
    struct model_route *m = model_with(weights, 2);
    unsigned on_new = 0;
    char user[32];

    for (int i = 0; i < PEOPLE; i++) {
        int n = snprintf(user, sizeof(user), "\"user-%d\"", i);
        uint64_t number = sticky_number(&(struct sticky_source){.user = span_of(user, (size_t)n)});
        on_new += chosen(m, number) == 1;
    }
    assert_in_range(on_new, PEOPLE / 10 - 200, PEOPLE / 10 + 200); /* 4.7 standard deviations */
    model_end(m);
}

/* --- replicas ----------------------------------------------------------------------- */

enum { REPLICAS = 5 };
#define SECOND UINT64_C(1000000000)

static struct worker *worker;
static int counters_fd;
static struct exchange someone;

/* A version v1 with n replicas in slots 0 to n - 1 that are ready. */
static char *models_with(unsigned n, const char *host)
{
    struct buf b = {0};

    buf_add_str(&b, "{'name':'m','hold_ms':1,'hold_max':1,'versions':"
                    "[{'name':'v1','weight':1,'replicas':[");
    for (unsigned i = 0; i < n; i++)
        buf_addf(&b, "%s{'slot':%u,'address':'%s:%u','prefix':'','serve_as':'m','ready':true}",
                 i ? "," : "", i, host, 8000 + i);
    buf_add_str(&b, "]}]}");
    return buf_take(&b);
}

static const struct version_route *adopt(unsigned epoch, unsigned n, const char *host)
{
    char *models = models_with(n, host);

    view_unref(worker->view);
    worker->view = view_new(table_of(NULL, epoch, "", models));
    free(models);
    return &worker->view->table->models[0]->versions[0];
}

/* For setting `ready`, which a test does in place of another table. */
static struct replica_route *replica(const struct version_route *v, size_t i)
{
    return &v->replicas[i];
}

static struct pool *pool(const struct version_route *v, size_t i)
{
    return pool_of(worker, &v->replicas[i]);
}

/* All n replicas have been there for long. */
static const struct version_route *warm(unsigned n)
{
    const struct version_route *v = adopt(1, n, "127.0.0.1");

    for (unsigned i = 0; i < n; i++)
        pool(v, i);
    worker->loop.now_ns += 60 * SECOND;
    return v;
}

static void in_flight(unsigned slot, unsigned of_worker, uint64_t n)
{
    struct replica_row *row = &worker->counters->replicas[slot][of_worker];

    counter_add(&row->finished, replica_row_in_flight(row));
    counter_add(&row->started, n);
}

static int setup(void **state)
{
    struct err err;

    worker = NEW(struct worker);
    worker->gateway_workers = 3;
    worker->loop.now_ns = 1000 * SECOND;
    worker->rng[0] = 1;
    worker->rng[1] = 2;
    counters_fd = counters_create(&err);
    worker->counters = counters_map(counters_fd, &err);
    return worker->counters ? 0 : -1;
}

static int teardown(void **state)
{
    for (size_t i = 0; i < COUNTERS_SLOTS; i++)
        free(worker->pools[i]);
    view_unref(worker->view);
    counters_unmap(worker->counters);
    close(counters_fd);
    free(worker);
    return 0;
}

/* How often each replica is chosen. */
static void choose(const struct version_route *v, uint64_t tried, unsigned times, unsigned *counts)
{
    memset(counts, 0, v->nreplicas * sizeof(*counts));
    for (unsigned i = 0; i < times; i++) {
        const struct replica_route *r = route_replica(worker, v, tried);
        assert_non_null(r);
        counts[r - v->replicas]++;
    }
}

static void only(const struct version_route *v, uint64_t tried, size_t i)
{
    for (int k = 0; k < 20; k++)
        assert_ptr_equal(route_replica(worker, v, tried), &v->replicas[i]);
}

static void none(void **state)
{
    const struct version_route *v = adopt(1, 0, "127.0.0.1");

    assert_null(route_replica(worker, v, 0));
    assert_false(route_any_ready(v));
    v = warm(1);
    assert_true(route_any_ready(v));
    assert_ptr_equal(route_replica(worker, v, 0), &v->replicas[0]);
    assert_null(route_replica(worker, v, 1));
    replica(v, 0)->ready = false;
    assert_null(route_replica(worker, v, 0));
    assert_false(route_any_ready(v));
}

static void ready_and_tried(void **state)
{
    const struct version_route *v = warm(REPLICAS);

    for (size_t i = 0; i < REPLICAS; i++)
        only(v, ~(UINT64_C(1) << i), i);
    assert_null(route_replica(worker, v, UINT64_MAX));
    for (size_t i = 0; i < REPLICAS; i++)
        replica(v, i)->ready = i == 3;
    only(v, 0, 3);
    assert_null(route_replica(worker, v, 1 << 3));
    assert_true(route_any_ready(v));
    assert_true(route_other_usable(worker, v, &v->replicas[0]));
    assert_false(route_other_usable(worker, v, &v->replicas[3]));
}

/* More replicas than `tried` has bits: they share them, and nothing breaks. */
static void more_than_bits(void **state)
{
    const struct version_route *v = warm(70);

    assert_null(route_replica(worker, v, UINT64_MAX));
    for (int i = 0; i < 200; i++) {
        const struct replica_route *r = route_replica(worker, v, ~(UINT64_C(1) << 2));
        assert_true(r == &v->replicas[2] || r == &v->replicas[66]);
    }
}

static void avoided(void **state)
{
    const struct version_route *v = warm(2);

    pool(v, 0)->failures = 1;
    pool(v, 0)->avoid_until_ns = worker->loop.now_ns + SECOND;
    pool(v, 0)->avoid_epoch = 1;
    only(v, 0, 1);
    assert_null(route_replica(worker, v, 2));
    assert_false(route_other_usable(worker, v, &v->replicas[1]));
    assert_true(route_other_usable(worker, v, &v->replicas[0]));
    worker->loop.now_ns += SECOND - 1;
    only(v, 0, 1);
    worker->loop.now_ns += 1;
    only(v, 2, 0);

    /* A newer table is better news than an old failure. */
    pool(v, 0)->avoid_until_ns = worker->loop.now_ns + SECOND;
    v = adopt(2, 2, "127.0.0.1");
    only(v, 2, 0);
}

static void half_open(void **state)
{
    const struct version_route *v = warm(2);

    pool(v, 0)->failures = 3; /* its pause is over */
    only(v, 2, 0);
    pool(v, 0)->trial = &someone; /* one goes ahead, the others wait for its luck */
    assert_null(route_replica(worker, v, 2));
    only(v, 0, 1);
    assert_false(route_other_usable(worker, v, &v->replicas[1]));
    pool(v, 0)->trial = NULL;
    pool(v, 0)->failures = 0;
    only(v, 2, 0);
}

static void another_engine(void **state)
{
    const struct version_route *v = warm(2);

    pool(v, 0)->failures = 3;
    pool(v, 0)->trial = &someone;
    pool(v, 1)->avoid_until_ns = UINT64_MAX;
    pool(v, 1)->avoid_epoch = 2;
    v = adopt(2, 2, "127.0.0.2"); /* the slots have new engines */
    only(v, 2, 0);
    only(v, 1, 1);
    assert_int_equal(pool(v, 0)->failures, 0);
    assert_int_equal(pool(v, 0)->since_ns, worker->loop.now_ns);
}

/* Of two, the one with fewer exchanges, whichever worker has them. */
static void less_busy(void **state)
{
    const struct version_route *v = warm(2);

    for (unsigned w = 0; w < 3; w++) {
        in_flight(0, w, 5);
        in_flight(1, w, 4);
        only(v, 0, 1);
        in_flight(1, w, 6);
        only(v, 0, 0);
        in_flight(0, w, 0);
        in_flight(1, w, 0);
    }
    /* Finished ones do not count. */
    counter_add(&worker->counters->replicas[0][0].started, 100);
    counter_add(&worker->counters->replicas[0][0].finished, 100);
    in_flight(1, 0, 1);
    only(v, 0, 0);
}

static void equally_busy(void **state)
{
    enum { TIMES = 6000 };
    unsigned counts[REPLICAS];

    for (unsigned n = 2; n <= REPLICAS; n++) {
        const struct version_route *v = warm(n);
        choose(v, 0, TIMES, counts);
        for (unsigned i = 0; i < n; i++)
            assert_in_range(counts[i], TIMES / n * 8 / 10, TIMES / n * 12 / 10);
    }
}

/* ... also when some cannot be asked: the next one does not get their part. */
static void equally_busy_with_gaps(void **state)
{
    enum { TIMES = 6000 };
    unsigned counts[REPLICAS];

    for (unsigned usable = 1; usable < 1u << REPLICAS; usable++) {
        const struct version_route *v = warm(REPLICAS);
        unsigned n = (unsigned)__builtin_popcount(usable);
        for (unsigned i = 0; i < REPLICAS; i++)
            replica(v, i)->ready = usable >> i & 1;
        choose(v, 0, TIMES, counts);
        for (unsigned i = 0; i < REPLICAS; i++) {
            if (usable >> i & 1)
                assert_in_range(counts[i], TIMES / n * 8 / 10, TIMES / n * 12 / 10);
            else
                assert_int_equal(counts[i], 0);
        }
    }
}

/* The busiest is never chosen, the idlest most often. */
static void two_choices(void **state)
{
    const struct version_route *v = warm(REPLICAS);
    unsigned counts[REPLICAS];

    for (unsigned i = 0; i < REPLICAS; i++)
        in_flight(i, 0, i * 3);
    choose(v, 0, 2000, counts);
    assert_int_equal(counts[REPLICAS - 1], 0);
    for (unsigned i = 1; i < REPLICAS; i++)
        assert_true(counts[i] <= counts[0]);
    choose(v, 1, 2000, counts);
    assert_int_equal(counts[0], 0);
    assert_int_equal(counts[REPLICAS - 1], 0);
}

/* A new one counts as busier than it is: 8 times at first, 1 time after ten seconds. */
static void slow_start(void **state)
{
    static const struct {
        uint64_t age_ms;
        unsigned other; /* exchanges at the warm one until which that one is chosen */
    } cases[] = {{0, 6}, {1000, 2}, {2000, 1}, {5000, 0}};

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct version_route *v = warm(2);
        uint64_t begin = worker->loop.now_ns - cases[i].age_ms * 1000000;
        pool(v, 1)->since_ns = begin;
        in_flight(0, 0, cases[i].other);
        if (cases[i].other)
            only(v, 0, 0);
        in_flight(0, 0, cases[i].other + 2);
        only(v, 0, 1);
        in_flight(0, 0, 0);
    }
    /* Alone it takes everything, however new it is. */
    const struct version_route *v = warm(2);
    pool(v, 1)->since_ns = worker->loop.now_ns;
    in_flight(1, 0, 1000);
    only(v, 1, 1);
}

/* Its part of the load grows with its age and ends at one half. */
static void slow_start_grows(void **state)
{
    enum { AT_A_TIME = 64 };
    unsigned last = 0;

    for (uint64_t age_ms = 0; age_ms <= 10000; age_ms += 2500) {
        const struct version_route *v = warm(2);
        pool(v, 1)->since_ns = worker->loop.now_ns - age_ms * 1000000;
        in_flight(0, 0, 0);
        in_flight(1, 0, 0);
        unsigned part = 0;
        for (int i = 0; i < AT_A_TIME; i++) {
            const struct replica_route *r = route_replica(worker, v, 0);
            counter_add(&worker->counters->replicas[r->slot][0].started, 1);
            part += r->slot == 1;
        }
        assert_true(part > last);
        last = part;
        if (age_ms == 0) /* an eighth of the other's */
            assert_in_range(part, AT_A_TIME / 9 - 1, AT_A_TIME / 9 + 1);
    }
    assert_int_equal(last, AT_A_TIME / 2);
}

int main(void)
{
#define WITH_WORKER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_exact),
        cmocka_unit_test(shares_counted),
        cmocka_unit_test(no_share),
        cmocka_unit_test(nobody_goes_back),
        cmocka_unit_test(nobody_goes_back_in_other_steps),
        cmocka_unit_test(conversations),
        WITH_WORKER(none),
        WITH_WORKER(ready_and_tried),
        WITH_WORKER(more_than_bits),
        WITH_WORKER(avoided),
        WITH_WORKER(half_open),
        WITH_WORKER(another_engine),
        WITH_WORKER(less_busy),
        WITH_WORKER(equally_busy),
        WITH_WORKER(equally_busy_with_gaps),
        WITH_WORKER(two_choices),
        WITH_WORKER(slow_start),
        WITH_WORKER(slow_start_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
