/*
 * How engines become ready, and how bad ones are refused: at once, or by their
 * deeds.  Real processes: the fake engine, and shell commands that are no engines.
 */
#include <dirent.h>

#include "fleet_world.h"

/* --- good starts --- */

static void test_ready_on_a_socket(void **state)
{
    struct replica *r = add(FAKE((char *)"--answer", (char *)" I am {name}\n"), true);

    assert_int_equal(replica_state(r), REPLICA_STARTING);
    assert_string_equal(replica_name(r), "m@v1#0");
    until(r, REPLICA_READY);
    history_is("asking ready ");
    assert_string_equal(replica_answer(r), "I am m@v1");
    assert_string_equal(replica_reason(r), "");
    assert_int_equal(strncmp(replica_address(r), "unix:", 5), 0);
    assert_int_equal(replica_slot(r), 0);
    pid_t pid = replica_pid(r);
    assert_true(runs(pid));

    json_t *facts = replica_json(r);
    assert_string_equal(json_string_value(json_object_get(facts, "state")), "ready");
    assert_true(json_integer_value(json_object_get(facts, "rss_bytes")) > 1000000);
    assert_int_equal(json_integer_value(json_object_get(facts, "pid")), pid);
    json_decref(facts);

    drop(r);
    history_is("stopping gone ");
    assert_false(runs(pid));
}

static void test_ready_on_a_port(void **state)
{
    struct replica *r = add(COMMAND((char *)ENGINE, (char *)"--listen", (char *)"{port}",
                                    (char *)"--name", (char *)"m@v1"),
                            true);

    until(r, REPLICA_READY);
    assert_int_equal(strncmp(replica_address(r), "127.0.0.1:", 10), 0);
    drop(r);
}

static void test_the_engine_has_its_own_session_and_no_other_descriptors(void **state)
{
    int leak = open("/dev/null", O_RDONLY); /* not close-on-exec, as a careless parent leaves it */
    struct replica *r = add(FAKE((char *)"--answer", (char *)"hi"), true);
    struct proc p;
    char path[64], name[128];
    ssize_t n;

    until(r, REPLICA_READY);
    assert_true(proc_read(replica_pid(r), &p));
    assert_int_equal(p.session, p.pid);
    assert_int_equal(p.group, p.pid);
    assert_true(leak > 2);
    snprintf(path, sizeof(path), "/proc/%d/fd/0", (int)p.pid);
    n = readlink(path, name, sizeof(name) - 1);
    assert_int_equal(n, strlen("/dev/null"));
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)p.pid);
    DIR *d = opendir(path);
    for (struct dirent *e; (e = readdir(d));) {
        n = readlinkat(dirfd(d), e->d_name, name, sizeof(name) - 1);
        name[n > 0 ? n : 0] = '\0';
        if (atoi(e->d_name) > 2 && strcmp(name, "/dev/null") == 0)
            fail_msg("descriptor %s is ours", e->d_name);
        assert_null(strstr(name, "segue.db"));
    }
    closedir(d);
    close(leak);
}

static void test_loading_is_waited_for(void **state)
{
    struct replica *r = add(FAKE((char *)"--loading", (char *)"0.6"), true);

    loop_until(&t.loop, strstr(r->detail, "503"));
    assert_int_equal(replica_state(r), REPLICA_STARTING);
    until(r, REPLICA_READY);
}

static void test_not_yet_is_asked_again(void **state)
{
    struct replica *r =
        add(FAKE((char *)"--mode", (char *)"503", (char *)"--times", (char *)"3"), true);

    until(r, REPLICA_READY);
    history_is("asking ready ");
}

static void test_engines_without_lists_and_health(void **state)
{
    struct replica *r =
        add(FAKE((char *)"--health", (char *)"404", (char *)"--answer", (char *)"ok"), true);

    until(r, REPLICA_READY);
    drop(r);
    r = add(FAKE((char *)"--models", (char *)"404"), true);
    until(r, REPLICA_READY);
}

/* --- starts that are refused at once --- */

static char *spoil_model(const char *name, const char *from, off_t size)
{
    char *path = str_fmt("%s/%s", t.folder, name);
    char *command =
        str_fmt("cp '%s' '%s' && truncate -s %lld '%s'", from, path, (long long)size, path);

    assert_int_equal(system(command), 0);
    free(command);
    return path;
}

static void test_bad_starts_are_refused(void **state)
{
    struct config_version builtin = {.name = (char *)"v1",
                                     .engine = CONFIG_ENGINE_BUILTIN,
                                     .served_model_name = (char *)"m@v1",
                                     .parallel = 1,
                                     .ctx_size = 64};
    char *model = (char *)SOURCE_ROOT "/tests/../models/tiny-mt-v1.gguf";

    t.config.engine_program = (char *)"/bin/true";
    builtin.path = (char *)"/nowhere/model.gguf";
    refuses(builtin, "cannot open the model file /nowhere/model.gguf: No such file");
    assert_int_equal(t.err.status, 404);
    builtin.path = (char *)"/dev/zero";
    refuses(builtin, "is not a regular file");
    builtin.path = (char *)ENGINE;
    refuses(builtin, "is not a GGUF model");
    builtin.path = spoil_model("empty.gguf", model, 0);
    refuses(builtin, "is not a GGUF model (it has 0 bytes");
    free(builtin.path);
    builtin.path = spoil_model("head.gguf", model, 20);
    refuses(builtin, "cut off after 20 bytes, inside its header");
    free(builtin.path);
    builtin.path = spoil_model("keys.gguf", model, 10000);
    refuses(builtin, "its header does not end within 10000 bytes");
    free(builtin.path);
    builtin.path = spoil_model("tensors.gguf", model, 4000000);
    refuses(builtin, "cut off: its tensors need 4086944 bytes, it has 4000000");
    free(builtin.path);
    builtin.path = model;
    t.config.engine_program = (char *)"/nowhere/segue-engine";
    refuses(builtin, "cannot execute /nowhere/segue-engine: No such file or directory");
    t.config.engine_program = (char *)"/tmp";
    refuses(builtin, "cannot execute /tmp");

    refuses(COMMAND((char *)"no-such-program-at-all", (char *)"{port}"),
            "cannot execute no-such-program-at-all: it is not on PATH (setting: `run`)");
    refuses(COMMAND((char *)"/bin/true"), "names neither {port} nor {socket}");
    struct config_version llama = {.name = (char *)"v1",
                                   .engine = CONFIG_ENGINE_LLAMA_SERVER,
                                   .served_model_name = (char *)"m@v1",
                                   .program = (char *)"/nowhere/llama-server",
                                   .path = model};
    refuses(llama, "setting: `program`");
    /* An interpreter that is not there is known from exec alone. */
    char *script = str_fmt("%s/script", t.folder);
    FILE *f = fopen(script, "we");
    fputs("#!/nowhere/interpreter\n", f);
    fchmod(fileno(f), 0755);
    fclose(f);
    refuses(COMMAND(script, (char *)"{port}"), "cannot execute /tmp/segue-fleet-");
    free(script);
    assert_int_equal(buf_pending(&t.history), 0);
    assert_true(list_empty(&t.fleet->replicas) || t.fleet->members > 0);
}

static void test_long_state_folder_is_named(void **state)
{
    char folder[160];

    snprintf(folder, sizeof(folder), "%s/%0100d", t.folder, 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    t.config.state = folder;
    refuses(FAKE((char *)"--times", (char *)"1"), "the kernel takes 107: set `state` (now /tmp/");
    t.config.state = t.folder;
}

static void test_a_name_is_taken_once(void **state)
{
    struct config_version v = SHELL("sleep 100");

    add(v, false);
    refuses(v, "m@v1#0 is there already (starting)");
    assert_int_equal(t.err.status, 409);
}

/* --- starts that fail --- */

static void test_exit_at_first_start_is_final(void **state)
{
    struct replica *r = add(SHELL("echo one; echo two >&2; echo three; echo four; exit 7"), true);

    until(r, REPLICA_FAILED);
    history_is("failed ");
    reason_has(r, "ended with exit status 7 after 0.");
    reason_has(r, "its last words: two | three | four");
    assert_int_equal(replica_pid(r), 0);
    char *tail = fleet_log_tail(t.fleet, "m@v1#0", 2, &t.err);
    assert_string_equal(tail, "three\nfour\n");
    free(tail);
    drop(r);
    tail = fleet_log_tail(t.fleet, "m@v1#0", 1, &t.err); /* also when it is gone */
    assert_string_equal(tail, "four\n");
    free(tail);
    assert_null(fleet_log_tail(t.fleet, "m@v9#0", 1, &t.err));
    assert_int_equal(t.err.status, 404);
    assert_null(fleet_log_tail(t.fleet, "../../etc/passwd", 1, &t.err));
    assert_int_equal(t.err.status, 400);
}

static void test_signals_are_named(void **state)
{
    struct replica *r = add(SHELL("kill -9 $$"), true);

    until(r, REPLICA_FAILED);
    reason_has(r, "was killed by signal 9 (Killed), which we did not send: possibly out of memory");
    reason_has(r, "it wrote nothing");
    drop(r);
    r = add(SHELL("kill -SEGV $$"), true);
    until(r, REPLICA_FAILED);
    reason_has(r, "was killed by signal 11 (Segmentation fault)");
}

static void test_bad_answers_are_refused(void **state)
{
    static const struct {
        const char *mode, *reason;
    } cases[] = {
        {"500", "the known question was answered with status 500: {\"error\""},
        {"empty", "the answer to the known question is empty"},
        {"repeat", "one character repeated: \"!!!!!!!!\""},
        {"half-json", "is not whole JSON"},
        {"not-json", "is not whole JSON"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct replica *r = add(FAKE((char *)"--mode", (char *)cases[i].mode), true);
        pid_t pid = replica_pid(r);

        until(r, REPLICA_FAILED);
        history_is("asking failed ");
        reason_has(r, cases[i].reason);
        loop_until(&t.loop, replica_pid(r) == 0); /* its memory is given back without being asked */
        assert_false(runs(pid));
        drop(r);
        buf_clear(&t.history);
    }
}

static void test_silence_at_the_question_is_an_answer(void **state)
{
    t.model.ready.timeout_ms = 300;
    struct replica *r = add(FAKE((char *)"--mode", (char *)"hang"), true);

    until(r, REPLICA_FAILED);
    reason_has(r, "the known question was not answered within 300 ms (`ready.timeout`)");
}

static void test_expectation(void **state)
{
    t.model.ready.expect = (char *)"hel+o.*WORLD";
    struct replica *r = add(FAKE((char *)"--answer", (char *)"Hello, world"), true);
    until(r, REPLICA_READY);
    drop(r);
    r = add(FAKE((char *)"--answer", (char *)"Guten Tag"), true);
    until(r, REPLICA_FAILED);
    reason_has(r, "is \"Guten Tag\", which does not match \"hel+o.*WORLD\" (`ready.expect`)");
}

static void test_wrong_model_is_refused(void **state)
{
    struct replica *r = add(COMMAND((char *)ENGINE, (char *)"--listen", (char *)"unix:{socket}",
                                    (char *)"--name", (char *)"llama,qwen"),
                            true);

    until(r, REPLICA_FAILED);
    reason_has(r, "it serves 'llama', 'qwen', not 'm@v1'");
}

static void test_start_timeout(void **state)
{
    t.model.ready.start_timeout_ms = 300;
    struct replica *r = add(SHELL("sleep 100"), true);

    until(r, REPLICA_FAILED);
    reason_has(r, "it was not ready within 300 ms (`ready.start_timeout`)");
}

static void test_stranger_on_the_port(void **state)
{
    /* The engine leaves its port to a process that is not its own. */
    char *script = str_fmt("setsid setsid sh -c 'exec " ENGINE " --listen {port} --name m@v1 "
                           "--exit-after 8' & sleep 100");
    struct replica *r = add(COMMAND((char *)"/bin/sh", (char *)"-c", script), true);

    until(r, REPLICA_FAILED);
    reason_has(r, "not to the engine that was started for it");
    reason_has(r, "belongs to process ");
    free(script);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ready_on_a_socket),
        TEST(test_ready_on_a_port),
        TEST(test_the_engine_has_its_own_session_and_no_other_descriptors),
        TEST(test_loading_is_waited_for),
        TEST(test_not_yet_is_asked_again),
        TEST(test_engines_without_lists_and_health),
        TEST(test_bad_starts_are_refused),
        TEST(test_long_state_folder_is_named),
        TEST(test_a_name_is_taken_once),
        TEST(test_exit_at_first_start_is_final),
        TEST(test_signals_are_named),
        TEST(test_bad_answers_are_refused),
        TEST(test_silence_at_the_question_is_an_answer),
        TEST(test_expectation),
        TEST(test_wrong_model_is_refused),
        TEST(test_start_timeout),
        TEST(test_stranger_on_the_port),
    };

    return RUN(tests);
}
