/*
 * What becomes of engines that were ready: they die, fall silent, answer
 * badly, and are started again or given up.
 */
#include "fleet_world.h"

static void test_killed_engine_comes_back(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), false);
    until(r, REPLICA_READY);
    pid_t first = replica_pid(r);
    int slot = replica_slot(r);
    buf_clear(&t.history);

    kill(first, SIGKILL);
    until(r, REPLICA_DOWN);
    reason_has(r, "possibly out of memory");
    until(r, REPLICA_READY);
    history_is("down starting asking ready ");
    assert_int_not_equal(replica_pid(r), first);
    assert_int_equal(replica_slot(r), slot);
    assert_int_equal(r->restarts, 1);
    assert_string_equal(replica_reason(r), "");
}

static void test_crash_loop_is_given_up(void **state)
{
    struct replica *r = add(SHELL("echo no luck; exit 9"), false);

    until(r, REPLICA_FAILED);
    history_is("down starting down starting down starting down starting failed ");
    reason_has(r, "crash loop: it ended 5 times in a row before it was ready");
    reason_has(r, "exit status 9");
    reason_has(r, "no luck");
    assert_int_equal(r->restarts, 4);
}

static void test_wrong_answer_restarts(void **state)
{
    /* Bad at the first start only: the file remembers. */
    char *script =
        str_fmt("if [ -e %s/seen ]; then M=ok; else M=repeat; touch %s/seen; fi; exec " ENGINE
                " --listen unix:{socket} --name m@v1 --mode $M",
                t.folder, t.folder);
    struct replica *r = add(COMMAND((char *)"/bin/sh", (char *)"-c", script), false);

    until(r, REPLICA_DOWN);
    reason_has(r, "one character repeated");
    until(r, REPLICA_READY);
    history_is("asking down starting asking ready ");
    free(script);
}

static void test_stopped_engine_goes_down_and_comes_back(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), false);
    until(r, REPLICA_READY);
    buf_clear(&t.history);

    kill(replica_pid(r), SIGSTOP);
    until(r, REPLICA_DOWN);
    reason_has(r, "3 health checks in a row");
    kill(replica_pid(r), SIGCONT);
    until(r, REPLICA_READY);
    history_is("down asking ready ");
    assert_int_equal(r->restarts, 0);
}

static void test_silent_engine_is_killed(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), false);
    until(r, REPLICA_READY);
    pid_t pid = replica_pid(r);
    buf_clear(&t.history);

    kill(pid, SIGSTOP);
    until(r, REPLICA_DOWN);
    loop_until(&t.loop, replica_pid(r) != pid);
    assert_false(runs(pid));
    until(r, REPLICA_READY);
    history_is("down starting asking ready ");
}

static void test_two_misses_are_nothing(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), false);
    until(r, REPLICA_READY);
    buf_clear(&t.history);

    tell(r, "{\"health\": \"503\"}");
    loop_until(&t.loop, r->misses == 2);
    tell(r, "{\"health\": \"200\"}");
    loop_until(&t.loop, r->misses == 0);
    history_is("");
}

/* The manager was stopped, not the engine: everything is due at once when it goes on. */
static void test_our_own_pause_is_nobodys_fault(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), false);
    until(r, REPLICA_READY);
    buf_clear(&t.history);

    for (int i = 0; i < 3; i++) {
        loop_until(&t.loop, r->probe); /* in the middle of a look, too */
        poll(NULL, 0, 5 * (int)t.fleet->times.look_ms);
        uint64_t resumed = clock_ns();
        loop_until(&t.loop, r->good_ns > resumed && !r->probe);
    }
    history_is("");
}

static void test_garbage_after_health_came_back_is_not_ready(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), false);
    until(r, REPLICA_READY);
    pid_t pid = replica_pid(r);

    tell(r, "{\"health\": \"503\", \"mode\": \"repeat\"}");
    until(r, REPLICA_DOWN);
    tell(r, "{\"health\": \"200\"}");
    until(r, REPLICA_ASKING);
    until(r, REPLICA_DOWN);
    reason_has(r, "one character repeated");
    until(r, REPLICA_READY); /* a new process is as good as the first was */
    assert_int_not_equal(replica_pid(r), pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_killed_engine_comes_back),
        TEST(test_crash_loop_is_given_up),
        TEST(test_wrong_answer_restarts),
        TEST(test_stopped_engine_goes_down_and_comes_back),
        TEST(test_silent_engine_is_killed),
        TEST(test_two_misses_are_nothing),
        TEST(test_our_own_pause_is_nobodys_fault),
        TEST(test_garbage_after_health_came_back_is_not_ready),
    };

    return RUN(tests);
}
