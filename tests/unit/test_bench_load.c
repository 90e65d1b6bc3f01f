/*
 * The load generator's judgement: each way in which an answer can be wrong has a
 * row, and each row is offered whole and byte by byte.
 */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/histogram.h"
#include "bench/switches.h"
#include "bench/verdict.h"

#define V "X-Segue-Version: v1\r\n"
#define GOOD                                                                                    \
    "{\"model\":\"v1\",\"choices\":[{\"message\":{\"content\":\"x\\u4f60\"},\"finish_reason\":" \
    "\"stop\"}]}"
#define PLAIN(body, more) "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" more "\r\n" body
#define STREAM_HEAD                                                                  \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" V "Transfer-Encoding: " \
    "chunked\r\n\r\n"
#define EVENT(model, finish)                                                      \
    "data: {\"model\":\"" model "\",\"choices\":[{\"delta\":{\"content\":\"a\"}," \
    "\"finish_reason\":" finish "}]}\n\n"
#define TOKEN EVENT("v1", "null")
#define LAST EVENT("v1", "\"stop\"")
#define DONE "data: [DONE]\n\n"

/* What a row's bytes are: an answer as it stands, a body that gets a Content-Length, or
 * events that are put into chunks, one each. */
enum form { RAW, BODY, EVENTS };

static const struct {
    const char *name;
    enum form form;
    const char *bytes, *more;
    enum reply_state state;
    enum cause cause;
} rows[] = {
    {"good", BODY, GOOD, V, REPLY_WHOLE, CAUSE_NONE},
    {"informational first", RAW,
     "HTTP/1.1 100 Continue\r\n\r\n" PLAIN("{}", V "Content-Length: 2\r\n"), "", REPLY_WHOLE,
     CAUSE_NO_FINISH},
    {"no body", BODY, "", V, REPLY_WHOLE, CAUSE_NOT_JSON},
    {"one byte too many", BODY, GOOD "}", V, REPLY_WHOLE, CAUSE_NOT_JSON},
    {"not UTF-8", BODY, "{\"a\":\"\xff\"}", V, REPLY_WHOLE, CAUSE_NOT_JSON},
    {"an array", BODY, "[]", V, REPLY_WHOLE, CAUSE_NOT_JSON},
    {"a number with a leading zero", BODY, "{\"a\":01}", V, REPLY_WHOLE, CAUSE_NOT_JSON},
    {"no finish_reason", BODY, "{\"model\":\"v1\",\"choices\":[{\"finish_reason\":null}]}", V,
     REPLY_WHOLE, CAUSE_NO_FINISH},
    {"an error with 200", BODY, "{\"error\":{\"message\":\"x\"}}", V, REPLY_WHOLE,
     CAUSE_ERROR_EVENT},
    {"no version", BODY, GOOD, "", REPLY_WHOLE, CAUSE_NO_VERSION},
    {"the version twice", BODY, GOOD, V V, REPLY_WHOLE, CAUSE_NO_VERSION},
    {"another version in the body", BODY, GOOD, "X-Segue-Version: v2\r\n", REPLY_WHOLE,
     CAUSE_MIXED_VERSIONS},
    {"the version with its model", BODY, GOOD, "X-Segue-Version: hy-mt@v1\r\n", REPLY_WHOLE,
     CAUSE_NONE},
    {"503", RAW, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}", "", REPLY_WHOLE,
     CAUSE_HTTP_503},
    {"502 without a reason", RAW, "HTTP/1.1 502\r\nContent-Length: 2\r\n\r\n{}", "", REPLY_WHOLE,
     CAUSE_HTTP_5XX},
    {"404", RAW, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", "", REPLY_WHOLE,
     CAUSE_HTTP_OTHER},
    {"length and chunks", BODY, GOOD, V "Transfer-Encoding: chunked\r\n", REPLY_BROKEN, CAUSE_NONE},
    {"two lengths", BODY, GOOD, V "Content-Length: 3\r\n", REPLY_BROKEN, CAUSE_NONE},
    {"another protocol", RAW, "SSH-2.0-OpenSSH\r\n\r\n", "", REPLY_BROKEN, CAUSE_NONE},
    {"cut in the head", RAW, "HTTP/1.1 200 OK\r\nContent-", "", REPLY_HEAD, CAUSE_NONE},
    {"cut in the body", RAW, PLAIN(GOOD, "Content-Length: 500\r\n"), "", REPLY_LENGTH, CAUSE_NONE},

    {"a good stream", EVENTS, TOKEN TOKEN LAST DONE, "0\r\n\r\n", REPLY_WHOLE, CAUSE_NONE},
    {"a comment while it waits", EVENTS, ": waiting\n\n" TOKEN LAST DONE, "0\r\n\r\n", REPLY_WHOLE,
     CAUSE_NONE},
    {"trailers", EVENTS, TOKEN LAST DONE, "0\r\nA: b\r\n\r\n", REPLY_WHOLE, CAUSE_NONE},
    {"no last chunk", EVENTS, TOKEN LAST DONE, "", REPLY_CHUNK_SIZE, CAUSE_NONE},
    {"cut in a chunk", EVENTS, TOKEN LAST, "40\r\ndata: {", REPLY_CHUNK_DATA, CAUSE_NONE},
    {"a size that is none", EVENTS, TOKEN, "zz\r\n", REPLY_BROKEN, CAUSE_NONE},
    {"a chunk longer than its size", EVENTS, TOKEN, "1\r\nabc\r\n0\r\n\r\n", REPLY_BROKEN,
     CAUSE_NONE},
    {"no [DONE]", EVENTS, TOKEN LAST, "0\r\n\r\n", REPLY_WHOLE, CAUSE_NO_DONE},
    {"no finish_reason in a stream", EVENTS, TOKEN DONE, "0\r\n\r\n", REPLY_WHOLE, CAUSE_NO_FINISH},
    {"two versions in a stream", EVENTS, TOKEN EVENT("v2", "null") LAST DONE, "0\r\n\r\n",
     REPLY_WHOLE, CAUSE_MIXED_VERSIONS},
    {"an error event", EVENTS, TOKEN "data: {\"error\":{\"message\":\"x\"}}\n\n" DONE, "0\r\n\r\n",
     REPLY_WHOLE, CAUSE_ERROR_EVENT},
    {"an event that is not JSON", EVENTS, TOKEN "data: {\"a\":}\n\n" LAST DONE, "0\r\n\r\n",
     REPLY_WHOLE, CAUSE_NOT_JSON},
    {"an event after [DONE]", EVENTS, LAST DONE TOKEN, "0\r\n\r\n", REPLY_WHOLE, CAUSE_NOT_EVENTS},
    {"an event without its empty line", EVENTS, LAST "data: [DONE]\n", "0\r\n\r\n", REPLY_WHOLE,
     CAUSE_NOT_EVENTS},
    {"a line that is no field", EVENTS, TOKEN "garbage\n\n" LAST DONE, "0\r\n\r\n", REPLY_WHOLE,
     CAUSE_NOT_EVENTS},
    {"JSON for a stream", BODY, GOOD, V, REPLY_WHOLE, CAUSE_NONE},
};

static void on_body(void *arg, struct span body)
{
    void **both = arg;
    struct verdict *v = both[0];
    const struct reply *r = both[1];

    if (!both[2])
        verdict_head(v, r);
    both[2] = v;
    verdict_body(v, body);
}

static struct buf bytes_of(enum form form, const char *bytes, const char *more)
{
    struct buf b = {0};

    if (form == RAW)
        buf_add_str(&b, bytes);
    if (form == BODY)
        buf_addf(
            &b,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%s",
            strlen(bytes), more, bytes);
    if (form != EVENTS)
        return b;
    buf_add_str(&b, STREAM_HEAD);
    for (const char *p = bytes; *p;) {
        const char *end = strstr(p, "\n\n");
        size_t n = end ? (size_t)(end - p) + 2 : strlen(p);
        buf_addf(&b, "%zx;x=y\r\n%.*s\r\n", n, (int)n, p);
        p += n;
    }
    buf_add_str(&b, more);
    return b;
}

/* Offers the bytes in steps, as a socket would give them. */
static void offer(size_t row, size_t step)
{
    static struct facts_memory memory;
    struct verdict v = {.memory = &memory};
    struct reply r;
    struct buf b = bytes_of(rows[row].form, rows[row].bytes, rows[row].more), held = {0};
    void *both[3] = {&v, &r, NULL};
    struct span all = buf_span(&b);

    reply_begin(&r);
    verdict_begin(&v, rows[row].form == EVENTS, false);
    for (size_t at = 0; at < all.n; at += step) {
        buf_add(&held, all.p + at, all.n - at < step ? all.n - at : step);
        buf_consume(&held, reply_feed(&r, buf_head(&held), buf_pending(&held), on_body, both));
    }
    if (r.state != rows[row].state)
        fail_msg("%s, step %zu: state %d, wanted %d", rows[row].name, step, (int)r.state,
                 (int)rows[row].state);
    if (r.state == REPLY_WHOLE) {
        if (!both[2])
            verdict_head(&v, &r);
        enum cause cause = verdict_end(&v, &r, true);
        if (cause != rows[row].cause)
            fail_msg("%s, step %zu: %s, wanted %s", rows[row].name, step, cause_name(cause),
                     cause_name(rows[row].cause));
        assert_int_equal(buf_pending(&held), 0);
    }
    verdict_fini(&v);
    buf_fini(&held);
    buf_fini(&b);
}

static void test_answers(void **state)
{
    static const size_t steps[] = {1 << 20, 1, 2, 7};

    for (size_t i = 0; i < COUNT_OF(rows); i++)
        for (size_t s = 0; s < COUNT_OF(steps); s++)
            offer(i, steps[s]);
}

static void test_until_close(void **state)
{
    static const char bytes[] = "HTTP/1.0 200 OK\r\n\r\n{}";
    struct verdict v = {0};
    struct reply r;
    void *both[3] = {&v, &r, NULL};

    reply_begin(&r);
    verdict_begin(&v, false, false);
    assert_int_equal(reply_feed(&r, bytes, sizeof(bytes) - 1, on_body, both), sizeof(bytes) - 1);
    assert_int_equal(r.state, REPLY_UNTIL_CLOSE);
    assert_false(r.keep_alive);
    assert_true(reply_closed(&r));
    assert_span(buf_span(&v.held), "{}");
    verdict_fini(&v);
}

static void test_text(void **state)
{
    static const struct {
        const char *raw, *text;
    } cases[] = {{"abc", "abc"},
                 {"a\\n\\t\\\"\\\\\\/", "a\n\t\"\\/"},
                 {"\\u4f60\\u00e9\\u0041", "你éA"},
                 {"\\ud83d\\ude00!", "😀!"},
                 {"\\ud83d!", "\xef\xbf\xbd!"}};

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        facts_unescape(&b, span_str(cases[i].raw));
        assert_span(buf_span(&b), cases[i].text);
        buf_fini(&b);
    }
}

static void test_histogram(void **state)
{
    static struct histogram h, more;

    assert_int_equal(histogram_quantile(&h, 0.5), 0);
    for (uint64_t v = 1; v <= 100000; v++)
        histogram_add(v % 2 ? &h : &more, v * 1000);
    histogram_merge(&h, &more);
    for (int i = 1; i <= 99; i++) {
        double want = i * 1e6, got = (double)histogram_quantile(&h, i / 100.0);
        assert_true(got >= want * 0.999 && got <= want * 1.01);
    }
    assert_int_equal(histogram_quantile(&h, 1), 100000000);
    histogram_add(&h, UINT64_MAX);
    assert_int_equal(h.max, UINT64_MAX);
}

static void test_switches(void **state)
{
    /* v1 from 100; v2 asked for at 190, acknowledged at 200; v1 again from 300. */
    static const char log[] = "100 v1 90\n200 hy-mt@v2 190\n300 v1 290\n";
    static const struct {
        uint64_t started, ended;
        const char *version;
        bool contradicts;
    } cases[] = {
        {50, 60, "v2", false}, /* before the first line nothing is known */
        {110, 120, "v1", false}, {110, 120, "v2", true},
        {110, 195, "v2", false}, /* the next switch had begun when it was answered */
        {195, 199, "v2", false}, {195, 199, "v1", false},
        {200, 210, "v2", false}, {200, 210, "v1", true},
        {210, 280, "v1", true},  {210, 290, "v1", false},
        {300, 400, "v1", false}, {300, 400, "v2", true},
        {110, 400, "v3", true},
    };
    static struct names names;
    struct err err;
    char path[] = "/tmp/segue-test-switches-XXXXXX";

    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, log, sizeof(log) - 1), sizeof(log) - 1);
    close(fd);
    names_init(&names);
    struct switches *s = switches_open(path, &err);
    assert_non_null(s);
    switches_read(s, &names);
    assert_int_equal(switches_count(s), 3);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct record r = {cases[i].started, cases[i].ended, names_index(&names, cases[i].version)};
        if (switches_contradicts(s, &r) != cases[i].contradicts)
            fail_msg("row %zu", i);
    }
    switches_close(s);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),  cmocka_unit_test(test_until_close),
        cmocka_unit_test(test_text),     cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_switches),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
