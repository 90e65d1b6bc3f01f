/*
 * fleet_world - a fleet on a loop in a folder of its own, with short times, and
 * the fake engine to fill it.
 */
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/log.h"
#include "fleet/fleet.h"
#include "fleet/internal.h"
#include "fleet/proc.h"
#include "http/client.h"
#include "loop.h"

static struct {
    uv_loop_t loop;
    char folder[64];
    struct store *store;
    struct fleet *fleet;
    struct config config;
    struct config_model model;
    struct err err;
    struct buf history; /* "m@v1#0 starting, ..." */
    int gone;
    bool closed;
} t;

#define ENGINE SOURCE_ROOT "/tests/fake/engine.py"

static void on_state(struct replica *r, bool gone, void *arg)
{
    buf_addf(&t.history, "%s ", gone ? "gone" : replica_state_name(replica_state(r)));
    t.gone += gone;
}

static inline void open_fleet(void)
{
    static const struct fleet_events events = {on_state};
    char *notice;

    t.store = store_open(t.folder, &notice, &t.err);
    if (!t.store || notice)
        fail_msg("%s", t.store ? notice : t.err.text);
    t.fleet = fleet_new(&t.loop, &t.config, t.store, &events, NULL);
    t.fleet->times = (struct fleet_times){.first_look_ms = 5,
                                          .look_ms = 300,
                                          .again_ms = 50,
                                          .silent_ms = 1500,
                                          .grace_ms = 2000,
                                          .log_ms = 50};
    uv_timer_set_repeat(&t.fleet->log_timer, 50);
    t.closed = false;
}

static inline void on_closed(void *arg)
{
    t.closed = true;
}

static inline void close_fleet(bool end)
{
    fleet_close(t.fleet, end, on_closed, NULL);
    loop_until(&t.loop, t.closed);
    store_close(t.store);
    t.fleet = NULL;
    t.store = NULL;
}

static inline int setup(void **state)
{
    memset(&t, 0, sizeof(t));
    log_start("test", getenv("SEGUE_TEST_LOG") ? LOG_DEBUG : LOG_ERROR);
    uv_loop_init(&t.loop);
    strcpy(t.folder, "/tmp/segue-fleet-XXXXXX");
    assert_non_null(mkdtemp(t.folder));
    t.config.state = t.folder;
    t.model.name = (char *)"m";
    t.model.ready.ask = (char *)"Say hello";
    t.model.ready.max_tokens = 16;
    t.model.ready.timeout_ms = 5000;
    t.model.ready.start_timeout_ms = 20000;
    open_fleet();
    return 0;
}

static inline int teardown(void **state)
{
    if (t.fleet)
        close_fleet(true);
    loop_end(&t.loop);
    buf_fini(&t.history);
    char *command = str_fmt("rm -rf %s", t.folder);
    int rc = system(command);
    free(command);
    return rc;
}

/* A `command` version; the words are kept for the length of a test. */
#define COMMAND(...)                                              \
    ((struct config_version){.name = (char *)"v1",                \
                             .engine = CONFIG_ENGINE_COMMAND,     \
                             .served_model_name = (char *)"m@v1", \
                             .replicas = 1,                       \
                             .run = (char *[]){__VA_ARGS__, NULL}})
#define FAKE(...)                                                                          \
    COMMAND((char *)ENGINE, (char *)"--listen", (char *)"unix:{socket}", (char *)"--name", \
            (char *)"{name}", __VA_ARGS__)
#define SHELL(script) COMMAND((char *)"/bin/sh", (char *)"-c", (char *)script, (char *)"{socket}")

static inline struct replica *add_index(const struct config_version *v, unsigned index, bool first)
{
    struct replica *r = fleet_add(t.fleet, &t.model, v, index, first, &t.err);

    if (!r)
        fail_msg("%s", t.err.text);
    return r;
}

static inline struct replica *add(struct config_version v, bool first)
{
    return add_index(&v, 0, first);
}

static inline void refuses(struct config_version v, const char *says)
{
    if (fleet_add(t.fleet, &t.model, &v, 0, true, &t.err))
        fail_msg("it was not refused; expected: %s", says);
    if (!strstr(t.err.text, says))
        fail_msg("it says: %s\nexpected: %s", t.err.text, says);
}

static inline void until(struct replica *r, enum replica_state s)
{
    uint64_t end = clock_ns() + LOOP_DEADLINE_S * UINT64_C(1000000000);

    while (replica_state(r) != s) {
        if (clock_ns() > end)
            fail_msg("%s is %s, not %s: %s (%s)", replica_name(r),
                     replica_state_name(replica_state(r)), replica_state_name(s), replica_reason(r),
                     r->detail);
        loop_turn(&t.loop);
    }
}

static inline void history_is(const char *want)
{
    assert_string_equal(buf_cstr(&t.history), want);
    buf_clear(&t.history);
}

static inline void reason_has(struct replica *r, const char *text)
{
    if (!strstr(replica_reason(r), text))
        fail_msg("the reason is: %s\nexpected: %s", replica_reason(r), text);
}

static inline void drop(struct replica *r)
{
    int before = t.gone;

    fleet_drop(r);
    fleet_drop(r);
    loop_until(&t.loop, t.gone == before + 1);
}

static inline bool runs(pid_t pid)
{
    struct proc p;

    return proc_read(pid, &p) && p.state != 'Z';
}

/* --- telling a fake engine what to do --- */

static inline void on_told(int status, struct span body, const struct err *err, void *arg)
{
    *(int *)arg = status ? status : -1;
}

static inline void tell(struct replica *r, const char *settings)
{
    static const struct http_fetch_events events = {.on_done = on_told};
    struct http_fetch_options o = {.address = replica_address(r),
                                   .method = "POST",
                                   .target = "/fake",
                                   .body = span_str(settings)};
    int status = 0;

    http_fetch_start(&t.loop, &o, &events, &status);
    loop_until(&t.loop, status != 0);
    assert_int_equal(status, 200);
}

/* Setup and teardown around each test; SEGUE_TEST=pattern runs some of them. */
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define RUN(tests)                                                                  \
    (getenv("SEGUE_TEST") ? cmocka_set_test_filter(getenv("SEGUE_TEST")) : (void)0, \
     cmocka_run_group_tests(tests, NULL, NULL))
