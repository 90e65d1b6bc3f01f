/*
 * The JSON scanner: the table of json_cases.h, finding members in every
 * spelling, splicing one of them, decoding strings, depth.
 */
#include "json/scan.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "json_cases.h"
#include "test.h"

/* Scans a copy with nothing readable behind it. */
static enum json_fault verdict(struct span text, size_t *at)
{
    char *copy = malloc(text.n ? text.n : 1);
    struct json_member members[] = {{"model"}, {"stream"}};
    bool empty;

    memcpy(copy, text.p, text.n);
    enum json_fault fault = json_scan(span_of(copy, text.n), members, 2, at, &empty);
    free(copy);
    return fault;
}

static void table(void **state)
{
    size_t at;

    for (size_t i = 0; i < COUNT_OF(json_cases); i++) {
        const struct json_case *c = &json_cases[i];
        enum json_fault fault = verdict(c->text, &at);
        if (fault != c->fault)
            fail_msg("%s: got \"%s\" at %zu", c->name, json_fault_text(fault), at);
        assert_true(at <= c->text.n);

        /* No text that is valid has a beginning that is; numbers aside. */
        bool valid = c->fault == JSON_NONE || c->fault == JSON_NOT_OBJECT;
        size_t whole = span_trim(c->text).n + (size_t)(span_trim(c->text).p - c->text.p);
        while (whole && strchr("\r\n", c->text.p[whole - 1]))
            whole--;
        for (size_t n = 0; valid && n < whole && c->text.p[whole - 1] == '}'; n++) {
            fault = verdict(span_of(c->text.p, n), &at);
            assert_true(fault == JSON_SYNTAX || fault == JSON_EMPTY || fault == JSON_UTF8);
        }
    }
}

static void members(void **state)
{
    static const struct {
        const char *text;
        enum json_kind kind;
        const char *value;
        bool escaped;
    } cases[] = {
        {"{\"model\":\"m\"}", JSON_STRING, "\"m\"", false},
        {"{ \"model\" : \"m\" }", JSON_STRING, "\"m\"", false},
        {"{\"a\":1,\"b\":[{\"model\":1}],\"model\":\"last\"}", JSON_STRING, "\"last\"", false},
        {"{\"\\u006dodel\":\"m\"}", JSON_STRING, "\"m\"", false},
        {"{\"\\u006D\\u006f\\u0064\\u0065\\u006C\":\"m\"}", JSON_STRING, "\"m\"", false},
        {"{\"model\":\"a\\/\\u0062\"}", JSON_STRING, "\"a\\/\\u0062\"", true},
        {"{\"model\":\"\"}", JSON_STRING, "\"\"", false},
        {"{\"model\":-1.5e3}", JSON_NUMBER, "-1.5e3", false},
        {"{\"model\":0}", JSON_NUMBER, "0", false},
        {"{\"model\":true}", JSON_TRUE, "true", false},
        {"{\"model\":false }", JSON_FALSE, "false", false},
        {"{\"model\":null\n}", JSON_NULL, "null", false},
        {"{\"model\":{}}", JSON_OBJECT, "{}", false},
        {"{\"model\":[]}", JSON_ARRAY, "[]", false},
        {"{\"model\": {\"model\":\"inner\",\"x\":[{}]} ,\"z\":1}", JSON_OBJECT,
         "{\"model\":\"inner\",\"x\":[{}]}", false},
        {"{\"model\":[ [\"]\"] ] }", JSON_ARRAY, "[ [\"]\"] ]", false},
        {"{\"a\":{\"model\":\"nested\"}}", JSON_ABSENT, "", false},
        {"{\"a\":[\"model\",\"m\"]}", JSON_ABSENT, "", false},
        {"{\"Model\":1,\"model \":2,\"mode\":3,\"models\":4,\"\":5}", JSON_ABSENT, "", false},
        {"{\"\\ud800model\":1,\"model\\u0000\":2}", JSON_ABSENT, "", false},
        {"{\"model\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064"
         "\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064"
         "\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064"
         "\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064"
         "\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\\u0064\":1}",
         JSON_ABSENT, "", false},
        {"{}", JSON_ABSENT, "", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        /* What was in the struct before does not matter. */
        struct json_member m[] = {{"stream", JSON_TRUE, SPAN_LIT("x"), true},
                                  {"model", JSON_TRUE, SPAN_LIT("x"), true}};
        size_t at;
        bool empty = i % 2;
        assert_int_equal(json_scan(span_str(cases[i].text), m, 2, &at, &empty), JSON_NONE);
        assert_int_equal(m[0].kind, JSON_ABSENT);
        assert_int_equal(m[1].kind, cases[i].kind);
        assert_span(m[1].value, cases[i].value);
        assert_int_equal(m[1].escaped, cases[i].escaped);
        assert_int_equal(empty, strcmp(cases[i].text, "{}") == 0);
        assert_int_equal(at, strlen(cases[i].text));
    }
}

static void duplicates(void **state)
{
    struct json_member m[] = {{"model"}, {"stream"}};
    size_t at;

    assert_int_equal(
        json_scan(SPAN_LIT("{\"model\":1,\"x\":2,\"x\":3,\"model\":1}"), m, 2, &at, NULL),
        JSON_DUPLICATE);
    assert_int_equal(at, 23);
    assert_int_equal(json_scan(SPAN_LIT("{\"stream\":{},\"str\\u0065am\":{}}"), m, 2, &at, NULL),
                     JSON_DUPLICATE);
    assert_int_equal(
        json_scan(SPAN_LIT("{\"x\":{\"model\":1,\"model\":2},\"model\":3}"), m, 2, &at, NULL),
        JSON_NONE);
    assert_int_equal(json_scan(SPAN_LIT("{\"model\":1,\"model\":2}"), NULL, 0, &at, NULL),
                     JSON_NONE);
}

static void empty_objects(void **state)
{
    static const struct {
        const char *text;
        bool empty;
    } cases[] = {{"{}", true},   {" { \n } ", true},     {"{\"a\":{}}", false},
                 {"[]", false},  {"{\"\":\"\"}", false}, {"{ \"a\":1 }", false},
                 {"[{}]", false}};
    size_t at;
    bool empty;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        enum json_fault fault = json_scan(span_str(cases[i].text), NULL, 0, &at, &empty);
        assert_true(fault == JSON_NONE || fault == JSON_NOT_OBJECT);
        assert_int_equal(empty, cases[i].empty);
    }
}

static void depth(void **state)
{
    struct buf text = {0};
    size_t at;

    for (int form = 0; form < 3; form++) {
        for (int levels = JSON_DEPTH_MAX - 1; levels <= JSON_DEPTH_MAX + 1; levels++) {
            buf_clear(&text);
            buf_add_str(&text, "{\"model\":");
            for (int i = 1; i < levels; i++)
                buf_add_str(&text, form == 0 || (form == 2 && i % 3) ? "[" : "{\"model\":");
            buf_add_char(&text, '1');
            for (int i = levels - 1; i > 0; i--)
                buf_add_char(&text, form == 0 || (form == 2 && i % 3) ? ']' : '}');
            buf_add_char(&text, '}');
            assert_int_equal(verdict(buf_span(&text), &at),
                             levels <= JSON_DEPTH_MAX ? JSON_NONE : JSON_DEEP);
        }
    }
    /* Closing with the wrong bracket is noticed at every depth. */
    for (int wrong = 0; wrong < 200; wrong++) {
        buf_clear(&text);
        for (int i = 0; i < 200; i++)
            buf_add_str(&text, i % 2 ? "[" : "{\"a\":");
        buf_add_char(&text, '1');
        for (int i = 199; i >= 0; i--)
            buf_add_char(&text, (i % 2 == 1) != (i == wrong) ? ']' : '}');
        assert_int_equal(verdict(buf_span(&text), &at), JSON_SYNTAX);
    }
    buf_fini(&text);
}

/* The gateway's use: another model, every other byte as it came. */
static void splice(void **state)
{
    static const struct {
        const char *before, *after;
    } cases[] = {
        {"{\"model\":\"hy-mt\",\"stream\":true}", "{\"model\":\"hy-mt@v2\",\"stream\":true}"},
        {" {\"a\" : 1e+5,\n \"\\u006dodel\" :\t\"\\u0068y\" }",
         " {\"a\" : 1e+5,\n \"\\u006dodel\" :\t\"hy-mt@v2\" }"},
        {"{\"x\":\"\xe4\xbd\xa0\\ud83d\",\"model\":\"\"}",
         "{\"x\":\"\xe4\xbd\xa0\\ud83d\",\"model\":\"hy-mt@v2\"}"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct span body = span_str(cases[i].before);
        struct json_member model = {"model"};
        struct buf out = {0};
        size_t at;
        assert_int_equal(json_scan(body, &model, 1, &at, NULL), JSON_NONE);
        buf_add(&out, body.p, (size_t)(model.value.p - body.p));
        buf_add_str(&out, "\"hy-mt@v2\"");
        const char *rest = model.value.p + model.value.n;
        buf_add(&out, rest, (size_t)(body.p + body.n - rest));
        assert_span(buf_span(&out), cases[i].after);
        assert_int_equal(json_scan(buf_span(&out), &model, 1, &at, NULL), JSON_NONE);
        buf_fini(&out);
    }
}

static void strings(void **state)
{
    static const struct {
        const char *value, *text;
    } cases[] = {
        {"\"\"", ""},
        {"\"hy-mt\"", "hy-mt"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e9\\u4f60\\ud83d\\ude00\"", "A\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80"},
        {"\"\\u07ff\\u0800\\uffff\\udbff\\udfff\"",
         "\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf4\x8f\xbf\xbf"},
        {"\"\xe4\xbd\xa0\"", "\xe4\xbd\xa0"},
        {"\"\\\\u0041\"", "\\u0041"},
        {"\"\\u0000\"", NULL},
        {"\"a\\ud800\"", NULL},
        {"\"\\udc00a\"", NULL},
        {"\"\\ud800\\u0041\"", NULL},
        {"\"\\ud800\\\\udc00\"", NULL},
    };
    char out[64];

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int n = json_scan_string(span_str(cases[i].value), out, sizeof(out));
        if (!cases[i].text) {
            assert_int_equal(n, -1);
            continue;
        }
        assert_int_equal(n, strlen(cases[i].text));
        assert_string_equal(out, cases[i].text);
        /* Exactly as much room as it needs, and a byte less. */
        char *tight = malloc((size_t)n + 1);
        assert_int_equal(json_scan_string(span_str(cases[i].value), tight, (size_t)n + 1), n);
        assert_int_equal(json_scan_string(span_str(cases[i].value), tight, (size_t)n), -1);
        free(tight);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),         cmocka_unit_test(members), cmocka_unit_test(duplicates),
        cmocka_unit_test(empty_objects), cmocka_unit_test(depth),   cmocka_unit_test(splice),
        cmocka_unit_test(strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
