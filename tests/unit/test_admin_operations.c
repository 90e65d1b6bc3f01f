/* Operations and who follows them; the HTTP calls are stand-ins that remember. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "admin/operations.h"
#include "base/buf.h"

struct http_call {
    struct buf text;
    int status;
    enum { OPEN, FINISHED, CUT } end;
    size_t pending;
    http_gone_cb gone;
    void *arg;
};

void http_call_start(struct http_call *call, int status, const char *type, const char *extra)
{
    assert_string_equal(type, "text/event-stream");
    call->status = status;
}

void http_call_write(struct http_call *call, struct span data)
{
    assert_int_equal(call->end, OPEN);
    buf_add_span(&call->text, data);
}

void http_call_finish(struct http_call *call)
{
    assert_int_equal(call->end, OPEN);
    call->end = FINISHED;
}

void http_call_cut(struct http_call *call)
{
    assert_int_equal(call->end, OPEN);
    call->end = CUT;
}

size_t http_call_pending(const struct http_call *call)
{
    return call->pending;
}

void http_call_on_gone(struct http_call *call, http_gone_cb cb, void *arg)
{
    call->gone = cb;
    call->arg = arg;
}

static void check_text(struct http_call *call, const char *text)
{
    assert_string_equal(buf_cstr(&call->text), text);
    buf_fini(&call->text);
}

#define STARTING "event: progress\ndata: {\"state\":\"starting\",\"detail\":\"0 of 1\"}\n\n"
#define DONE "event: progress\ndata: {\"state\":\"done\",\"detail\":\"\"}\n\n"
#define END                                                                                        \
    "event: end\ndata: {\"ok\":true,\"state\":\"done\",\"error\":null,\"receipt\":{\"number\":3}}" \
    "\n\n"

static void early_and_late_followers_hear_the_same(void **unused)
{
    struct operations *o = operations_new();
    struct http_call early = {0}, late = {0};
    json_t *receipt = json_pack("{s:i}", "number", 3);

    operation_begin(o, 7, "deploy", "hy-mt", "v2");
    assert_true(operation_follow(o, 7, &early));
    operation_progress(o, 7, "starting", "0 of 1");
    operation_progress(o, 7, "starting", "0 of 1"); /* nothing new */
    operation_end(o, 7, "done", NULL, receipt);
    operation_progress(o, 7, "starting", "after the end"); /* ignored */
    assert_true(operation_follow(o, 7, &late));
    assert_int_equal(early.end, FINISHED);
    assert_int_equal(late.end, FINISHED);
    check_text(&early, STARTING DONE END);
    check_text(&late, STARTING DONE END);
    json_decref(receipt);
    operations_free(o);
}

static void who_leaves_is_forgotten(void **unused)
{
    struct operations *o = operations_new();
    struct http_call call = {0};

    operation_begin(o, 1, "deploy", "m", "v");
    operation_follow(o, 1, &call);
    call.gone(&call, call.arg);
    operation_progress(o, 1, "starting", "0 of 1");
    assert_int_equal(call.end, OPEN);
    check_text(&call, "");
    operations_free(o);
}

static void who_does_not_read_is_cut(void **unused)
{
    struct operations *o = operations_new();
    struct http_call slow = {.pending = 1 << 20}, good = {0};

    operation_begin(o, 1, "deploy", "m", "v");
    operation_follow(o, 1, &slow);
    operation_follow(o, 1, &good);
    operation_progress(o, 1, "starting", "0 of 1");
    assert_int_equal(slow.end, CUT);
    assert_null(slow.gone);
    operations_free(o);
    assert_int_equal(good.end, CUT); /* the manager went away in the middle */
    check_text(&good, STARTING);
    buf_fini(&slow.text);
}

static void a_failure_and_bytes_that_are_not_text(void **unused)
{
    struct operations *o = operations_new();

    operation_begin(o, 1, "deploy", "m", "v");
    operation_end(o, 1, "failed", "exit 1: \xff\xfe", NULL);
    json_t *json = operation_json(o, 1);
    assert_true(json_is_false(json_object_get(json, "ok")));
    assert_string_equal(json_string_value(json_object_get(json, "error")),
                        "exit 1: \xef\xbf\xbd\xef\xbf\xbd");
    assert_true(json_is_null(json_object_get(json, "receipt")));
    json_decref(json);
    operations_free(o);
}

static void the_last_hundred_are_kept(void **unused)
{
    struct operations *o = operations_new();

    operation_begin(o, 1, "deploy", "m", "v"); /* goes on: never forgotten */
    for (int i = 2; i <= 150; i++) {
        operation_begin(o, i, "switch", "m", "v");
        operation_end(o, i, "done", NULL, NULL);
    }
    for (int i = 1; i <= 150; i++) {
        json_t *json = operation_json(o, i);

        assert_int_equal(json != NULL, i == 1 || i > 50);
        json_decref(json);
    }
    struct http_call call = {0};
    assert_false(operation_follow(o, 2, &call));
    operations_free(o);
}

static void all_end_when_the_manager_stops(void **unused)
{
    struct operations *o = operations_new();
    struct http_call call = {0};

    operation_begin(o, 1, "deploy", "m", "v");
    operation_progress(o, 1, "starting", "0 of 1");
    operation_follow(o, 1, &call);
    operations_end_all(o, "the manager is stopping");
    assert_int_equal(call.end, FINISHED);
    assert_non_null(strstr(buf_cstr(&call.text), "\"ok\":false"));
    buf_fini(&call.text);
    operations_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(early_and_late_followers_hear_the_same),
        cmocka_unit_test(who_leaves_is_forgotten),
        cmocka_unit_test(who_does_not_read_is_cut),
        cmocka_unit_test(a_failure_and_bytes_that_are_not_text),
        cmocka_unit_test(the_last_hundred_are_kept),
        cmocka_unit_test(all_end_when_the_manager_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
