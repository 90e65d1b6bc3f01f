/*
 * The store: what is written comes back, also after a SIGKILL, and a file that
 * cannot be used is set aside, never overwritten.
 */
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "store/internal.h"
#include "store/store.h"

static struct {
    char folder[64];
    char file[96];
    struct store *store;
    struct err err;
} t;

static void open_store(void)
{
    char *notice;

    t.store = store_open(t.folder, &notice, &t.err);
    if (!t.store)
        fail_msg("%s", t.err.text);
    assert_null(notice);
}

static void reopen(void)
{
    store_close(t.store);
    open_store();
}

static int folder_make(void **state)
{
    strcpy(t.folder, "/tmp/segue-store-XXXXXX");
    assert_non_null(mkdtemp(t.folder));
    snprintf(t.file, sizeof(t.file), "%s/segue.db", t.folder);
    t.store = NULL;
    return 0;
}

static int folder_remove(void **state)
{
    glob_t found;
    char pattern[96];

    store_close(t.store);
    snprintf(pattern, sizeof(pattern), "%s/*", t.folder);
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            unlink(found.gl_pathv[i]);
        globfree(&found);
    }
    return rmdir(t.folder);
}

static int store_make(void **state)
{
    folder_make(state);
    open_store();
    return 0;
}

#define OK(call)                        \
    do {                                \
        if ((call) != 0)                \
            fail_msg("%s", t.err.text); \
    } while (0)

/* --- versions --- */

static struct {
    int n;
    char names[8][32];
    struct config_version last; /* a copy */
    char sha256[80];
} seen;

static void see_version(const struct config_version *v, const char *sha256, void *arg)
{
    struct store *again = arg;

    snprintf(seen.names[seen.n++], sizeof(seen.names[0]), "%s", v->name);
    config_version_fini(&seen.last);
    config_version_copy(&seen.last, v);
    snprintf(seen.sha256, sizeof(seen.sha256), "%s", sha256 ? sha256 : "");
    if (again) /* a callback may use the store, with the same statement too */
        assert_int_equal(store_version_delete(again, "m", v->name, NULL), 0);
}

static void see_forget(void)
{
    config_version_fini(&seen.last);
    memset(&seen, 0, sizeof(seen));
}

static void test_versions(void **state)
{
    char *run[] = {"/bin/engine", "--port", "{port}", "with \"quotes\"", "", NULL};
    char *args[] = {NULL};
    struct config_version plain = {.name = "v1",
                                   .engine = CONFIG_ENGINE_BUILTIN,
                                   .path = "/models/a.gguf",
                                   .served_model_name = "m@v1",
                                   .threads = 3,
                                   .parallel = 16,
                                   .ctx_size = 1024,
                                   .replicas = 2};
    struct config_version words = {.name = "a0",
                                   .engine = CONFIG_ENGINE_COMMAND,
                                   .served_model_name = "翻译",
                                   .run = run,
                                   .args = args,
                                   .replicas = 1};

    OK(store_version_put(t.store, "m", &plain, "abc", &t.err));
    OK(store_version_put(t.store, "m", &words, NULL, &t.err));
    OK(store_version_put(t.store, "other", &plain, NULL, &t.err));
    reopen();
    OK(store_versions(t.store, "m", see_version, NULL, &t.err));
    assert_int_equal(seen.n, 2);
    assert_string_equal(seen.names[0], "v1"); /* oldest first, not by name */
    assert_string_equal(seen.names[1], "a0");
    assert_int_equal(seen.last.engine, CONFIG_ENGINE_COMMAND);
    assert_string_equal(seen.last.served_model_name, "翻译");
    assert_string_equal(seen.last.run[3], "with \"quotes\"");
    assert_string_equal(seen.last.run[4], "");
    assert_null(seen.last.run[5]);
    assert_null(seen.last.path);
    assert_string_equal(seen.sha256, "");
    see_forget();

    plain.parallel = 4; /* put again: changed, in its old place */
    OK(store_version_put(t.store, "m", &plain, "def", &t.err));
    OK(store_version_delete(t.store, "m", "a0", &t.err));
    OK(store_versions(t.store, "m", see_version, t.store, &t.err));
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.last.parallel, 4);
    assert_int_equal(seen.last.threads, 3);
    assert_int_equal(seen.last.ctx_size, 1024);
    assert_int_equal(seen.last.replicas, 2);
    assert_string_equal(seen.last.path, "/models/a.gguf");
    assert_string_equal(seen.sha256, "def");
    see_forget();
    OK(store_versions(t.store, "m", see_version, NULL, &t.err));
    assert_int_equal(seen.n, 0);
    see_forget();
}

/* --- routes --- */

static void test_routes(void **state)
{
    char *serving, *previous;
    uint64_t epoch = 99;

    assert_int_equal(store_route_get(t.store, "m", &serving, &previous, &t.err), 0);
    assert_null(serving);
    OK(store_epoch(t.store, &epoch, &t.err));
    assert_int_equal(epoch, 0);

    OK(store_route_put(t.store, "m", "v1", NULL, 7, &t.err));
    OK(store_route_put(t.store, "n", "x", "y", 5, &t.err));
    reopen();
    assert_int_equal(store_route_get(t.store, "m", &serving, &previous, &t.err), 1);
    assert_string_equal(serving, "v1");
    assert_null(previous);
    free(serving);

    /* Names are data, whatever is in them. */
    OK(store_route_put(t.store, "m", "v2'; DROP TABLE route; --", "v1", 6, &t.err));
    assert_int_equal(store_route_get(t.store, "m", &serving, &previous, &t.err), 1);
    assert_string_equal(serving, "v2'; DROP TABLE route; --");
    assert_string_equal(previous, "v1");
    free(serving);
    free(previous);
    OK(store_epoch(t.store, &epoch, &t.err));
    assert_int_equal(epoch, 7); /* never goes back */
}

/* --- engines --- */

static void see_engine(const struct store_engine *e, void *arg)
{
    char **out = arg;
    char *old = *out;

    *out = str_fmt("%s[%s %lld %llu %s %d %s %s]", old ? old : "", e->replica, (long long)e->pid,
                   (unsigned long long)e->start_time, e->address, e->slot, e->command, e->log_file);
    free(old);
}

static void test_engines(void **state)
{
    struct store_engine e = {"m@v1#0", 4711, 1234567890123ull, "unix:/s", 3, "engine --x", "/l"};
    char *text = NULL;

    OK(store_engine_put(t.store, &e, &t.err));
    e.replica = "m@v1#1";
    OK(store_engine_put(t.store, &e, &t.err));
    e.pid = 4712;
    OK(store_engine_put(t.store, &e, &t.err));
    OK(store_engine_delete(t.store, "m@v1#0", &t.err));
    OK(store_engine_delete(t.store, "never was", &t.err));
    reopen();
    OK(store_engines(t.store, see_engine, &text, &t.err));
    assert_string_equal(text, "[m@v1#1 4712 1234567890123 unix:/s 3 engine --x /l]");
    free(text);
}

/* --- rollouts --- */

static void see_rollout(int64_t id, const char *model, const char *from, const char *to,
                        const char *kind, const char *rollout_state, void *arg)
{
    char **out = arg;
    char *old = *out;

    *out = str_fmt("%s[%lld %s %s>%s %s %s]", old ? old : "", (long long)id, model,
                   from ? from : "-", to, kind, rollout_state);
    free(old);
}

static void test_rollouts(void **state)
{
    int64_t a, b, c;
    char *text = NULL;
    json_t *facts = json_pack("{s:i}", "epoch", 7);

    OK(store_rollout_begin(t.store, "m", NULL, "v1", "deploy", &a, &t.err));
    OK(store_rollout_begin(t.store, "m", "v1", "v2", "deploy", &b, &t.err));
    OK(store_rollout_begin(t.store, "n", "v1", "v2", "switch", &c, &t.err));
    assert_true(a == 1 && b == 2 && c == 3);
    OK(store_rollout_step(t.store, a, "starting", NULL, &t.err));
    OK(store_rollout_step(t.store, a, "done", NULL, &t.err));
    OK(store_rollout_step(t.store, b, "switching", facts, &t.err));
    json_decref(facts);
    reopen();
    OK(store_rollouts_open(t.store, see_rollout, &text, &t.err));
    assert_string_equal(text, "[2 m v1>v2 deploy switching][3 n v1>v2 switch begun]");
    free(text);
    text = NULL;
    OK(store_rollout_step(t.store, b, "rolled back", NULL, &t.err));
    OK(store_rollout_step(t.store, c, "failed", NULL, &t.err));
    OK(store_rollouts_open(t.store, see_rollout, &text, &t.err));
    assert_null(text);

    /* A step of nothing is refused, and the store is usable afterwards. */
    assert_int_equal(store_rollout_step(t.store, 99, "starting", NULL, &t.err), -1);
    assert_non_null(strstr(t.err.text, "cannot keep the rollout's step in /tmp/segue-store-"));

    json_t *all = store_rollouts_json(t.store, "m", 10, &t.err);
    assert_int_equal(json_array_size(all), 2);
    json_t *first = json_array_get(all, 0);
    assert_int_equal(json_integer_value(json_object_get(first, "id")), 2);
    json_t *steps = json_object_get(first, "steps");
    assert_int_equal(json_array_size(steps), 2);
    json_t *step = json_array_get(steps, 0);
    assert_string_equal(json_string_value(json_object_get(step, "state")), "switching");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(step, "facts"), "epoch")),
                     7);
    assert_true(json_is_null(json_object_get(json_array_get(all, 1), "from")));
    json_decref(all);
    all = store_rollouts_json(t.store, NULL, 1, &t.err);
    assert_int_equal(json_array_size(all), 1);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(all, 0), "id")), 3);
    json_decref(all);
}

/* --- receipts --- */

static void put_receipt(const char *model, int requests, int64_t number)
{
    json_t *receipt =
        json_pack("{s:s, s:i, s:f}", "model", model, "requests", requests, "share", 0.1);
    int64_t got;

    OK(store_receipt_put(t.store, model, receipt, &got, &t.err));
    assert_int_equal(got, number);
    assert_null(json_object_get(receipt, "number")); /* the caller's object is left alone */
    json_decref(receipt);
}

static const char *member(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static void sql(const char *text)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(t.file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void test_receipts(void **state)
{
    assert_null(store_receipt_get(t.store, NULL, 0, &t.err));
    assert_int_equal(t.err.status, 404);
    assert_string_equal(t.err.text, "there is no receipt yet");
    put_receipt("m", 10, 1);
    put_receipt("n", 20, 2);
    put_receipt("m", 30, 3);
    reopen();
    json_t *r = store_receipt_get(t.store, "m", 0, &t.err);
    assert_int_equal(json_integer_value(json_object_get(r, "requests")), 30);
    assert_int_equal(json_integer_value(json_object_get(r, "number")), 3);
    json_t *before = store_receipt_get(t.store, NULL, 2, &t.err);
    assert_string_equal(member(r, "previous_hash"), member(before, "hash"));
    assert_int_equal(strlen(member(r, "hash")), 64);
    json_decref(before);
    json_decref(r);
    r = store_receipt_get(t.store, "n", 0, &t.err);
    assert_int_equal(json_integer_value(json_object_get(r, "number")), 2);
    json_decref(r);
    assert_null(store_receipt_get(t.store, "n", 3, &t.err));
    assert_string_equal(t.err.text, "there is no receipt 3 of model n");

    OK(store_receipts_check(t.store, &t.err));
    sql("UPDATE receipt SET text = replace(text, '20', '21') WHERE number = 2");
    assert_int_equal(store_receipts_check(t.store, &t.err), -1);
    assert_non_null(strstr(t.err.text, "broken at number 2"));
    sql("DELETE FROM receipt WHERE number = 2");
    assert_int_equal(store_receipts_check(t.store, &t.err), -1);
    assert_non_null(strstr(t.err.text, "broken at number 3"));
}

/* Computed by `printf '%s' '{"a":1,"number":1}' | sha256sum`. */
static void test_receipt_hash_is_plain_sha256(void **state)
{
    json_t *receipt = json_pack("{s:i}", "a", 1);
    int64_t number;

    OK(store_receipt_put(t.store, "m", receipt, &number, &t.err));
    json_decref(receipt);
    receipt = store_receipt_get(t.store, "m", 1, &t.err);
    assert_string_equal(member(receipt, "hash"),
                        "8cb97ca77f0b33eb9e6e63eec0c623aa66f0eef46b54566d069730dcb490a2b9");
    assert_string_equal(member(receipt, "previous_hash"), "");
    json_decref(receipt);
}

/* --- files that cannot be used --- */

static void write_at(off_t offset, const void *bytes, size_t n)
{
    int fd = open(t.file, O_WRONLY | O_CREAT, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, offset), n);
    close(fd);
}

static void zero_file(void)
{
    struct stat st;

    assert_int_equal(stat(t.file, &st), 0);
    char *zeros = mem_zero((size_t)st.st_size);
    write_at(0, zeros, (size_t)st.st_size);
    free(zeros);
}

static void cut_to_nothing(void)
{
    assert_int_equal(truncate(t.file, 0), 0);
}

static void cut_in_half(void)
{
    struct stat st;

    assert_int_equal(stat(t.file, &st), 0);
    assert_int_equal(truncate(t.file, st.st_size / 2), 0);
}

static void other_text(void)
{
    write_at(0, "this is not a database at all, just some words", 46);
}

static void newer_schema(void)
{
    sql("PRAGMA user_version = 1000");
}

static void other_program(void)
{
    sql("PRAGMA application_id = 5");
}

static void lost_table(void)
{
    sql("DROP TABLE receipt");
}

static const struct {
    void (*spoil)(void);
    const char *says;
} spoilt[] = {
    {zero_file, "file is not a database"},
    {cut_to_nothing, "it is empty"},
    {cut_in_half, "database disk image is malformed"},
    {other_text, "file is not a database"},
    {newer_schema, "it is from a newer segue (schema 1000; this one knows up to 2)"},
    {other_program, "it is a database of another program (application_id 5)"},
    {lost_table, "no such table"},
};

static void test_spoilt_files_are_set_aside(void **state)
{
    for (size_t i = 0; i < COUNT_OF(spoilt); i++) {
        char *notice, *serving, *previous;
        char pattern[128];
        glob_t found;

        folder_make(state);
        open_store();
        OK(store_route_put(t.store, "m", "v1", NULL, 1, &t.err));
        store_close(t.store);
        spoilt[i].spoil();
        t.store = store_open(t.folder, &notice, &t.err);
        if (!t.store)
            fail_msg("case %zu: %s", i, t.err.text);
        if (!notice || !strstr(notice, spoilt[i].says))
            fail_msg("case %zu: notice is %s", i, notice ? notice : "(none)");
        assert_non_null(strstr(notice, "segue.db.bad-"));
        free(notice);
        assert_int_equal(store_route_get(t.store, "m", &serving, &previous, &t.err), 0);
        OK(store_route_put(t.store, "m", "v1", NULL, 1, &t.err)); /* the new one works */
        snprintf(pattern, sizeof(pattern), "%s/segue.db.bad-*Z", t.folder);
        assert_int_equal(glob(pattern, 0, NULL, &found), 0);
        assert_int_equal(found.gl_pathc, 1);
        globfree(&found);
        reopen(); /* without a notice */
        assert_int_equal(folder_remove(state), 0);
        t.store = NULL;
    }
}

static void test_no_folder_is_an_error(void **state)
{
    char *notice;

    assert_null(store_open("/tmp/segue-no-such-folder", &notice, &t.err));
    assert_null(notice);
    assert_non_null(strstr(t.err.text, "cannot open /tmp/segue-no-such-folder/segue.db"));
    assert_non_null(strstr(t.err.text, "`state` names its folder"));
}

static void test_folder_in_the_place_of_the_file_is_an_error(void **state)
{
    char *notice;

    assert_int_equal(mkdir(t.file, 0700), 0);
    assert_null(store_open(t.folder, &notice, &t.err));
    assert_null(notice);
    assert_int_equal(rmdir(t.file), 0);
}

/* --- groups --- */

static void test_groups_are_whole_or_nothing(void **state)
{
    char *serving, *previous;
    json_t *receipt = json_pack("{s:i}", "a", 1);
    int64_t id, number;

    OK(store_group_begin(t.store, &t.err));
    OK(store_rollout_begin(t.store, "m", "v1", "v2", "deploy", &id, &t.err));
    OK(store_rollout_step(t.store, id, "done", NULL,
                          &t.err)); /* has a transaction of its own else */
    OK(store_receipt_put(t.store, "m", receipt, &number, &t.err));
    OK(store_route_put(t.store, "m", "v2", "v1", 3, &t.err));
    OK(store_group_end(t.store, 0, &t.err));

    OK(store_group_begin(t.store, &t.err));
    OK(store_route_put(t.store, "m", "v3", "v2", 4, &t.err));
    OK(store_receipt_put(t.store, "m", receipt, &number, &t.err));
    assert_int_equal(store_rollout_step(t.store, 99, "starting", NULL, &t.err), -1);
    assert_int_equal(store_group_end(t.store, -1, &t.err), -1);
    json_decref(receipt);

    store_checkpoint(t.store);
    reopen();
    assert_int_equal(store_route_get(t.store, "m", &serving, &previous, &t.err), 1);
    assert_string_equal(serving, "v2");
    assert_string_equal(previous, "v1");
    free(serving);
    free(previous);
    receipt = store_receipt_get(t.store, NULL, 0, &t.err);
    assert_int_equal(json_integer_value(json_object_get(receipt, "number")), 1);
    json_decref(receipt);
    OK(store_receipts_check(t.store, &t.err));
}

/* --- a full disk --- */

static void test_full_disk_is_said_and_survived(void **state)
{
    char *serving, *previous, *text = mem_zero(100001);
    int64_t id, number;

    OK(store_route_put(t.store, "m", "v1", NULL, 1, &t.err));
    OK(store_rollout_begin(t.store, "m", "v1", "v2", "deploy", &id, &t.err));
    assert_int_equal(sqlite3_exec(t.store->db, "PRAGMA max_page_count = 1", NULL, NULL, NULL), 0);
    memset(text, 'x', 100000);
    json_t *facts = json_pack("{s:s}", "much", text);
    free(text);

    assert_int_equal(store_rollout_step(t.store, id, "starting", facts, &t.err), -1);
    assert_non_null(strstr(t.err.text, "cannot keep the rollout's step in "));
    assert_non_null(strstr(t.err.text, "free space on that disk, or set `state`"));
    assert_int_equal(store_receipt_put(t.store, "m", facts, &number, &t.err), -1);

    /* Reading goes on, and writing when there is space again. */
    assert_int_equal(store_route_get(t.store, "m", &serving, &previous, &t.err), 1);
    free(serving);
    assert_int_equal(sqlite3_exec(t.store->db, "PRAGMA max_page_count = 10000", NULL, NULL, NULL),
                     0);
    OK(store_rollout_step(t.store, id, "starting", facts, &t.err));
    OK(store_receipt_put(t.store, "m", facts, &number, &t.err));
    assert_int_equal(number, 1);
    json_decref(facts);
    OK(store_receipts_check(t.store, &t.err));
}

/* A writer that reports each commit over a pipe, until it is killed. */
static void write_for_ever(int pipe_fd)
{
    struct err err;
    char *notice;
    struct store *s = store_open(t.folder, &notice, &err);

    for (int64_t epoch = 1; s; epoch++) {
        int64_t id;

        if (store_route_put(s, "m", "v1", NULL, (uint64_t)epoch, &err) != 0 ||
            store_rollout_begin(s, "m", "v1", "v2", "deploy", &id, &err) != 0 ||
            store_rollout_step(s, id, "done", NULL, &err) != 0 ||
            write(pipe_fd, &epoch, sizeof(epoch)) != sizeof(epoch))
            break;
    }
    _exit(1);
}

static void test_killed_writer_loses_nothing(void **state)
{
    int64_t told = 0, before = 0;

    for (int round = 0; round < 10; round++) {
        int fds[2], status;
        uint64_t epoch;
        char *text = NULL;

        assert_int_equal(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0)
            write_for_ever(fds[1]);
        close(fds[1]);
        for (int n = 0; n < 20 + round * 7; n++)
            assert_int_equal(read(fds[0], &told, sizeof(told)), sizeof(told));
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        while (read(fds[0], &told, sizeof(told)) == sizeof(told))
            continue;
        close(fds[0]);
        open_store();
        OK(store_epoch(t.store, &epoch, &t.err));
        /* Everything that was reported is there; at most one more was under way. */
        int64_t expected = told > before ? told : before;
        assert_true((int64_t)epoch == expected || (int64_t)epoch == told + 1);
        before = (int64_t)epoch;
        OK(store_rollouts_open(t.store, see_rollout, &text, &t.err));
        /* The state column and the steps were written as one. */
        json_t *open_ones = store_rollouts_json(t.store, "m", 1, &t.err);
        json_t *newest = json_array_get(open_ones, 0);
        size_t steps = json_array_size(json_object_get(newest, "steps"));
        assert_int_equal(steps, strcmp(member(newest, "state"), "done") == 0 ? 1 : 0);
        json_decref(open_ones);
        free(text);
        store_close(t.store);
        t.store = NULL;
    }
}

/* --- API keys --- */

static void add_key(const char *name, const char *sha256, json_t *models)
{
    struct store_key k = {
        .name = name, .sha256 = sha256, .models = models, .concurrency = 2, .rate = 5};

    OK(store_key_add(t.store, &k, &t.err));
    json_decref(models);
}

static void on_key(const struct store_key *k, void *arg)
{
    char *models = json_dumps(k->models, JSON_COMPACT);

    assert_true(k->added_ms > 0);
    buf_addf(arg, "%s %s %s %d %d\n", k->name, k->sha256, models, (int)k->concurrency,
             (int)k->rate);
    free(models);
}

static void assert_keys(const char *expected)
{
    struct buf said = {0};

    OK(store_keys(t.store, on_key, &said, &t.err));
    assert_string_equal(buf_cstr(&said), expected);
    buf_fini(&said);
}

static void test_keys(void **state)
{
    struct store_key again = {.name = "web", .sha256 = "x", .models = json_array()};

    assert_keys("");
    add_key("web", "b2", json_pack("[s, s]", "hy-mt", "tiny"));
    add_key("ci", "a1", json_array());
    reopen();
    assert_keys("ci a1 [] 2 5\nweb b2 [\"hy-mt\",\"tiny\"] 2 5\n");
    assert_int_equal(store_key_add(t.store, &again, &t.err), -1);
    json_decref(again.models);
    OK(store_key_delete(t.store, "web", &t.err));
    OK(store_key_delete(t.store, "web", &t.err));
    assert_keys("ci a1 [] 2 5\n");
}

/* What somebody has from before there were keys goes on, with everything in it. */
static void test_a_store_of_schema_1_is_brought_on(void **state)
{
    char *serving, *previous;

    folder_make(state);
    open_store();
    OK(store_route_put(t.store, "m", "v1", NULL, 1, &t.err));
    store_close(t.store);
    sql("DROP TABLE api_key; PRAGMA user_version = 1");
    open_store();
    add_key("ci", "a1", json_array());
    assert_keys("ci a1 [] 2 5\n");
    assert_int_equal(store_route_get(t.store, "m", &serving, &previous, &t.err), 1);
    assert_string_equal(serving, "v1");
    free(serving);
    folder_remove(state);
}

int main(void)
{
#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, store_make, folder_remove)
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_remove)
    const struct CMUnitTest tests[] = {
        WITH_STORE(test_versions),
        WITH_STORE(test_routes),
        WITH_STORE(test_engines),
        WITH_STORE(test_keys),
        cmocka_unit_test(test_a_store_of_schema_1_is_brought_on),
        WITH_STORE(test_rollouts),
        WITH_STORE(test_receipts),
        WITH_STORE(test_receipt_hash_is_plain_sha256),
        WITH_STORE(test_groups_are_whole_or_nothing),
        WITH_STORE(test_full_disk_is_said_and_survived),
        cmocka_unit_test(test_spoilt_files_are_set_aside),
        cmocka_unit_test(test_no_folder_is_an_error),
        WITH_FOLDER(test_folder_in_the_place_of_the_file_is_an_error),
        WITH_FOLDER(test_killed_writer_loses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
