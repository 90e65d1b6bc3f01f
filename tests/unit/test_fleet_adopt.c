/*
 * What a new manager finds: engines of its predecessor, what is left of them,
 * and engines that are somebody else's.
 */
#include <sys/prctl.h>

#include "fleet_world.h"

/* --- the manager's restart --- */

static void count_engine(const struct store_engine *e, void *arg)
{
    (*(int *)arg)++;
}

static int rows(void)
{
    int n = 0;

    assert_int_equal(store_engines(t.store, count_engine, &n, &t.err), 0);
    return n;
}

static void adopt(void)
{
    if (fleet_adopt(t.fleet, &t.err) != 0)
        fail_msg("%s", t.err.text);
}

static void test_adoption(void **state)
{
    struct config_version v = FAKE((char *)"--answer", (char *)"still {name}");
    struct replica *filler = add_index(&v, 9, false), *r;

    until(filler, REPLICA_READY);
    r = add_index(&v, 0, false);
    until(r, REPLICA_READY);
    pid_t pid = replica_pid(r);
    int slot = replica_slot(r);
    char *address = str_dup(replica_address(r));
    drop(filler);
    assert_int_equal(slot, 1);
    buf_clear(&t.history);
    close_fleet(false);
    history_is("");
    assert_true(runs(pid));

    open_fleet();
    adopt();
    r = add_index(&v, 0, false);
    fleet_adopt_end(t.fleet);
    assert_int_equal(replica_pid(r), pid);
    assert_int_equal(replica_slot(r), slot);
    assert_string_equal(replica_address(r), address);
    until(r, REPLICA_READY);
    history_is("asking ready ");
    assert_string_equal(replica_answer(r), "still m@v1");
    assert_int_equal(r->restarts, 0);

    /* Its death is noticed, and it can be dropped like any other. */
    kill(pid, SIGKILL);
    until(r, REPLICA_DOWN);
    until(r, REPLICA_READY);
    drop(r);
    assert_int_equal(rows(), 0);
    free(address);
}

static void test_adopted_on_a_port(void **state)
{
    struct config_version v = COMMAND((char *)ENGINE, (char *)"--listen", (char *)"{port}",
                                      (char *)"--name", (char *)"m@v1");
    struct replica *r = add(v, false);
    until(r, REPLICA_READY);
    pid_t pid = replica_pid(r);
    close_fleet(false);
    open_fleet();
    adopt();
    r = add(v, false);
    assert_int_equal(replica_pid(r), pid); /* although a new start would get another port */
    until(r, REPLICA_READY);
    drop(r);
    assert_false(runs(pid));
}

static void test_other_command_line_is_not_adopted(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"old"), false);
    until(r, REPLICA_READY);
    pid_t pid = replica_pid(r);
    close_fleet(false);
    open_fleet();
    adopt();
    r = add(FAKE((char *)"--answer", (char *)"new"), false);
    fleet_adopt_end(t.fleet);
    until(r, REPLICA_READY);
    assert_int_not_equal(replica_pid(r), pid);
    assert_false(runs(pid));
    assert_string_equal(replica_answer(r), "new");
}

static void test_engines_that_nobody_wants_end(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)"old"), false);
    until(r, REPLICA_READY);
    pid_t pid = replica_pid(r);
    close_fleet(false);
    open_fleet();
    adopt();
    assert_true(runs(pid));
    fleet_adopt_end(t.fleet);
    loop_until(&t.loop, list_empty(&t.fleet->orphans));
    assert_false(runs(pid));
    assert_int_equal(rows(), 0);
}

static void test_dead_engines_are_not_adopted(void **state)
{
    struct config_version v = FAKE((char *)"--children", (char *)"1");
    struct replica *r = add(v, false);
    pid_t child[1];
    int status;

    until(r, REPLICA_READY);
    pid_t pid = replica_pid(r);
    assert_int_equal(proc_members(pid, true, child, 1), 1);
    close_fleet(false);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(runs(child[0]));
    open_fleet();
    adopt();
    loop_until(&t.loop, !runs(child[0])); /* what it left behind is ended */
    r = add(v, false);
    assert_int_not_equal(replica_pid(r), pid);
    assert_int_equal(replica_slot(r), 0);
    until(r, REPLICA_READY);
}

/* Another process is the manager: it starts an engine, says its pid, and is killed. */
static pid_t manager_that_dies(struct config_version v, bool with_row)
{
    int fds[2], status;
    pid_t engine = 0;

    close_fleet(true);
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0); /* init inherits what it leaves */
    assert_int_equal(pipe(fds), 0);
    pid_t manager = fork();
    if (manager == 0) {
        uv_loop_fork(&t.loop);
        open_fleet();
        struct replica *r = add(v, false);
        until(r, REPLICA_READY);
        engine = replica_pid(r);
        if (!with_row && store_engine_delete(t.store, "m@v1#0", &t.err) != 0)
            _exit(1);
        if (write(fds[1], &engine, sizeof(engine)) != sizeof(engine))
            _exit(1);
        pause();
    }
    close(fds[1]);
    assert_int_equal(read(fds[0], &engine, sizeof(engine)), sizeof(engine));
    close(fds[0]);
    kill(manager, SIGKILL);
    assert_int_equal(waitpid(manager, &status, 0), manager);
    assert_true(runs(engine));
    buf_clear(&t.history);
    open_fleet();
    adopt();
    return engine;
}

static void test_engine_of_a_killed_manager(void **state)
{
    struct config_version v = FAKE((char *)"--children", (char *)"1");
    pid_t engine = manager_that_dies(v, true);
    struct replica *r = add(v, false);
    fleet_adopt_end(t.fleet);

    until(r, REPLICA_READY);
    assert_int_equal(replica_pid(r), engine);
    history_is("asking ready ");

    /* Not our child: the end is noticed, its status cannot be known. */
    kill(engine, SIGKILL);
    until(r, REPLICA_DOWN);
    reason_has(r, "an earlier manager's child: its exit status is unknown");
    until(r, REPLICA_READY);
}

static void test_engine_that_no_row_knows_is_ended(void **state)
{
    struct config_version v = FAKE((char *)"--children", (char *)"1");
    pid_t engine = manager_that_dies(v, false);
    struct replica *r = add(v, false);

    assert_int_equal(replica_pid(r), 0); /* never two of one name */
    until(r, REPLICA_READY);
    assert_false(runs(engine));
    assert_int_equal(rows(), 1);
}

static void test_a_pid_used_again_is_left_alone(void **state)
{
    pid_t innocent = fork();

    if (innocent == 0) {
        setsid();
        execl("/bin/sleep", "sleep", "1000", NULL);
        _exit(1);
    }
    struct store_engine e = {"m@v1#0", innocent, 1, "unix:/x", 4, "sleep", "/nowhere"};
    assert_int_equal(store_engine_put(t.store, &e, &t.err), 0);
    adopt();
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), false);
    fleet_adopt_end(t.fleet);
    assert_int_equal(replica_slot(r), 4); /* the name keeps its counters */
    until(r, REPLICA_READY);
    assert_true(runs(innocent));
    kill(innocent, SIGKILL);
    waitpid(innocent, NULL, 0);
}

static void test_closing_ends_everything(void **state)
{
    struct config_version v = FAKE((char *)"--answer", (char *)"hi");
    struct replica *a = add_index(&v, 0, false);
    struct replica *b = add_index(&v, 1, false);
    pid_t pid = replica_pid(a);

    until(a, REPLICA_READY);
    (void)b;
    fleet_close(t.fleet, true, on_closed, NULL);
    assert_null(fleet_add(t.fleet, &t.model, &v, 2, false, &t.err));
    assert_int_equal(t.err.status, 503);
    loop_until(&t.loop, t.closed);
    assert_false(runs(pid));
    assert_int_equal(t.gone, 2);
    assert_int_equal(rows(), 0);
    store_close(t.store);
    t.store = NULL;
    t.fleet = NULL;
}

/* --- engines of others --- */

static struct config_version elsewhere(const char *url)
{
    return (struct config_version){.name = (char *)"v1",
                                   .engine = CONFIG_ENGINE_OPENAI,
                                   .url = (char *)url,
                                   .served_model_name = (char *)"theirs"};
}

static pid_t start_theirs(const char *url, const char *name)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl(ENGINE, ENGINE, "--listen", url, "--name", name, "--health", "404", NULL);
        _exit(1);
    }
    return pid;
}

static void end_theirs(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_openai(void **state)
{
    char *url = str_fmt("unix:%s/theirs.sock", t.folder);
    struct replica *r = add(elsewhere(url), false);

    until(r, REPLICA_DOWN);
    assert_int_equal(replica_pid(r), 0);
    pid_t pid = start_theirs(url, "theirs");
    until(r, REPLICA_READY);
    history_is("down asking ready ");
    assert_string_equal(replica_address(r), url);
    assert_string_equal(replica_serve_as(r), "theirs");

    /* Another model in its place is noticed on the way back. */
    end_theirs(pid);
    until(r, REPLICA_DOWN);
    pid = start_theirs(url, "not-theirs");
    until(r, REPLICA_ASKING);
    until(r, REPLICA_DOWN);
    reason_has(r, "it serves 'not-theirs', not 'theirs'");
    end_theirs(pid);
    pid = start_theirs(url, "theirs");
    until(r, REPLICA_READY);

    /* The slot is kept for the next manager: requests are counted there. */
    int slot = replica_slot(r);
    close_fleet(false);
    open_fleet();
    adopt();
    struct config_version other = FAKE((char *)"--name", (char *)"m@v1");
    other.name = (char *)"v2";
    struct replica *b = add(other, false);
    assert_int_not_equal(replica_slot(b), slot);
    r = add(elsewhere(url), false);
    assert_int_equal(replica_slot(r), slot);
    until(r, REPLICA_READY);
    drop(r);
    assert_true(runs(pid));
    end_theirs(pid);
    free(url);
}

static void test_openai_deploy_fails_for_the_wrong_model(void **state)
{
    char *url = str_fmt("unix:%s/theirs.sock", t.folder);
    pid_t pid = start_theirs(url, "other");
    struct replica *r = add(elsewhere(url), true);

    until(r, REPLICA_FAILED);
    reason_has(r, "it serves 'other', not 'theirs'");
    end_theirs(pid);
    free(url);
    refuses(elsewhere("ftp://x"), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_adoption),
        TEST(test_adopted_on_a_port),
        TEST(test_other_command_line_is_not_adopted),
        TEST(test_engines_that_nobody_wants_end),
        TEST(test_dead_engines_are_not_adopted),
        TEST(test_engine_of_a_killed_manager),
        TEST(test_engine_that_no_row_knows_is_ended),
        TEST(test_a_pid_used_again_is_left_alone),
        TEST(test_closing_ends_everything),
        TEST(test_openai),
        TEST(test_openai_deploy_fails_for_the_wrong_model),
    };

    return RUN(tests);
}
