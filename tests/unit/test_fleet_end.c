/*
 * How engines end, with all that they started; and that their logs do not
 * grow for ever.
 */
#include "fleet/log_file.h"
#include "fleet_world.h"

/* --- ends --- */

static void test_sigterm_ignored(void **state)
{
    struct replica *r = add(FAKE((char *)"--ignore-term"), true);
    pid_t pid;

    until(r, REPLICA_READY);
    pid = replica_pid(r);
    fleet_drop(r);
    uint64_t began = clock_ns();
    loop_until(&t.loop, t.gone == 1);
    assert_true(clock_ns() - began > 1900000000u); /* it had its time */
    assert_false(runs(pid));
}

static void test_hurry(void **state)
{
    struct replica *r = add(FAKE((char *)"--ignore-term"), true);

    until(r, REPLICA_READY);
    t.fleet->times.grace_ms = 1000000;
    fleet_drop(r);
    fleet_hurry(t.fleet);
    loop_until(&t.loop, t.gone == 1);
}

static void test_children_go_with_their_engine(void **state)
{
    struct replica *r = add(FAKE((char *)"--children", (char *)"3"), false);
    pid_t pids[8];

    until(r, REPLICA_READY);
    pid_t pid = replica_pid(r);
    size_t n = proc_members(pid, true, pids, COUNT_OF(pids));
    assert_int_equal(n, 3);
    kill(pid, SIGKILL);
    until(r, REPLICA_DOWN);
    for (size_t i = 0; i < n; i++) {
        struct proc p;
        assert_false(proc_read(pids[i], &p)); /* not even a zombie */
    }
}

static void test_children_in_other_groups_go_too(void **state)
{
    /* Job control puts the sleeper into its own group, in the same session. */
    struct replica *r = add(
        SHELL("set -m; sleep 1000 & set +m; exec " ENGINE " --listen unix:$0 --name m@v1"), true);
    pid_t pids[8];

    until(r, REPLICA_READY);
    assert_int_equal(proc_members(replica_pid(r), true, pids, COUNT_OF(pids)), 1);
    drop(r);
    assert_false(runs(pids[0]));
}

static void test_drop_while_starting_and_in_back_off(void **state)
{
    struct replica *r = add(SHELL("sleep 100"), false);

    drop(r);
    history_is("stopping gone ");
    r = add(SHELL("exit 1"), false);
    until(r, REPLICA_DOWN);
    drop(r);
    history_is("down stopping gone ");
}

static void test_same_name_waits_for_the_former_to_end(void **state)
{
    struct replica *old = add(FAKE((char *)"--ignore-term"), true);

    until(old, REPLICA_READY);
    pid_t pid = replica_pid(old);
    int slot = replica_slot(old);
    fleet_drop(old);
    struct replica *new = add(FAKE((char *)"--answer", (char *)"new"), true);
    assert_int_equal(replica_pid(new), 0);
    assert_int_not_equal(replica_slot(new), slot); /* its exchanges are still counted there */
    loop_until(&t.loop, replica_pid(new) != 0);
    assert_false(runs(pid));
    until(new, REPLICA_READY);
    assert_string_equal(replica_answer(new), "new");
}

static void test_replicas_start_one_after_the_other(void **state)
{
    struct config_version v = FAKE((char *)"--loading", (char *)"0.3");
    struct replica *a = add_index(&v, 0, false), *b = add_index(&v, 1, false);

    assert_int_not_equal(replica_pid(a), 0);
    assert_int_equal(replica_pid(b), 0);
    until(a, REPLICA_READY);
    loop_until(&t.loop, replica_pid(b) != 0);
    until(b, REPLICA_READY);
    assert_int_equal(replica_slot(b), 1);
    drop(a);
    struct replica *c = add_index(&v, 5, false);
    assert_int_equal(replica_slot(c), 0); /* the lowest free */
}

/* --- logs --- */

static off_t size_of(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? st.st_size : -1;
}

static void test_logs_are_bounded(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), false);
    until(r, REPLICA_READY);
    tell(r, "{\"chatter\": 100000000}");
    off_t most = 0;
    for (int cuts = 0; cuts < 3;) {
        off_t before = size_of(r->log_path);
        loop_turn(&t.loop);
        off_t now = size_of(r->log_path);
        most = now > most ? now : most;
        cuts += now < before;
    }
    tell(r, "{\"chatter\": 0}");
    assert_true(most < 3 * LOG_FILE_MOST);
    assert_int_equal(replica_state(r), REPLICA_READY);
    char *tail = fleet_log_tail(t.fleet, "m@v1#0", 1, &t.err);
    assert_non_null(strstr(tail, "chatter"));
    free(tail);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_sigterm_ignored),
        TEST(test_hurry),
        TEST(test_children_go_with_their_engine),
        TEST(test_children_in_other_groups_go_too),
        TEST(test_drop_while_starting_and_in_back_off),
        TEST(test_same_name_waits_for_the_former_to_end),
        TEST(test_replicas_start_one_after_the_other),
        TEST(test_logs_are_bounded),
    };

    return RUN(tests);
}
