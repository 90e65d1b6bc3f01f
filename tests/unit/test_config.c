/*
 * config - the folders of good and bad files, the values that come out, the
 * page that is made from the table, and the small parts: units, suggestions,
 * addresses.
 *
 * A bad file begins with what must be said about it, one line each:
 *     # expect:12:5: error: unknown key 'lisen'; did you mean 'listen'?
 */
#include "test.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "config/internal.h"
#include "config/nearest.h"
#include "config/units.h"

#define FOLDER SOURCE_ROOT "/tests/config/"

static char *slurp(const char *file)
{
    struct buf text = {0};
    FILE *in = fopen(file, "rb");
    size_t n;

    if (!in)
        fail_msg("%s cannot be opened", file);
    while ((n = fread(buf_room(&text, 4096), 1, 4096, in)) > 0)
        buf_added(&text, n);
    fclose(in);
    return buf_take(&text);
}

/* Calls cb for each .yaml file of a folder; there must be at least `least`. */
static void each_file(const char *folder, size_t least, void (*cb)(const char *file))
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    size_t n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir))) {
        if (!strstr(entry->d_name, ".yaml"))
            continue;
        char *file = str_fmt("%s/%s", folder, entry->d_name);
        cb(file);
        free(file);
        n++;
    }
    closedir(dir);
    assert_true(n >= least);
}

static struct config *parse(const char *text, struct buf *diagnostics)
{
    return config_parse(span_str(text), "x.yaml", "/etc/segue", diagnostics);
}

/* --- the folders ------------------------------------------------------ */

static bool set_in_good[256]; /* by index in the table */
static bool named_in_bad[256];

/* Notes which keys a good file sets. */
static void mark(enum scope scope, const struct node *map)
{
    for (size_t i = 0; i < nkeys; i++) {
        const struct node *value = keys[i].scope == scope ? tree_get(map, keys[i].name) : NULL;
        if (!value)
            continue;
        set_in_good[i] = true;
        if (keys[i].type == KEY_SECTION)
            mark(keys[i].inner, value);
        for (size_t j = 0; keys[i].type == KEY_ENTRIES && j < value->n; j++)
            mark(keys[i].inner, value->items[j]);
    }
}

static void check_good(const char *file)
{
    struct buf said = {0};
    struct config *c = config_load(file, &said);
    struct diags d = {.name = file};
    char *text = slurp(file);

    if (!c || buf_pending(&said))
        fail_msg("%s is not good:\n%s", file, buf_cstr(&said));
    assert_string_equal(c->file, file);
    struct node *root = tree_read(span_str(text), &d);
    mark(SCOPE_ROOT, root);
    tree_free(root);
    diags_fini(&d);
    free(text);
    buf_fini(&said);
    config_free(c);
}

static void check_bad(const char *file)
{
    static const char prefix[] = "# expect:";
    struct buf said = {0}, want = {0};
    char *text = slurp(file);

    for (const char *line = text; strncmp(line, prefix, strlen(prefix)) == 0;
         line = strchr(line, '\n') + 1)
        buf_addf(&want, "%s:%.*s\n", file, (int)(strcspn(line, "\n") - strlen(prefix)),
                 line + strlen(prefix));
    struct config *c = config_load(file, &said);
    assert_null(c);
    if (strcmp(buf_cstr(&said), buf_cstr(&want)) != 0)
        fail_msg("said:\n%swanted:\n%s", buf_cstr(&said), buf_cstr(&want));
    for (size_t i = 0; i < nkeys; i++) {
        char *quoted = str_fmt("'%s'", keys[i].name),
             *unknown = str_fmt("unknown %s ", keys[i].name);
        if (strstr(buf_cstr(&want), quoted) || strstr(buf_cstr(&want), unknown))
            named_in_bad[i] = true;
        free(quoted);
        free(unknown);
    }
    free(text);
    buf_fini(&said);
    buf_fini(&want);
}

static void test_folders(void **state)
{
    each_file(FOLDER "good", 4, check_good);
    each_file(FOLDER "bad", 80, check_bad);
    assert_true(nkeys <= COUNT_OF(set_in_good));
    for (size_t i = 0; i < nkeys; i++) {
        if (!set_in_good[i])
            fail_msg("no good file sets '%s' of '%s'", keys[i].name, scope_path(keys[i].scope));
        if (!named_in_bad[i])
            fail_msg("no bad file is wrong about '%s'", keys[i].name);
    }
}

static void test_page(void **state)
{
    struct buf page = {0};
    char *committed = slurp(SOURCE_ROOT "/docs/configuration.md");

    config_describe(&page);
    if (strcmp(buf_cstr(&page), committed) != 0)
        fail_msg("docs/configuration.md is old: `segue config keys > docs/configuration.md`");
    free(committed);
    buf_fini(&page);
}

/* --- files that are none ---------------------------------------------- */

static void test_no_file(void **state)
{
    static const struct {
        const char *file, *say;
    } rows[] = {
        {"/nonexistent/segue.yaml", "No such file or directory"},
        {"/", "Is a directory"},
        {"/dev/null", "it is not a regular file"},
        {"", "No such file or directory"},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct buf said = {0};
        assert_null(config_load(rows[i].file, &said));
        assert_non_null(strstr(buf_cstr(&said), rows[i].say));
        buf_fini(&said);
    }
}

static void test_large(void **state)
{
    struct buf text = {0}, said = {0};

    for (int i = 0; i < 60000; i++)
        buf_add_str(&text, "lisen: [1, 2, 3]   # too much\n");
    assert_null(config_parse(buf_span(&text), "x.yaml", "/", &said));
    assert_non_null(strstr(buf_cstr(&said), "a configuration has at most 1048576"));
    buf_clear(&said);
    /* Many faults: the first are shown and the rest counted. */
    assert_null(config_parse(span_of(buf_head(&text), 30 * 200), "x.yaml", "/", &said));
    assert_non_null(strstr(buf_cstr(&said), "x.yaml: error: and 151 more\n"));
    buf_fini(&text);
    buf_fini(&said);
}

/* --- values ----------------------------------------------------------- */

static void test_values(void **state)
{
    struct buf said = {0};
    struct config *c = config_load(FOLDER "good/every-key.yaml", &said);
    const struct config_model *a = config_model_find(c, "a"), *b = config_model_find(c, "b");
    const struct config_version *v1 = config_version_find(a, "v1"),
                                *v4 = config_version_find(a, "v4");

    assert_string_equal(c->listen[0], "127.0.0.1:8080");
    assert_string_equal(c->listen[1], "[::1]:8080");
    assert_string_equal(c->listen[2], "127.0.0.1:8081");
    assert_string_equal(c->listen[3], "0.0.0.0:0");
    assert_string_equal(c->listen[4], "https://0.0.0.0:8443");
    assert_string_equal(c->listen[5], "https://[::1]:8443");
    assert_null(c->listen[6]);
    assert_non_null(strstr(c->tls_certificate, "/tls/chain.pem"));
    assert_non_null(strstr(c->tls_key, "/tls/key.pem"));
    assert_int_equal(c->workers, 16);
    assert_string_equal(c->state, "/var/lib/segue");
    assert_string_equal(c->admin_socket, "/run/segue/admin.sock");
    assert_string_equal(c->log_level, "debug");
    assert_non_null(strstr(c->access_log_file, "/good/log/access.log"));
    assert_true(c->access_log_text);
    assert_string_equal(c->metrics_listen[0], "127.0.0.1:9464");
    assert_null(c->metrics_listen[1]);
    assert_int_equal(c->limits.head_bytes, 65536);
    assert_int_equal(c->limits.body_bytes, 1 << 30);
    assert_int_equal(c->limits.client_buffer_bytes, 4096);
    assert_int_equal(c->timeouts.head, 500);
    assert_int_equal(c->timeouts.body, 90000);
    assert_int_equal(c->timeouts.idle, 1500);
    assert_int_equal(c->timeouts.between_bytes, 86400000);
    assert_int_equal(c->nmodels, 2);
    assert_string_equal(a->serve, "v2");
    assert_string_equal(a->aliases[1], "hunyuan:latest");
    assert_int_equal(a->hold_ms, 0);
    assert_non_null(strstr(a->ready.ask, "explanation.\n\n你好\n"));
    assert_true(a->update.settle_failures > 0.0249 && a->update.settle_failures < 0.0251);
    assert_false(a->update.spare_running);
    assert_int_equal(v1->engine, CONFIG_ENGINE_BUILTIN);
    assert_string_equal(v1->served_model_name, "a@v1");
    assert_int_equal(v1->replicas, 2);
    assert_string_equal(config_version_find(a, "v2")->url, "unix:" FOLDER "good/vllm.sock");
    assert_string_equal(config_version_find(a, "v3")->path, FOLDER "good/b.gguf");
    assert_string_equal(v4->run[4], "{port}");
    assert_null(v4->run[5]);
    assert_string_equal(config_version_find(a, "v5")->served_model_name, "a");
    assert_string_equal(b->serve, "v1");
    assert_string_equal(b->aliases[0], "b2");
    assert_null(config_model_find(c, "c"));
    assert_null(config_version_find(b, "v2"));
    config_free(c);
    buf_fini(&said);
}

static void test_defaults(void **state)
{
    struct buf said = {0};
    struct config *c =
        parse("models: { m: { versions: { v: { engine: builtin, path: ./a.gguf } } } }", &said);
    const struct config_model *m = &c->models[0];

    assert_string_equal(buf_cstr(&said), "");
    assert_string_equal(c->listen[0], "127.0.0.1:8080");
    assert_true(c->workers >= 1 && c->workers <= 16);
    assert_string_equal(c->state, "/etc/segue/run");
    assert_string_equal(c->admin_socket, "/etc/segue/run/admin.sock");
    assert_string_equal(c->log_level, "info");
    assert_null(c->engine_program);
    assert_int_equal(c->limits.head_bytes, 16384);
    assert_int_equal(c->limits.body_bytes, 8 << 20);
    assert_int_equal(c->limits.connections, 20000);
    assert_int_equal(c->limits.client_buffer_bytes, 256 << 10);
    assert_int_equal(c->timeouts.connect, 2000);
    assert_int_equal(c->timeouts.first_byte, 300000);
    assert_int_equal(m->hold_ms, 30000);
    assert_int_equal(m->hold_max, 1024);
    assert_int_equal(m->ready.timeout_ms, 30000);
    assert_int_equal(m->ready.start_timeout_ms, 600000);
    assert_null(m->ready.expect);
    assert_int_equal(m->update.drain_ms, 600000);
    assert_int_equal(m->update.settle_requests, 0);
    assert_true(m->update.spare_running);
    assert_string_equal(m->versions[0].path, "/etc/segue/a.gguf");
    assert_int_equal(m->versions[0].parallel, 16);
    assert_int_equal(m->versions[0].ctx_size, 1024);
    assert_int_equal(m->versions[0].threads, 0);
    assert_int_equal(m->versions[0].replicas, 1);
    config_free(c);
    buf_fini(&said);
}

static void test_version_copy(void **state)
{
    struct buf said = {0};
    struct config *c = config_load(FOLDER "good/every-key.yaml", &said);
    struct config_version copy, fresh;

    config_version_copy(&copy, config_version_find(config_model_find(c, "a"), "v4"));
    config_free(c);
    buf_fini(&said);
    assert_string_equal(copy.name, "v4");
    assert_int_equal(copy.engine, CONFIG_ENGINE_COMMAND);
    assert_string_equal(copy.run[0], "vllm");
    assert_string_equal(copy.args[1], "1");
    assert_null(copy.path);
    config_version_fini(&copy);

    config_version_init(&fresh, "v9");
    assert_string_equal(fresh.name, "v9");
    assert_int_equal(fresh.parallel, 16);
    assert_int_equal(fresh.replicas, 1);
    assert_null(fresh.args);
    config_version_fini(&fresh);
}

/* --- the small parts -------------------------------------------------- */

static void test_units(void **state)
{
    static const struct {
        const char *text;
        int64_t ms, bytes; /* -1: refused */
    } rows[] = {
        {"0", 0, 0},
        {"10", 10000, 10},
        {"500ms", 500, -1},
        {"10s", 10000, -1},
        {"2m", 120000, 2 << 20},
        {"2M", 120000, 2 << 20},
        {"1h", 3600000, -1},
        {"1d", 86400000, -1},
        {"1.5s", 1500, -1},
        {"0.25", 250, 0},
        {"64k", -1, 65536},
        {"64KiB", -1, 65536},
        {"8MiB", -1, 8 << 20},
        {"1g", -1, 1 << 30},
        {"8MB", -1, -1},
        {"10 s", -1, -1},
        {"-1", -1, -1},
        {"+1", -1, -1},
        {"", -1, -1},
        {"s", -1, -1},
        {"1e3", -1, -1},
        {".5", -1, -1},
        {"1.", -1, -1},
        {"1.s", -1, -1},
        {"99999999999999999999", -1, -1},
        {"9007199254740992", -1, -1},
        {"0x10", -1, -1},
        {"10ss", -1, -1},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint64_t ms = 77, bytes = 77;
        bool is_time = duration_parse(span_str(rows[i].text), &ms);
        bool is_size = size_parse(span_str(rows[i].text), &bytes);
        if (is_time != (rows[i].ms >= 0) || (is_time && ms != (uint64_t)rows[i].ms))
            fail_msg("'%s' as a duration", rows[i].text);
        if (is_size != (rows[i].bytes >= 0) || (is_size && bytes != (uint64_t)rows[i].bytes))
            fail_msg("'%s' as a size", rows[i].text);
    }
    char text[UNITS_TEXT_MAX];
    duration_text(90000, text);
    assert_string_equal(text, "90s");
    duration_text(1500, text);
    assert_string_equal(text, "1500ms");
    size_text(256 << 10, text);
    assert_string_equal(text, "256KiB");
    size_text(1000, text);
    assert_string_equal(text, "1000");
}

static void test_nearest(void **state)
{
    static const char *const words[] = {"listen", "limits", "workers", "state", "log_level", "to"};
    static const struct {
        const char *word, *near;
    } rows[] = {
        {"lisen", "listen"}, {"litsen", "listen"},  {"LISTEN", "listen"},
        {"limit", "limits"}, {"worker", "workers"}, {"loglevel", "log_level"},
        {"sate", "state"},   {"colour", NULL},      {"", NULL},
        {"x", NULL},         {"tp", NULL},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const char *near = nearest_word(rows[i].word, words, COUNT_OF(words));
        if ((near == NULL) != (rows[i].near == NULL) || (near && strcmp(near, rows[i].near) != 0))
            fail_msg("'%s' is near '%s'", rows[i].word, near ? near : "nothing");
    }
    assert_int_equal(nearest_distance("ca", "abc"), 3);
    assert_int_equal(nearest_distance("abcd", "abdc"), 1);
    assert_int_equal(nearest_distance("", "abc"), 3);
}

static void test_names(void **state)
{
    static const char *const good[] = {"v1", "hy-mt1.5-1.8b", "A", "0", "a_b.c-d"};
    static const char *const bad[] = {"", "-a", ".a", "a@b", "a/b", "a b", "a\n", "é"};
    char longest[66];

    for (size_t i = 0; i < COUNT_OF(good); i++)
        assert_true(config_name_ok(good[i]));
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        assert_false(config_name_ok(bad[i]));
    memset(longest, 'a', 65);
    longest[65] = '\0';
    assert_false(config_name_ok(longest));
    longest[64] = '\0';
    assert_true(config_name_ok(longest));
}

static void test_engines(void **state)
{
    assert_int_equal(config_engine_by_name("builtin"), CONFIG_ENGINE_BUILTIN);
    assert_int_equal(config_engine_by_name("llama-server"), CONFIG_ENGINE_LLAMA_SERVER);
    assert_int_equal(config_engine_by_name("vllm"), -1);
    assert_true(config_engine_managed(CONFIG_ENGINE_COMMAND));
    assert_false(config_engine_managed(CONFIG_ENGINE_OPENAI));
}

/* What stands in a message must not be able to forge another line. */
static void test_harmless(void **state)
{
    struct buf said = {0};

    assert_null(parse("\"a\\nx.yaml:1:1: error: forged\": 1", &said));
    buf_add_char(&said, '\0');
    /* One line for the key, one for the missing models. */
    const char forged[] = "?x.yaml:1:1: error: forged'; listen, ";
    assert_memory_equal(strrchr(strtok(buf_head(&said), "\n"), '?'), forged, strlen(forged));
    assert_string_equal(strtok(NULL, "\n"),
                        "x.yaml:1:1: error: 'models' is missing; at least one model is needed");
    buf_fini(&said);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders),      cmocka_unit_test(test_page),
        cmocka_unit_test(test_no_file),      cmocka_unit_test(test_large),
        cmocka_unit_test(test_values),       cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_version_copy), cmocka_unit_test(test_units),
        cmocka_unit_test(test_nearest),      cmocka_unit_test(test_names),
        cmocka_unit_test(test_engines),      cmocka_unit_test(test_harmless),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
