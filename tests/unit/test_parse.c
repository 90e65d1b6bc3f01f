/*
 * Heads: a table of cases for each refusal and each framing, and the same heads
 * at every offset and from a buffer of exactly their size (so that a read
 * beyond it is found by the sanitizers).
 */
#include "http/parse.h"

#include <stdio.h>
#include <stdlib.h>

#include "test.h"

#define OK HTTP_FAULT_NONE
#define BAD(id) HTTP_FAULT_##id
#define GET11 "GET / HTTP/1.1\r\n"
#define H "Host: h\r\n"

/* n bytes on the heap, with nothing readable behind them. */
static char *exact(const char *p, size_t n)
{
    char *copy = malloc(n ? n : 1);

    memcpy(copy, p, n);
    return copy;
}

static enum http_fault request(struct http_request_head *head, const char *text)
{
    size_t n = strlen(text), scanned = 0;
    size_t end = http_head_end(text, n, &scanned);

    if (end != n)
        fail_msg("the end of \"%s\" was found at %zu of %zu", text, end, n);
    /* Spans into `copy` do not outlive it: the verdict alone is returned from
     * there, the spans come from a second run over `text`. */
    char *copy = exact(text, n);
    enum http_fault fault = http_parse_request(head, copy, n);
    free(copy);
    assert_int_equal(http_parse_request(head, text, n), fault);
    return fault;
}

static void request_verdicts(void **state)
{
    static const struct {
        const char *text;
        enum http_fault fault;
    } cases[] = {
        {GET11 H "\r\n", OK},
        /* the request line */
        {"GET /a/b;c=d,e?x=%20&y=[1]{2}|3^`'()*+!$:@~_-. HTTP/1.1\r\n" H "\r\n", OK},
        {"get / HTTP/1.1\r\n" H "\r\n", OK},
        {"X-!#$%&'*+.^_`|~9 / HTTP/1.1\r\n" H "\r\n", OK},
        {" GET / HTTP/1.1\r\n" H "\r\n", BAD(BAD_LINE)},
        {"GET\t/ HTTP/1.1\r\n" H "\r\n", BAD(BAD_METHOD)},
        {"G(T / HTTP/1.1\r\n" H "\r\n", BAD(BAD_METHOD)},
        {"G\x80T / HTTP/1.1\r\n" H "\r\n", BAD(BAD_METHOD)},
        {"GET\r\n" H "\r\n", BAD(BAD_METHOD)},
        {"GET  / HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /  HTTP/1.1\r\n" H "\r\n", BAD(BAD_LINE)},
        {"GET / HTTP/1.1 \r\n" H "\r\n", BAD(BAD_LINE)},
        {"GET /\r\n" H "\r\n", BAD(BAD_LINE)},
        {"GET / http/1.1\r\n" H "\r\n", BAD(BAD_LINE)},
        {"GET / HTTP/11\r\n" H "\r\n", BAD(BAD_LINE)},
        {"GET / HTTP/1.10\r\n" H "\r\n", BAD(BAD_LINE)},
        {"GET / HTTPS/1.1\r\n" H "\r\n", BAD(BAD_LINE)},
        {"GET / HTTP/1.1\n" H "\r\n", BAD(BARE_CR_OR_LF)},
        {"GET / HTTP/1.1\r" H "\r\n", BAD(BARE_CR_OR_LF)},
        {"GET /\n" H "\r\n", BAD(BARE_CR_OR_LF)},
        {"GET / HTTP/1.2\r\n" H "\r\n", BAD(BAD_VERSION)},
        {"GET / HTTP/2.0\r\n" H "\r\n", BAD(BAD_VERSION)},
        {"GET / HTTP/0.9\r\n" H "\r\n", BAD(BAD_VERSION)},
        {"PRI * HTTP/2.0\r\n\r\n", BAD(BAD_VERSION)},
        {"\r\nGET / HTTP/1.1\r\n" H "\r\n", BAD(BAD_LINE)},
        /* the target */
        {"GET a HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET * HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"OPTIONS * HTTP/1.1\r\n" H "\r\n", OK},
        {"OPTIONS */ HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"CONNECT h:443 HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /#f HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /a\x01 HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /a\x7f HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /\xe4\xbd\xa0 HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /\" HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /< HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /\\ HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /% HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /%2 HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET /%2g HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET http://h HTTP/1.1\r\n" H "\r\n", OK},
        {"GET HTTP://H/x HTTP/1.1\r\n" H "\r\n", OK},
        {"GET https://h?q HTTP/1.1\r\n" H "\r\n", OK},
        {"GET http://h/ HTTP/1.0\r\n\r\n", OK},
        {"GET http://other/ HTTP/1.1\r\n" H "\r\n", BAD(HOST_MISMATCH)},
        {"GET http://h:80/ HTTP/1.1\r\n" H "\r\n", BAD(HOST_MISMATCH)},
        {"GET http://u@h/ HTTP/1.1\r\nHost: u@h\r\n\r\n", BAD(BAD_TARGET)},
        {"GET http:/// HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET http:// HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        {"GET ftp://h/ HTTP/1.1\r\n" H "\r\n", BAD(BAD_TARGET)},
        /* Host */
        {GET11 "\r\n", BAD(NO_HOST)},
        {"GET / HTTP/1.0\r\n\r\n", OK},
        {GET11 H H "\r\n", BAD(BAD_HOST)},
        {"GET / HTTP/1.0\r\n" H H "\r\n", BAD(BAD_HOST)},
        {GET11 "Host:\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: a b\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: a,b\r\n\r\n", OK}, /* a reg-name may hold sub-delims */
        {GET11 "Host: a/b\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: u@b\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: \xe4\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: a%2\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "hOsT:a.b-c_d%20:65535\r\n\r\n", OK},
        {GET11 "Host: a:\r\n\r\n", OK},
        {GET11 "Host: :80\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: a:65536\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: a:99999999999999999999\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: a:-1\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: [::1]:8080\r\n\r\n", OK},
        {GET11 "Host: [::ffff:1.2.3.4]\r\n\r\n", OK},
        {GET11 "Host: [::1\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: []\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: [::1]x\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: [::1%25lo]\r\n\r\n", BAD(BAD_HOST)},
        {GET11 "Host: [1.2.3.4]\r\n\r\n", BAD(BAD_HOST)},
        /* field lines */
        {GET11 H "A:\r\nB: \t \r\nC:x\r\n\r\n", OK},
        {GET11 H "A: \x80\xff \tb\r\n\r\n", OK},
        {GET11 H "A : b\r\n\r\n", BAD(BAD_FIELD_NAME)},
        {GET11 H ": b\r\n\r\n", BAD(BAD_FIELD_NAME)},
        {GET11 H "A\r\n\r\n", BAD(BAD_FIELD_NAME)},
        {GET11 H "A(b): c\r\n\r\n", BAD(BAD_FIELD_NAME)},
        {GET11 H "\x80: c\r\n\r\n", BAD(BAD_FIELD_NAME)},
        {GET11 H "A\n\r\n", BAD(BARE_CR_OR_LF)},
        {GET11 H "A: b\n\r\n", BAD(BARE_CR_OR_LF)},
        {GET11 H "A: b\rc\r\n\r\n", BAD(BARE_CR_OR_LF)},
        {GET11 H "A: b\r\r\n\r\n", BAD(BARE_CR_OR_LF)},
        {GET11 H "A: b\r\n\n", BAD(BARE_CR_OR_LF)},
        {GET11 H "A: b\n\n", BAD(BARE_CR_OR_LF)},
        {GET11 H "A: b\x01\r\n\r\n", BAD(BAD_FIELD_VALUE)},
        {GET11 H "A: b\x7f"
                 "c\r\n\r\n",
         BAD(BAD_FIELD_VALUE)},
        {GET11 H "A: b\x1b[0m, a longer value behind it\r\n\r\n", BAD(BAD_FIELD_VALUE)},
        {GET11 H "A: b\r\n c\r\n\r\n", BAD(OBS_FOLD)},
        {GET11 H "A: b\r\n\tc\r\n\r\n", BAD(OBS_FOLD)},
        {GET11 " " H "\r\n", BAD(OBS_FOLD)},
        /* framing */
        {GET11 H "Content-Length: 0\r\n\r\n", OK},
        {GET11 H "Content-Length:18446744073709551615\r\n\r\n", OK},
        {GET11 H "Content-Length: 18446744073709551616\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Content-Length: 5, 5\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Content-Length: +5\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Content-Length: -5\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Content-Length: 0x5\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Content-Length: 5 5\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Content-Length:\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Content-Length: 5.0\r\n\r\n", BAD(BAD_LENGTH)},
        {GET11 H "Transfer-Encoding: chunked\r\n\r\n", OK},
        {GET11 H "transfer-ENCODING: Chunked\t\r\n\r\n", OK},
        {GET11 H "Transfer-Encoding: gzip, chunked\r\n\r\n", BAD(BAD_CODING)},
        {GET11 H "Transfer-Encoding: chunked, chunked\r\n\r\n", BAD(BAD_CODING)},
        {GET11 H "Transfer-Encoding: chunked;q=1\r\n\r\n", BAD(BAD_CODING)},
        {GET11 H "Transfer-Encoding: xchunked\r\n\r\n", BAD(BAD_CODING)},
        {GET11 H "Transfer-Encoding: identity\r\n\r\n", BAD(BAD_CODING)},
        {GET11 H "Transfer-Encoding: \x0b"
                 "chunked\r\n\r\n",
         BAD(BAD_FIELD_VALUE)},
        {GET11 H "Transfer-Encoding:\r\n\r\n", BAD(BAD_CODING)},
        {GET11 H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
         BAD(BAD_CODING)},
        {"GET / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", BAD(BAD_CODING)},
        {GET11 H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", BAD(LENGTH_AND_CODING)},
        {GET11 H "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", BAD(LENGTH_AND_CODING)},
        /* Expect, Connection */
        {GET11 H "Expect: 100-Continue\r\n\r\n", OK},
        {GET11 H "Expect: 200-ok\r\n\r\n", BAD(BAD_EXPECT)},
        {GET11 H "Expect: 100-continue, x\r\n\r\n", BAD(BAD_EXPECT)},
        {GET11 H "Expect:\r\n\r\n", BAD(BAD_EXPECT)},
        {GET11 H "Connection: , close,,\tx \r\n\r\n", OK},
        {GET11 H "Connection:\r\n\r\n", OK},
        {GET11 H "Connection: a b\r\n\r\n", BAD(BAD_CONNECTION)},
        {GET11 H "Connection: a;b\r\n\r\n", BAD(BAD_CONNECTION)},
        {GET11 H
         "Connection: a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a\r\n\r\n",
         BAD(BAD_CONNECTION)},
    };
    struct http_request_head head;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        enum http_fault fault = request(&head, cases[i].text);
        if (fault != cases[i].fault)
            fail_msg("%s\ngot \"%s\", want \"%s\"", cases[i].text, http_fault_text(fault),
                     http_fault_text(cases[i].fault));
    }
}

static void request_parts(void **state)
{
    static const struct {
        const char *text;
        enum http_method method;
        const char *path, *query, *host;
        int minor;
        enum http_framing framing;
        uint64_t length;
        bool keep, wait;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost:  h:1 \r\n\r\n", HTTP_GET, "/", "", "h:1", 1, HTTP_BODY_NONE, 0,
         true, false},
        {"POST /a?b?c HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n", HTTP_POST, "/a", "b?c",
         "h", 1, HTTP_BODY_LENGTH, 12, true, false},
        {"PUT /? HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
         HTTP_PUT, "/", "", "h", 1, HTTP_BODY_LENGTH, 0, true, false},
        {"PATCH / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: CHUNKED\r\nExpect: 100-continue\r\n"
         "Connection: x, Close\r\n\r\n",
         HTTP_PATCH, "/", "", "h", 1, HTTP_BODY_CHUNKED, 0, false, true},
        {"HEAD http://H/p/q?r HTTP/1.1\r\nHost: h\r\n\r\n", HTTP_HEAD, "/p/q", "r", "h", 1,
         HTTP_BODY_NONE, 0, true, false},
        {"DELETE http://h?r HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", HTTP_DELETE, "/",
         "r", "h", 1, HTTP_BODY_NONE, 0, false, false},
        {"OPTIONS * HTTP/1.0\r\n\r\n", HTTP_OPTIONS, "*", "", "", 0, HTTP_BODY_NONE, 0, false,
         false},
        {"TRACE / HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\n"
         "Expect: 100-continue\r\n\r\n",
         HTTP_METHOD_OTHER, "/", "", "", 0, HTTP_BODY_LENGTH, 3, true, false},
        {"POST / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", HTTP_POST, "/",
         "", "", 0, HTTP_BODY_NONE, 0, false, false},
    };
    struct http_request_head head;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        memset(&head, 0xa5, sizeof(head));
        assert_int_equal(request(&head, cases[i].text), HTTP_FAULT_NONE);
        assert_int_equal(head.method, cases[i].method);
        assert_span(head.path, cases[i].path);
        assert_span(head.query, cases[i].query);
        assert_span(head.host, cases[i].host);
        assert_int_equal(head.minor, cases[i].minor);
        assert_int_equal(head.framing, cases[i].framing);
        assert_int_equal(head.content_length, cases[i].length);
        assert_int_equal(head.keep_alive, cases[i].keep);
        assert_int_equal(head.expect_continue, cases[i].wait);
        assert_true(head.path.p >= cases[i].text &&
                    head.path.p + head.path.n <= cases[i].text + strlen(cases[i].text));
    }
}

/* Every name of the table is found in any case, and nothing beside it. */
static void field_ids(void **state)
{
    static const struct {
        const char *name;
        enum http_field_id id;
        bool hop;
    } rows[] = {
#define X(id, name, hop) {name, HTTP_FIELD_##id, hop},
        HTTP_FIELDS(X)
#undef X
    };
    struct http_response_head head;
    char name[64], text[128];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (int form = 0; form < 5; form++) {
            snprintf(name, sizeof(name), "%s%s", rows[i].name, form == 3 ? "x" : "");
            for (char *p = name; *p && form == 1; p++)
                *p = *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
            if (form == 2)
                name[strlen(name) / 2] ^= 1; /* another token byte, or not one at all */
            if (form == 4)
                name[strlen(name) - 1] = '\0';
            bool decides = rows[i].id == HTTP_FIELD_CONTENT_LENGTH;
            snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%s: %s\r\n\r\n", name,
                     decides                                      ? "5"
                     : rows[i].id == HTTP_FIELD_TRANSFER_ENCODING ? "chunked"
                                                                  : "x");
            enum http_fault fault = http_parse_response(&head, text, strlen(text), false);
            if (form == 2 && fault == HTTP_FAULT_BAD_FIELD_NAME)
                continue;
            if (form == 4 && fault == HTTP_FAULT_BAD_FIELD_NAME)
                continue;
            assert_int_equal(fault, HTTP_FAULT_NONE);
            assert_int_equal(head.nfields, 1);
            assert_span(head.fields[0].name, name);
            assert_int_equal(head.fields[0].id, form < 2 ? rows[i].id : HTTP_FIELD_OTHER);
            assert_int_equal(head.fields[0].hop, form < 2 ? rows[i].hop : false);
        }
    }
}

static void nominated_fields(void **state)
{
    struct http_request_head head;

    assert_int_equal(request(&head, "GET / HTTP/1.1\r\nHost: h\r\nX-Drop: 1\r\nX-Stay: 2\r\n"
                                    "Connection: x-drop, host ,, content-type\r\n"
                                    "Content-Type: a\r\nX-DROP: 3\r\nConnection: y\r\nY: 4\r\n"
                                    "Authorization: a\r\nTE: trailers\r\n\r\n"),
                     HTTP_FAULT_NONE);
    const bool hop[] = {false, true, false, true, false, true, true, true, false, true};
    assert_int_equal(head.nfields, COUNT_OF(hop));
    for (size_t i = 0; i < COUNT_OF(hop); i++)
        assert_int_equal(head.fields[i].hop, hop[i]);
    assert_true(head.keep_alive);
    assert_ptr_equal(http_field_find(head.fields, head.nfields, HTTP_FIELD_TE), &head.fields[9]);
    assert_null(http_field_find(head.fields, head.nfields, HTTP_FIELD_DATE));
}

static void many_fields(void **state)
{
    struct http_request_head head;
    char text[4096];

    for (int n = HTTP_FIELDS_MAX - 1; n <= HTTP_FIELDS_MAX; n++) {
        size_t len = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\n");
        for (int i = 0; i < n; i++)
            len += (size_t)sprintf(text + len, "F%d: %d\r\n", i, i);
        sprintf(text + len, "\r\n");
        assert_int_equal(request(&head, text), n < HTTP_FIELDS_MAX ? OK : BAD(TOO_MANY_FIELDS));
    }
    assert_int_equal(head.method, HTTP_GET);
}

/* Control bytes and the ends of lines at every place of a long value, so that
 * both the wide and the narrow loop meet them. */
static void every_byte_of_a_value(void **state)
{
    struct http_request_head head;
    char text[128];

    for (int at = 0; at < 40; at++) {
        for (int c = 0; c < 256; c++) {
            size_t n = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: h\r\nA:");
            memset(text + n, 'v', 40);
            text[n + (size_t)at] = (char)c;
            memcpy(text + n + 40, "\r\n\r\n", 4);
            char *copy = exact(text, n + 44);
            enum http_fault fault = http_parse_request(&head, copy, n + 44);
            bool bare = c == '\r' || c == '\n';
            bool bad = (c < 0x20 && c != '\t') || c == 0x7f;
            assert_int_equal(fault, bare ? BAD(BARE_CR_OR_LF) : bad ? BAD(BAD_FIELD_VALUE) : OK);
            free(copy);
        }
    }
}

static void head_ends(void **state)
{
    static const struct {
        const char *text;
        size_t end;
    } cases[] = {
        {"", 0},
        {"\r\n", 0},
        {"\r\n\r\n", 4},
        {"\n\n", 2},
        {"\n\r\n", 3},
        {"A\r\n\r", 0},
        {"A\r\r\n\r\n", 6},
        {"A\r\n\r\nB\r\n\r\n", 5},
        {"A\n\nB", 3},
        {"A\r\n\nB", 4},
        {"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: x\r\n\r\nbody\r\n\r\n", 57 - 2},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t n = strlen(cases[i].text), scanned = 0;
        assert_int_equal(http_head_end(cases[i].text, n, &scanned), cases[i].end);
        /* The same when the bytes come one by one. */
        scanned = 0;
        for (size_t k = 0; k <= n; k++) {
            char *copy = exact(cases[i].text, k);
            size_t end = http_head_end(copy, k, &scanned);
            free(copy);
            assert_int_equal(end, cases[i].end && k >= cases[i].end ? cases[i].end : 0);
            if (end)
                break;
            assert_int_equal(scanned, k);
        }
    }
    assert_int_equal(http_skip_empty_lines("", 0), 0);
    assert_int_equal(http_skip_empty_lines("\r", 1), 0);
    assert_int_equal(http_skip_empty_lines("\r\n\r\n", 4), 2);
    assert_int_equal(http_skip_empty_lines("\nGET", 4), 0);
}

static void response_verdicts(void **state)
{
    static const struct {
        const char *text;
        enum http_fault fault;
        int status;
        const char *reason;
        enum http_framing framing;
        uint64_t length;
        bool keep;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\n\r\n", OK, 200, "OK", HTTP_BODY_CLOSE, 0, false},
        {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", OK, 200, "OK", HTTP_BODY_LENGTH, 7, true},
        {"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", OK, 200, "", HTTP_BODY_CHUNKED, 0,
         true},
        {"HTTP/1.1 404 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n", OK, 404, "",
         HTTP_BODY_LENGTH, 0, false},
        {"HTTP/1.0 503 Not\tnow \xff\r\nContent-Length: 0\r\n\r\n", OK, 503, "Not\tnow \xff",
         HTTP_BODY_LENGTH, 0, false},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", OK, 200, "OK",
         HTTP_BODY_LENGTH, 0, true},
        {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", OK, 200, "OK", HTTP_BODY_CLOSE, 0,
         false},
        {"HTTP/1.1 100 Continue\r\n\r\n", OK, 100, "Continue", HTTP_BODY_NONE, 0, true},
        {"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", OK, 204, "No Content",
         HTTP_BODY_NONE, 9, true},
        {"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", OK, 304, "Not Modified",
         HTTP_BODY_NONE, 0, true},
        /* Host and Expect mean nothing in an answer. */
        {"HTTP/1.1 599 x\r\nHost: a b\r\nExpect: much\r\n\r\n", OK, 599, "x", HTTP_BODY_CLOSE, 0,
         false},
        {"HTTP/1.1 101 Switching Protocols\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1 600 x\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1 099 x\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1 20 x\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1 2000 x\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1  200 x\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1\t200 x\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1 200\tx\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1 200 O\x01K\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/1.1\r\n\r\n", BAD(BAD_STATUS)},
        {"http/1.1 200 OK\r\n\r\n", BAD(BAD_STATUS)},
        {"ICY 200 OK\r\n\r\n", BAD(BAD_STATUS)},
        {"HTTP/2.0 200 OK\r\n\r\n", BAD(BAD_VERSION)},
        {"HTTP/1.1 200 OK\n\r\n", BAD(BARE_CR_OR_LF)},
        {"HTTP/1.1 200\n\r\n", BAD(BARE_CR_OR_LF)},
        {"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", BAD(OBS_FOLD)},
        {"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", BAD(BAD_FIELD_NAME)},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", BAD(BAD_LENGTH)},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         BAD(LENGTH_AND_CODING)},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", BAD(BAD_CODING)},
        {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", BAD(BAD_CODING)},
        {"\r\n\r\n", BAD(BAD_STATUS)},
    };
    struct http_response_head head;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        memset(&head, 0xa5, sizeof(head));
        size_t n = strlen(cases[i].text);
        char *copy = exact(cases[i].text, n);
        enum http_fault fault = http_parse_response(&head, copy, n, false);
        if (fault != cases[i].fault)
            fail_msg("%s\ngot \"%s\", want \"%s\"", cases[i].text, http_fault_text(fault),
                     http_fault_text(cases[i].fault));
        if (fault == OK) {
            assert_int_equal(head.status, cases[i].status);
            assert_span(head.reason, cases[i].reason);
            assert_int_equal(head.framing, cases[i].framing);
            assert_int_equal(head.content_length, cases[i].length);
            assert_int_equal(head.keep_alive, cases[i].keep);
            assert_int_equal(http_parse_response(&head, copy, n, true), OK);
            assert_int_equal(head.framing, HTTP_BODY_NONE);
        }
        free(copy);
    }
}

static void words(void **state)
{
    assert_string_equal(http_reason(200), "OK");
    assert_string_equal(http_reason(413), "Content Too Large");
    assert_string_equal(http_reason(299), "Success");
    assert_string_equal(http_reason(599), "Server Error");
    assert_int_equal(http_fault_status(HTTP_FAULT_TOO_MANY_FIELDS), 431);
    assert_string_equal(http_fault_text(HTTP_FAULT_NO_HOST), "the Host field is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_verdicts),
        cmocka_unit_test(request_parts),
        cmocka_unit_test(field_ids),
        cmocka_unit_test(nominated_fields),
        cmocka_unit_test(many_fields),
        cmocka_unit_test(every_byte_of_a_value),
        cmocka_unit_test(head_ends),
        cmocka_unit_test(response_verdicts),
        cmocka_unit_test(words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
