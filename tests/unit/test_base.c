/*
 * The base library: spans, buffers, UTF-8, errors, lists.
 */
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "base/utf8.h"

#include <stdlib.h>

#include "test.h"

static void spans(void **state)
{
    uint64_t v = 1;

    assert_true(span_eq(SPAN_LIT(""), span_of(NULL, 0)));
    assert_true(span_eq_nocase(SPAN_LIT("Content-TYPE"), SPAN_LIT("content-type")));
    assert_false(span_eq_nocase(SPAN_LIT("a["), SPAN_LIT("a{")));
    assert_false(span_eq_nocase(SPAN_LIT("ab"), SPAN_LIT("abc")));
    assert_true(span_starts(SPAN_LIT("unix:/x"), SPAN_LIT("unix:")));
    assert_false(span_starts(SPAN_LIT("uni"), SPAN_LIT("unix:")));
    assert_span(span_trim(SPAN_LIT(" \t a b \t")), "a b");
    assert_span(span_trim(SPAN_LIT(" \t ")), "");
    assert_int_equal(span_index(SPAN_LIT("a,b"), ','), 1);
    assert_int_equal(span_index(SPAN_LIT("ab"), ','), 2);
    assert_int_equal(span_index(span_of(NULL, 0), ','), 0);

    const struct {
        const char *text;
        bool ok;
        uint64_t value;
    } numbers[] = {
        {"0", true, 0},
        {"007", true, 7},
        {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0},
        {"99999999999999999999", false, 0},
        {"", false, 0},
        {"+1", false, 0},
        {"-1", false, 0},
        {" 1", false, 0},
        {"1 ", false, 0},
        {"0x1", false, 0},
        {"1,1", false, 0},
    };
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        assert_int_equal(span_u64(span_str(numbers[i].text), &v), numbers[i].ok);
        if (numbers[i].ok)
            assert_true(v == numbers[i].value);
    }
}

static void buffers(void **state)
{
    struct buf b = {0};
    char big[5000];

    memset(big, 'x', sizeof(big));
    buf_add_str(&b, "one ");
    buf_add_u64(&b, 0);
    buf_add_char(&b, ' ');
    buf_add_u64(&b, UINT64_MAX);
    assert_string_equal(buf_cstr(&b), "one 0 18446744073709551615");
    buf_consume(&b, 4);
    buf_addf(&b, "|%s|%d", "x", -3);
    assert_span(buf_span(&b), "0 18446744073709551615|x|-3");
    buf_consume(&b, buf_pending(&b));
    assert_int_equal(b.pos, 0);

    /* Many rounds of adding and consuming keep order and stay small. */
    size_t in = 0, out = 0;
    for (int round = 0; round < 2000; round++) {
        for (size_t k = 0; k < (size_t)(round * 7 % 50); k++)
            buf_add_char(&b, (char)(in++ % 251));
        while (buf_pending(&b) > 20) {
            assert_int_equal((unsigned char)*buf_head(&b), out++ % 251);
            buf_consume(&b, 1);
        }
    }
    assert_true(b.cap <= 512);
    buf_clear(&b);
    buf_add(&b, big, sizeof(big));
    buf_consume(&b, 4999);
    char *text = buf_take(&b);
    assert_string_equal(text, "x");
    free(text);
    assert_int_equal(b.cap, 0);
    text = buf_take(&b);
    assert_string_equal(text, "");
    free(text);
    buf_fini(&b);
}

static void json_text(void **state)
{
    struct buf b = {0};

    buf_add_json(&b,
                 SPAN_LIT("a\"b\\c\n\r\t\x01\x1f/\x7f\xe4\xbd\xa0\xff\xc0\x80\xf0\x9f\x98\x80"));
    assert_span(buf_span(&b), "a\\\"b\\\\c\\n\\r\\t\\u0001\\u001f/\x7f\xe4\xbd\xa0"
                              "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xf0\x9f\x98\x80");
    buf_fini(&b);
}

static void utf8(void **state)
{
    const struct {
        const char *text;
        bool valid;
        size_t whole; /* bytes that utf8_whole() passes */
    } cases[] = {
        {"", true, 0},
        {"plain", true, 5},
        {"\xc3\xa9", true, 2},
        {"\xe4\xbd\xa0\xe5\xa5\xbd", true, 6},
        {"\xf0\x9f\x98\x80", true, 4},
        {"\xed\x9f\xbf", true, 3},
        {"\xf4\x8f\xbf\xbf", true, 4},
        {"a\xc3", false, 1},
        {"a\xe4\xbd", false, 1},
        {"a\xf0\x9f\x98", false, 1},
        {"a\xf0", false, 1},
        {"\xc0\x80", false, 2},         /* overlong */
        {"\xe0\x80\x80", false, 3},     /* overlong */
        {"\xed\xa0\x80", false, 3},     /* surrogate */
        {"\xf4\x90\x80\x80", false, 4}, /* above U+10FFFF */
        {"\xf5\x80\x80\x80", false, 4},
        {"\x80", false, 1},
        {"a\xed\xa0", false, 3}, /* can become nothing: not held back */
        {"\xe4\xbd\x41", false, 3},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t n = strlen(cases[i].text);
        assert_int_equal(utf8_valid(cases[i].text, n), cases[i].valid);
        assert_int_equal(utf8_whole(cases[i].text, n), cases[i].whole);
    }
}

static void errors(void **state)
{
    struct err err;

    assert_int_equal(err_set(NULL, 400, "nobody reads %s", "this"), -1);
    assert_int_equal(err_prefix(NULL, "nor this"), -1);
    assert_int_equal(err_set(&err, 409, "port %d", 80), -1);
    assert_int_equal(err.status, 409);
    assert_int_equal(err_prefix(&err, "listen %s", "here"), -1);
    assert_string_equal(err.text, "listen here: port 80");

    char long_text[3000];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    assert_int_equal(err_set(&err, 500, "%s", long_text), -1);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
    assert_int_equal(err_prefix(&err, "%s", long_text), -1);
    assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
}

static void lists(void **state)
{
    struct item {
        struct list link;
        int n;
    } items[3] = {{.n = 0}, {.n = 1}, {.n = 2}};
    struct list head;
    int seen = 0;

    list_init(&head);
    assert_true(list_empty(&head));
    list_append(&head, &items[1].link);
    list_append(&head, &items[2].link);
    list_prepend(&head, &items[0].link);
    LIST_FOR_EACH(it, &head)
    assert_int_equal(CONTAINER_OF(it, struct item, link)->n, seen++);
    assert_int_equal(seen, 3);
    LIST_FOR_EACH_SAFE(it, &head)
    list_remove(it);
    assert_true(list_empty(&head));
    list_remove(&items[1].link);
    assert_true(list_empty(&items[1].link));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spans), cmocka_unit_test(buffers), cmocka_unit_test(json_text),
        cmocka_unit_test(utf8),  cmocka_unit_test(errors),  cmocka_unit_test(lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
