/* The verbs table: routing, arguments from query and body, what is refused and how. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "admin/verbs.h"

static int find(enum http_method method, const char *path, int64_t *number, struct err *err)
{
    const char *allow = NULL;

    return admin_verb_find(method, span_str(path), number, &allow, err);
}

static void every_row_is_found_and_has_words(void **unused)
{
    int64_t number;
    struct err err;

    for (int i = 0; i < ADMIN_NVERBS; i++) {
        const struct admin_verb *v = admin_verb(i);

        assert_true(strlen(v->help) > 8);
        assert_true((v->method == HTTP_GET) == (v->access == ADMIN_READ));
        if (!strstr(v->path, "{id}"))
            assert_int_equal(find(v->method, v->path, &number, &err), i);
        /* The row's arguments can be read: an unknown one is named with them. */
        json_t *args = v->method == HTTP_GET
                           ? admin_verb_args(v, span_str("nope=1"), span_str(""), &err)
                           : admin_verb_args(v, span_str(""), span_str("{\"nope\":1}"), &err);
        assert_null(args);
        assert_int_equal(err.status, 400);
        assert_non_null(strstr(err.text, "'nope'"));
    }
}

static void paths(void **unused)
{
    int64_t number;
    struct err err;

    assert_int_equal(find(HTTP_GET, "/admin/v1/operations/17", &number, &err), VERB_operation);
    assert_int_equal(number, 17);
    assert_int_equal(find(HTTP_GET, "/admin/v1/operations/3/events", &number, &err),
                     VERB_operation_events);
    assert_int_equal(number, 3);

    static const char *const wrong[] = {
        "",
        "/",
        "/admin",
        "/admin/v1/statu",
        "/admin/v1/status/",
        "/admin/v1/operations/",
        "/admin/v1/operations/x",
        "/admin/v1/operations/1/event",
        "/admin/v1/operations/-1",
        "/admin/v1/operations/99999999999999999999",
    };
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        assert_int_equal(find(HTTP_GET, wrong[i], &number, &err), -1);
        assert_int_equal(err.status, 404);
        assert_non_null(strstr(err.text, "POST /admin/v1/deploy"));
    }
}

static void the_wrong_method_is_told_the_right_one(void **unused)
{
    int64_t number;
    struct err err;
    const char *allow = NULL;

    assert_int_equal(admin_verb_find(HTTP_GET, span_str("/admin/v1/deploy"), &number, &allow, &err),
                     -1);
    assert_int_equal(err.status, 405);
    assert_string_equal(allow, "POST");
}

static json_t *body(enum admin_verb_id id, const char *text, struct err *err)
{
    return admin_verb_args(admin_verb(id), span_str(""), span_str(text), err);
}

static void bodies(void **unused)
{
    static const struct {
        enum admin_verb_id verb;
        const char *body;
        const char *error; /* a part of it; NULL: accepted */
    } cases[] = {
        {VERB_switch, "{\"model\":\"hy-mt\",\"version\":\"v2\"}", NULL},
        {VERB_switch, "{\"model\":\"hy-mt\"}", "needs 'version'"},
        {VERB_switch, "", "needs 'model'"},
        {VERB_switch, "{\"model\":\"hy-mt\",\"version\":2}", "'version' must be a string"},
        {VERB_switch, "{\"model\":\"\",\"version\":\"v2\"}", "'model' must be a string"},
        {VERB_switch, "{\"model\":\"a\",\"version\":\"v\\u0000\"}", "not valid JSON"},
        {VERB_switch, "{\"model\":\"a\",\"model\":\"b\",\"version\":\"v2\"}", "not valid JSON"},
        {VERB_switch, "{\"model\":\"a\",\"version\":\"b\",\"versoin\":\"c\"}",
         "does not know 'versoin'"},
        {VERB_switch, "[]", "not an object"},
        {VERB_switch, "{\"model\":", "not valid JSON"},
        {VERB_stop, "", NULL},
        {VERB_stop, "{\"engines\":true}", NULL},
        {VERB_stop, "{\"engines\":\"yes\"}", "true or false"},
        {VERB_stop, "{\"engines\":null}", "true or false"},
        {VERB_deploy, "{\"model\":\"m\",\"path\":\"/x\",\"engine\":\"builtin\"}", NULL},
        {VERB_key_add, "{\"name\":\"ci\"}", NULL},
        {VERB_key_add, "{\"name\":\"ci\",\"models\":[\"a\",\"b\"],\"rate\":3}", NULL},
        {VERB_key_add, "{\"name\":\"ci\",\"models\":[]}", NULL},
        {VERB_key_add, "{\"name\":\"ci\",\"models\":\"a\"}", "a list of strings"},
        {VERB_key_add, "{\"name\":\"ci\",\"models\":[\"a\",1]}", "a list of strings"},
        {VERB_key_add, "{\"name\":\"ci\",\"models\":[\"\"]}", "a list of strings"},
        {VERB_key_add, "{\"name\":\"ci\",\"rate\":-1}", "a whole number from 0"},
    };
    struct err err;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *args = body(cases[i].verb, cases[i].body, &err);

        if (!cases[i].error && !args)
            fail_msg("%s: %s", cases[i].body, err.text);
        if (cases[i].error) {
            assert_null(args);
            assert_int_equal(err.status, 400);
            if (!strstr(err.text, cases[i].error))
                fail_msg("%s: %s", cases[i].body, err.text);
        }
        json_decref(args);
    }
}

static void queries(void **unused)
{
    static const struct {
        enum admin_verb_id verb;
        const char *query;
        const char *error;
    } cases[] = {
        {VERB_status, "", NULL},
        {VERB_logs, "replica=hy-mt%40v1%230&lines=20", NULL},
        {VERB_logs, "lines=20", "needs 'replica'"},
        {VERB_logs, "replica=", "'replica' must be a string"},
        {VERB_logs, "replica=%ff", "'replica' must be a string"},
        {VERB_logs, "replica=%4", "percent-encoded"},
        {VERB_logs, "replica=a&lines=-1", "whole number"},
        {VERB_logs, "replica=a&replica=b", "twice"},
        {VERB_logs, "replica=a&line=1", "does not know 'line'"},
        {VERB_receipt, "number=3", NULL},
        {VERB_receipt, "&number=3&", NULL},
        {VERB_receipt, "number=99999999999999999999", "whole number"},
    };
    struct err err;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *args = admin_verb_args(admin_verb(cases[i].verb), span_str(cases[i].query),
                                       span_str(""), &err);

        if (!cases[i].error && !args)
            fail_msg("%s: %s", cases[i].query, err.text);
        if (cases[i].error) {
            assert_null(args);
            if (!strstr(err.text, cases[i].error))
                fail_msg("%s: %s", cases[i].query, err.text);
        }
        json_decref(args);
    }
}

static void values_are_typed(void **unused)
{
    struct err err;
    json_t *args = admin_verb_args(admin_verb(VERB_logs),
                                   span_str("replica=hy-mt%40v1%230&lines=20"), span_str(""), &err);

    assert_string_equal(json_string_value(json_object_get(args, "replica")), "hy-mt@v1#0");
    assert_int_equal(json_integer_value(json_object_get(args, "lines")), 20);
    json_decref(args);
}

static void the_table_lists_itself(void **unused)
{
    json_t *json = admin_verbs_json();

    assert_int_equal(json_array_size(json_object_get(json, "verbs")), ADMIN_NVERBS);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_found_and_has_words),
        cmocka_unit_test(paths),
        cmocka_unit_test(the_wrong_method_is_told_the_right_one),
        cmocka_unit_test(bodies),
        cmocka_unit_test(queries),
        cmocka_unit_test(values_are_typed),
        cmocka_unit_test(the_table_lists_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
