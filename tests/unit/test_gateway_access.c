/* access - the lines of the access log: members, what is missing, what is escaped. */
#include "test.h"

#include <stdlib.h>

#include "gateway/access.h"

static const struct access_record whole = {
    .wall_ms = 1769860800123,
    .request_id = {"abc-1", 5},
    .client = {"192.0.2.7", 9},
    .key = {"alice", 5},
    .method = {"POST", 4},
    .path = {"/v1/chat/completions", 20},
    .model = {"hy-mt", 5},
    .version = {"hy-mt@v1", 8},
    .replica = {"hy-mt@v1#0", 10},
    .status = 200,
    .outcome = ACCESS_FINISHED,
    .bytes = 1234,
    .events = 17,
    .first_byte_us = 12345,
    .token_us = 7,
    .total_us = 1000000,
    .held_us = 0,
    .tries = 1,
    .overhead_us = 42,
};

static const struct access_record bare = {
    .wall_ms = 1769860800000,
    .client = {"::1", 3},
    .status = 400,
    .outcome = ACCESS_REFUSED,
    .error = {"bad_request", 11},
    .first_byte_us = ACCESS_NONE,
    .token_us = ACCESS_NONE,
    .overhead_us = ACCESS_NONE,
};

static void is_line(const struct access_record *r, bool text, const char *want)
{
    struct buf out = {0};

    access_format(&out, r, text);
    assert_span(buf_span(&out), want);
    buf_fini(&out);
}

static void test_json(void **state)
{
    is_line(&whole, false,
            "{\"time\":\"2026-01-31T12:00:00.123Z\",\"request_id\":\"abc-1\","
            "\"client\":\"192.0.2.7\",\"key\":\"alice\",\"method\":\"POST\","
            "\"path\":\"/v1/chat/completions\",\"model\":\"hy-mt\",\"version\":\"hy-mt@v1\","
            "\"replica\":\"hy-mt@v1#0\",\"status\":200,\"outcome\":\"finished\",\"error\":null,"
            "\"bytes\":1234,\"events\":17,\"first_byte_ms\":12.345,\"token_ms\":0.007,"
            "\"total_ms\":1000.000,\"held_ms\":0.000,\"tries\":1,\"overhead_us\":42}\n");
    is_line(&bare, false,
            "{\"time\":\"2026-01-31T12:00:00.000Z\",\"request_id\":null,\"client\":\"::1\","
            "\"key\":null,\"method\":null,\"path\":null,\"model\":null,\"version\":null,"
            "\"replica\":null,\"status\":400,\"outcome\":\"refused\",\"error\":\"bad_request\","
            "\"bytes\":0,\"events\":0,\"first_byte_ms\":null,\"token_ms\":null,"
            "\"total_ms\":0.000,\"held_ms\":0.000,\"tries\":0,\"overhead_us\":null}\n");
}

static void test_text(void **state)
{
    is_line(&whole, true,
            "time=2026-01-31T12:00:00.123Z request_id=abc-1 client=192.0.2.7 key=alice method=POST "
            "path=/v1/chat/completions model=hy-mt version=hy-mt@v1 replica=hy-mt@v1#0 status=200 "
            "outcome=finished error=- bytes=1234 events=17 first_byte_ms=12.345 token_ms=0.007 "
            "total_ms=1000.000 held_ms=0.000 tries=1 overhead_us=42\n");
    is_line(&bare, true,
            "time=2026-01-31T12:00:00.000Z request_id=- client=::1 key=- method=- path=- model=- "
            "version=- replica=- status=400 outcome=refused error=bad_request bytes=0 events=0 "
            "first_byte_ms=- token_ms=- total_ms=0.000 held_ms=0.000 tries=0 overhead_us=-\n");
}

/* What a client writes as a model's name, and how it stands in a line. */
static void test_escaping(void **state)
{
    static const struct {
        struct span name;
        const char *json, *text;
    } rows[] = {
        {SPAN_LIT("a\"b\\c"), "\"model\":\"a\\\"b\\\\c\",", " model=\"a\\\"b\\\\c\" "},
        {SPAN_LIT("a\nb\r\t"), "\"a\\u000ab\\u000d\\u0009\"", "\"a\\u000ab\\u000d\\u0009\""},
        {SPAN_LIT("a\0b\x7f\x1b[2J"), "\"a\\u0000b\\u007f\\u001b[2J\"",
         "\"a\\u0000b\\u007f\\u001b[2J\""},
        {SPAN_LIT("a b=c"), "\"a b=c\"", " model=\"a b=c\" "},
        {SPAN_LIT("-"), "\"-\"", " model=\"-\" "},
        /* Line ends of other readers than cat: NEL, LINE SEPARATOR; and no UTF-8 at all. */
        {SPAN_LIT("\xc2\x85\xe2\x80\xa8"), "\"\\u0085\\u2028\"", "\"\\u0085\\u2028\""},
        {SPAN_LIT("\xf0\x9f\x98\x80"), "\"\\ud83d\\ude00\"", "\"\\ud83d\\ude00\""},
        {SPAN_LIT("\xe4\xbd\xa0\xff\xed\xa0\x80"), "\"\\u4f60\\ufffd\\ufffd\\ufffd\\ufffd\"",
         "\"\\u4f60\\ufffd\\ufffd\\ufffd\\ufffd\""},
    };

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (int text = 0; text < 2; text++) {
            struct access_record r = whole;
            struct buf out = {0};
            r.model = rows[i].name;
            access_format(&out, &r, text);
            assert_non_null(strstr(buf_cstr(&out), text ? rows[i].text : rows[i].json));
            assert_int_equal(span_index(buf_span(&out), '\n'), buf_pending(&out) - 1);
            buf_fini(&out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_escaping),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
