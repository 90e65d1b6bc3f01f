/* The table that goes to the gateway, and what of a model should run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/models.h"
#include "app/routes.h"
#include "base/alloc.h"

/* --- the table ---------------------------------------------------------------------------- */

static char *aliases[] = {"hunyuan", NULL};
static const struct config_model model_config = {
    .name = "hy-mt", .aliases = aliases, .hold_ms = 30000, .hold_max = 1024};
static const struct config config = {
    .limits = {.head_bytes = 16384,
               .body_bytes = 8388608,
               .connections = 20000,
               .client_buffer_bytes = 262144,
               .exchanges = 10000,
               .client_connections = 20000,
               .body_memory_bytes = 268435456},
    .timeouts = {.head = 10000,
                 .body = 60000,
                 .idle = 75000,
                 .send = 60000,
                 .connect = 2000,
                 .first_byte = 300000,
                 .between_bytes = 120000,
                 .upstream_idle = 30000},
};

/* One model with three versions, given to `use`. */
static void with_model(unsigned weight_v1, bool ready,
                       void (*use)(const struct route_model *model, void *arg), void *arg)
{
    struct route_replica one = {.slot = 3,
                                .address = "unix:/run/hy-mt@v1-0.sock",
                                .prefix = "",
                                .serve_as = "hy-mt@v1",
                                .ready = ready};
    struct route_replica two = {
        .slot = 4, .address = "127.0.0.1:8001", .prefix = "/api", .serve_as = "hy", .ready = true};
    struct route_version versions[] = {
        {.name = "v1", .weight = weight_v1, .replicas = &one, .nreplicas = 1},
        {.name = "v2", .weight = !weight_v1, .replicas = &two, .nreplicas = 1},
        {.name = "v3"},
    };
    struct route_model model = {.config = &model_config,
                                .expected = true,
                                .created = 1760000000,
                                .versions = versions,
                                .nversions = 3};

    use(&model, arg);
}

static void make_table(const struct route_model *model, void *arg)
{
    *(json_t **)arg = routes_table(&config, json_pack("[o]", routes_model(model)), 7);
}

static void make_text(const struct route_model *model, void *arg)
{
    struct buf text = {0};

    routes_text(model, &text);
    *(char **)arg = buf_take(&text);
}

static char *text_with(unsigned weight_v1, bool ready)
{
    char *text = NULL;

    with_model(weight_v1, ready, make_text, &text);
    return text;
}

static void the_table_is_as_documented(void **unused)
{
    static const char expected[] =
        "{\"type\":\"table\",\"epoch\":7,"
        "\"limits\":{\"head_bytes\":16384,\"body_bytes\":8388608,\"connections\":20000,"
        "\"client_buffer_bytes\":262144,\"exchanges\":10000,\"client_connections\":20000,"
        "\"body_memory_bytes\":268435456},"
        "\"timeouts\":{\"head\":10000,\"body\":60000,\"idle\":75000,\"send\":60000,"
        "\"connect\":2000,\"first_byte\":300000,\"between_bytes\":120000,"
        "\"upstream_idle\":30000},"
        "\"models\":[{\"name\":\"hy-mt\",\"aliases\":[\"hunyuan\"],\"hold_ms\":30000,"
        "\"hold_max\":1024,\"expected\":true,\"created\":1760000000,\"versions\":["
        "{\"name\":\"v1\",\"weight\":0,\"replicas\":[{\"slot\":3,"
        "\"address\":\"unix:/run/hy-mt@v1-0.sock\",\"prefix\":\"\",\"serve_as\":\"hy-mt@v1\","
        "\"ready\":true}]},"
        "{\"name\":\"v2\",\"weight\":1,\"replicas\":[{\"slot\":4,"
        "\"address\":\"127.0.0.1:8001\",\"prefix\":\"/api\",\"serve_as\":\"hy\","
        "\"ready\":true}]},"
        "{\"name\":\"v3\",\"weight\":0,\"replicas\":[]}]}]}";
    json_t *table = NULL;

    with_model(0, true, make_table, &table);
    char *text = json_dumps(table, JSON_COMPACT);

    assert_string_equal(text, expected);
    free(text);
    json_decref(table);
}

static void only_what_changes_something_is_new(void **unused)
{
    char *first = text_with(1, true), *again = text_with(1, true);
    char *switched = text_with(0, true), *not_ready = text_with(1, false);

    assert_string_equal(first, again);
    assert_string_not_equal(first, switched);
    assert_string_not_equal(first, not_ready);
    free(first);
    free(again);
    free(switched);
    free(not_ready);
}

/* --- what should run ---------------------------------------------------------------------- */

static int record(struct rollout *r, enum rollout_state next, const char *reason, void *arg,
                  struct err *err)
{
    if (!rollout_id(r))
        rollout_set_id(r, 1);
    return 0;
}

static int nothing(struct rollout *r, void *arg, struct err *err)
{
    return 0;
}

static void route(struct rollout *r, const char *version, uint64_t *epoch, void *arg)
{
    *epoch = 1;
}

static void read_zero(const struct rollout *r, struct receipt_reading *out, void *arg)
{
    *out = (struct receipt_reading){0};
}

static uint64_t now(void *arg)
{
    return 1;
}

static void moved(struct rollout *r, void *arg)
{
}

static const struct rollout_ops ops = {record, nothing, nothing, route, read_zero, now, moved};

static struct version *add(struct model *m, const char *name, enum config_engine engine)
{
    struct config_version spec = {.name = (char *)name, .engine = engine, .replicas = 1};

    return model_add(m, &spec);
}

static void begin(struct model *m, const char *from, const char *to, const char *before,
                  enum rollout_state first)
{
    struct rollout_want want = {
        .kind = ROLLOUT_DEPLOY, .model = "hy-mt", .from = from, .to = to, .from_previous = before};
    struct err err;

    m->rollout = rollout_new(&want, &ops, NULL);
    assert_int_equal(rollout_begin(m->rollout, first, &err), 0);
}

static void what_runs_follows_from_the_route(void **unused)
{
    struct model *m = model_new(&model_config);
    struct version *v1 = add(m, "v1", CONFIG_ENGINE_BUILTIN);
    struct version *v2 = add(m, "v2", CONFIG_ENGINE_BUILTIN);
    struct version *v3 = add(m, "v3", CONFIG_ENGINE_BUILTIN);
    struct version *other = add(m, "other", CONFIG_ENGINE_OPENAI);

    m->serving = v2;
    m->previous = v1;
    assert_true(version_should_run(v2));
    assert_false(version_should_run(v1)); /* spare on disk */
    assert_false(version_may_stay(v1));
    m->keep_spare = true;
    assert_true(version_should_run(v1));
    assert_false(version_should_run(v3));
    assert_true(version_should_run(other)); /* somebody else's are always looked at */
    model_free(m);
}

static void an_update_keeps_the_ways_back(void **unused)
{
    struct model *m = model_new(&model_config);
    struct version *v1 = add(m, "v1", CONFIG_ENGINE_BUILTIN);
    struct version *v2 = add(m, "v2", CONFIG_ENGINE_BUILTIN);
    struct version *v3 = add(m, "v3", CONFIG_ENGINE_BUILTIN);

    m->serving = v2;
    m->previous = v1;
    begin(m, "v2", "v3", "v1", ROLLOUT_CHECKING);
    assert_false(version_should_run(v3)); /* not before its file is known */
    rollout_checked(m->rollout, NULL);
    assert_true(version_should_run(v3));
    assert_true(version_may_stay(v1)); /* runs on if it does */
    assert_false(version_should_run(v1));

    m->serving = v3; /* switched; spare on disk: v2 stays until the end */
    m->previous = v2;
    assert_true(version_may_stay(v2));
    rollout_free(m->rollout);
    m->rollout = NULL;
    assert_false(version_may_stay(v2));
    assert_false(version_may_stay(v1));
    model_free(m);
}

static void the_next_name(void **unused)
{
    static const struct {
        const char *names[4];
        const char *next;
    } cases[] = {
        {{NULL}, "v1"},
        {{"v1", NULL}, "v2"},
        {{"v1", "v7", "v3", NULL}, "v8"},
        {{"blue", "v2x", "v", NULL}, "v1"},
        {{"v99999999999", "v2", NULL}, "v3"},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct model *m = model_new(&model_config);

        for (size_t k = 0; k < 4 && cases[i].names[k]; k++)
            add(m, cases[i].names[k], CONFIG_ENGINE_BUILTIN);
        char *next = model_next_name(m);
        assert_string_equal(next, cases[i].next);
        free(next);
        model_free(m);
    }
}

static void a_forgotten_version_leaves_its_counts(void **unused)
{
    struct model *m = model_new(&model_config);

    m->serving = add(m, "v1", CONFIG_ENGINE_BUILTIN);
    struct version *v2 = add(m, "v2", CONFIG_ENGINE_BUILTIN);
    v2->gone.finished = 5;
    model_forget(m, v2);
    assert_null(model_version(m, "v2"));
    assert_int_equal(m->gone.finished, 5);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_as_documented),
        cmocka_unit_test(only_what_changes_something_is_new),
        cmocka_unit_test(what_runs_follows_from_the_route),
        cmocka_unit_test(an_update_keeps_the_ways_back),
        cmocka_unit_test(the_next_name),
        cmocka_unit_test(a_forgotten_version_leaves_its_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
