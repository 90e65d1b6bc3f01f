/*
 * The server against a plain socket: keep-alive, pipelining, 100-continue,
 * bodies, limits, cuts, clients that leave or do not read, unix sockets.
 */
#include "http/server.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "loop.h"

/* A server whose handler notes what came and answers by path:
 *   /echo   the body, at once          /hold   kept in `held` for the test
 *   /query  the parameter q            anything else: 404 */
struct world {
    uv_loop_t loop;
    struct http_server *server;
    struct http_call *held; /* borrowed */
    int calls, gone;
};

static void on_gone(struct http_call *call, void *arg)
{
    struct world *w = arg;

    assert_ptr_equal(call, w->held);
    w->held = NULL;
    w->gone++;
}

static void on_call(struct http_call *call, void *arg)
{
    struct world *w = arg;
    const struct http_request_head *head = http_call_head(call);
    char q[32];

    w->calls++;
    if (span_eq_str(head->path, "/echo")) {
        http_call_reply(call, 200, "text/plain", "X-Test: 1\r\n", http_call_body(call));
    } else if (span_eq_str(head->path, "/query")) {
        if (http_call_query(call, "q", q, sizeof(q)))
            http_call_reply(call, 200, NULL, NULL, span_str(q));
        else
            http_call_error(call, 400, "missing_q", "q is missing or longer than %zu", sizeof(q));
    } else if (span_eq_str(head->path, "/hold")) {
        assert_null(w->held);
        w->held = call;
        http_call_on_gone(call, on_gone, w);
    } else {
        http_call_error(call, 404, NULL, "no such path: " SPAN_FMT, SPAN_ARG(head->path));
    }
}

static struct world *world_new(const struct http_server_limits *limits, const char *address)
{
    struct world *w = calloc(1, sizeof(*w));
    struct err err;

    assert_int_equal(uv_loop_init(&w->loop), 0);
    w->server = http_server_new(&w->loop, limits, on_call, w);
    if (http_server_listen(w->server, address, &err) != 0)
        fail_msg("%s", err.text);
    return w;
}

static void world_end(struct world *w)
{
    http_server_close(w->server);
    loop_end(&w->loop);
    free(w);
}

static struct raw world_client(struct world *w)
{
    return raw_tcp(http_server_port(w->server));
}

/* How often text stands in what came. */
static int count(struct raw *r, const char *text)
{
    int n = 0;

    raw_read(r);
    for (const char *p = buf_cstr(&r->in); (p = strstr(p, text)); p += strlen(text))
        n++;
    return n;
}

static void keep_alive(void **state)
{
    struct world *w = world_new(NULL, "127.0.0.1:0");
    struct raw r = world_client(w);

    for (int i = 1; i <= 3; i++) {
        raw_send(&r, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello");
        loop_until(&w->loop, count(&r, "\r\n\r\nhello") == i);
    }
    assert_int_equal(count(&r, "HTTP/1.1 200 OK\r\n"), 3);
    assert_int_equal(count(&r, "Content-Length: 5\r\n"), 3);
    assert_int_equal(count(&r, "X-Test: 1\r\n"), 3);
    assert_int_equal(count(&r, "Date: "), 3);
    assert_int_equal(count(&r, "Connection:"), 0);
    raw_send(&r, "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    loop_until(&w->loop, raw_ended(&r));
    assert_int_equal(count(&r, "Connection: close\r\n"), 1);
    assert_int_equal(r.error, 0);
    raw_end(&r);
    world_end(w);
}

static void pipelining(void **state)
{
    struct world *w = world_new(NULL, "127.0.0.1:0");
    struct raw r = world_client(w);

    for (int i = 0; i < 300; i++)
        raw_send(&r, "\r\nPOST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nA"
                     "GET /query?x=1&q=%62%20c HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, count(&r, "HTTP/1.1 200 OK") == 600);
    assert_int_equal(w->calls, 600);
    assert_int_equal(count(&r, "\r\n\r\nAHTTP"), 300);
    assert_int_equal(count(&r, "\r\n\r\nb c"), 300);

    /* Behind a call that runs, requests wait. */
    raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\nGET /no HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    for (int i = 0; i < 5; i++)
        loop_turn(&w->loop);
    assert_int_equal(w->calls, 601);
    assert_int_equal(http_server_calls(w->server), 1);
    http_call_reply(w->held, 204, NULL, NULL, span_str("not sent"));
    w->held = NULL;
    loop_until(&w->loop, raw_has(&r, "no such path: /no"));
    assert_int_equal(count(&r, "HTTP/1.1 204 No Content\r\n"), 1);
    assert_int_equal(count(&r, "not sent"), 0);
    raw_end(&r);
    world_end(w);
}

static void continue_and_chunked_body(void **state)
{
    struct world *w = world_new(NULL, "127.0.0.1:0");
    struct raw r = world_client(w);

    raw_send(&r, "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n");
    loop_until(&w->loop, raw_has(&r, "HTTP/1.1 100 Continue\r\n\r\n"));
    const char *body = "6;x=y\r\nchunk-\r\n4\r\nbody\r\n0\r\nTrailer: dropped\r\n\r\n";
    for (const char *p = body; *p; p++) {
        raw_send(&r, (char[]){*p, '\0'});
        loop_turn(&w->loop);
    }
    loop_until(&w->loop, raw_has(&r, "\r\n\r\nchunk-body"));
    /* The body is already there: no 100 is needed. */
    raw_send(&r, "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
                 "Content-Length: 3\r\n\r\nabc");
    loop_until(&w->loop, raw_has(&r, "\r\n\r\nabc"));
    assert_int_equal(count(&r, "100 Continue"), 1);
    raw_end(&r);
    world_end(w);
}

static void head_requests_and_old_clients(void **state)
{
    struct world *w = world_new(NULL, "127.0.0.1:0");
    struct raw r = world_client(w);

    raw_send(&r, "HEAD /query?q=12345 HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, raw_has(&r, "Content-Length: 5\r\n"));
    assert_int_equal(count(&r, "12345"), 0);
    raw_send(&r, "HEAD /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_start(w->held, 200, "text/plain", NULL);
    http_call_write(w->held, SPAN_LIT("nothing"));
    http_call_finish(w->held);
    w->held = NULL;
    raw_send(&r, "GET /query?q=last HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, raw_has(&r, "\r\n\r\nlast"));
    assert_int_equal(count(&r, "nothing"), 0);
    raw_end(&r);

    r = world_client(w);
    raw_send(&r, "GET /query?q=kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    loop_until(&w->loop, raw_has(&r, "\r\n\r\nkept"));
    assert_int_equal(count(&r, "Connection: keep-alive\r\n"), 1);
    raw_send(&r, "GET /hold HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_start(w->held, 200, "text/plain", NULL);
    http_call_write(w->held, SPAN_LIT("until the "));
    http_call_write(w->held, SPAN_LIT("end"));
    http_call_finish(w->held);
    w->held = NULL;
    loop_until(&w->loop, raw_ended(&r));
    assert_true(raw_has(&r, "Connection: close\r\n\r\nuntil the end"));
    assert_int_equal(count(&r, "chunked"), 0);
    assert_int_equal(r.error, 0);
    raw_end(&r);
    world_end(w);
}

/* Header fields, parameters, and the kinds of errors. */
static void what_a_call_says(void **state)
{
    static const struct {
        int status;
        const char *type;
    } errors[] = {
        {400, "invalid_request_error"}, {401, "authentication_error"}, {403, "permission_error"},
        {404, "invalid_request_error"}, {409, "conflict_error"},       {429, "rate_limit_error"},
        {500, "server_error"},          {503, "server_error"},
    };
    struct world *w = world_new(NULL, "127.0.0.1:0");
    struct raw r = world_client(w);
    char q[4], want[64];

    for (size_t i = 0; i < COUNT_OF(errors); i++) {
        buf_clear(&r.in);
        raw_send(&r, "POST /hold?a&b=1234&b=x&c=%41 HTTP/1.1\r\nHost: h\r\n"
                     "Content-Length: 2\r\nX-Two: 1\r\nx-two: 2\r\n\r\nhi");
        loop_until(&w->loop, w->held);
        struct http_call *call = w->held;
        assert_span(http_call_header(call, "X-TWO"), "1");
        assert_span(http_call_header(call, "x-three"), "");
        assert_span(http_call_body(call), "hi");
        assert_true(http_call_query(call, "a", q, sizeof(q)));
        assert_string_equal(q, "");
        assert_true(http_call_query(call, "c", q, sizeof(q)));
        assert_string_equal(q, "A");
        assert_false(http_call_query(call, "b", q, sizeof(q))); /* too long; the first counts */
        assert_false(http_call_query(call, "d", q, sizeof(q)));
        w->held = NULL;
        http_call_error(call, errors[i].status, i % 2 ? "a_code" : NULL, "it \"%s\"", "broke");
        loop_until(&w->loop, raw_has(&r, "}}\n"));
        assert_true(raw_has(&r, "{\"error\":{\"message\":\"it \\\"broke\\\"\",\"type\":\""));
        assert_true(raw_has(&r, errors[i].type));
        snprintf(want, sizeof(want), "\"param\":null,\"code\":%s}}\n",
                 i % 2 ? "\"a_code\"" : "null");
        assert_true(raw_has(&r, want));
        assert_int_equal(raw_has(&r, "Retry-After: 1\r\n"),
                         errors[i].status == 429 || errors[i].status == 503);
    }
    raw_end(&r);
    world_end(w);
}

static void streaming(void **state)
{
    struct world *w = world_new(NULL, "127.0.0.1:0");
    struct raw r = world_client(w);

    raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_start(w->held, 200, "text/event-stream", "Cache-Control: no-store\r\n");
    loop_until(&w->loop, raw_has(&r, "Transfer-Encoding: chunked\r\n"));
    http_call_write(w->held, SPAN_LIT("one"));
    http_call_write(w->held, SPAN_LIT(""));
    http_call_write(w->held, SPAN_LIT("seventeen letters"));
    loop_until(&w->loop, raw_has(&r, "3\r\none\r\n11\r\nseventeen letters\r\n"));
    assert_int_equal(http_call_pending(w->held), 0);
    http_call_finish(w->held);
    w->held = NULL;
    loop_until(&w->loop, raw_has(&r, "letters\r\n0\r\n\r\n"));
    assert_false(raw_ended(&r));

    /* A cut: no last chunk, but what was written before arrives. */
    raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_start(w->held, 200, NULL, NULL);
    http_call_write(w->held, SPAN_LIT("half"));
    http_call_cut(w->held);
    w->held = NULL;
    loop_until(&w->loop, raw_ended(&r));
    assert_true(raw_has(&r, "4\r\nhalf\r\n"));
    assert_int_equal(count(&r, "0\r\n\r\n"), 1);
    raw_end(&r);

    /* For HTTP/1.0, where FIN would look like the end, a reset. */
    r = world_client(w);
    raw_send(&r, "GET /hold HTTP/1.0\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_start(w->held, 200, NULL, NULL);
    http_call_write(w->held, SPAN_LIT("half"));
    loop_until(&w->loop, raw_has(&r, "half"));
    http_call_cut(w->held);
    w->held = NULL;
    loop_until(&w->loop, raw_ended(&r));
    assert_int_equal(r.error, ECONNRESET);
    assert_int_equal(w->gone, 0);
    raw_end(&r);
    world_end(w);
}

static void clients_that_leave(void **state)
{
    struct world *w = world_new(NULL, "127.0.0.1:0");

    /* While the handler thinks: by closing, and by shutting its side only. */
    for (int i = 1; i <= 2; i++) {
        struct raw r = world_client(w);
        raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        loop_until(&w->loop, w->held);
        if (i == 1)
            close(r.fd);
        else
            shutdown(r.fd, SHUT_WR);
        loop_until(&w->loop, w->gone == i);
        assert_int_equal(http_server_calls(w->server), 0);
        if (i == 2)
            raw_end(&r);
    }

    /* In the middle of a stream; on_gone must not come from inside write(). */
    struct raw r = world_client(w);
    raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_start(w->held, 200, NULL, NULL);
    http_call_write(w->held, SPAN_LIT("x"));
    loop_until(&w->loop, raw_has(&r, "1\r\nx\r\n"));
    struct linger hard = {.l_onoff = 1};
    setsockopt(r.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    raw_end(&r);
    static char big[100000];
    for (int i = 0; i < 3; i++) {
        struct http_call *call = w->held;
        http_call_write(call, span_of(big, sizeof(big)));
        assert_ptr_equal(w->held, call);
    }
    loop_until(&w->loop, w->gone == 3);

    /* In the middle of a request: no call at all. */
    int calls = w->calls;
    r = world_client(w);
    raw_send(&r, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    loop_turn(&w->loop);
    shutdown(r.fd, SHUT_WR);
    loop_until(&w->loop, raw_ended(&r));
    assert_int_equal(w->calls, calls);
    raw_end(&r);

    /* An answer that is ready is delivered to one that shut its own side. */
    r = world_client(w);
    raw_send(&r, "GET /query?q=ready HTTP/1.1\r\nHost: h\r\n\r\n");
    shutdown(r.fd, SHUT_WR);
    loop_until(&w->loop, raw_ended(&r));
    assert_true(raw_has(&r, "\r\n\r\nready"));
    raw_end(&r);
    world_end(w);
}

static void clients_that_do_not_read(void **state)
{
    struct http_server_limits limits = {.pending_bytes = 1 << 20};
    struct world *w = world_new(&limits, "127.0.0.1:0");
    struct raw r = world_client(w);
    static char piece[50000];
    size_t written = 0;

    raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_start(w->held, 200, NULL, NULL);
    while (w->held && written < (size_t)100 << 20) {
        http_call_write(w->held, span_of(piece, sizeof(piece)));
        written += sizeof(piece);
        assert_true(http_call_pending(w->held) < limits.pending_bytes + 2 * sizeof(piece));
        if (written % 500000 == 0)
            loop_turn(&w->loop);
    }
    loop_until(&w->loop, w->gone == 1);
    assert_true(written < (size_t)100 << 20);

    /* One that reads late gets everything, as long as that fits. */
    struct raw late = world_client(w);
    raw_send(&late, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_start(w->held, 200, NULL, NULL);
    for (int i = 0; i < 10; i++)
        http_call_write(w->held, span_of(piece, sizeof(piece)));
    http_call_finish(w->held);
    w->held = NULL;
    loop_until(&w->loop, (raw_read(&late), buf_pending(&late.in) > 10 * sizeof(piece)) &&
                             memcmp(late.in.data + late.in.len - 5, "0\r\n\r\n", 5) == 0);
    raw_end(&late);
    raw_end(&r);
    world_end(w);
}

/* Answers that are larger than what the kernel takes at once. */
static void large_answers(void **state)
{
    enum { BIG = 12 << 20 };
    struct http_server_limits limits = {.idle_ms = 3000};
    struct world *w = world_new(&limits, "127.0.0.1:0");
    char *big = calloc(1, BIG);

    /* Read slowly, for longer than idle_ms, by one that has shut its own side. */
    struct raw r = raw_tcp_room(http_server_port(w->server), 4096);
    raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_reply(w->held, 200, NULL, NULL, span_of(big, BIG));
    w->held = NULL;
    shutdown(r.fd, SHUT_WR);
    char room[65536];
    size_t got = 0;
    const uint64_t begin = clock_ns(), slowly = 3500000000;
    for (uint64_t passed = 0; passed < slowly; passed = clock_ns() - begin) {
        /* Half of it in that time, however fast the machine is. */
        size_t due = (size_t)(passed * (BIG / 2) / slowly);
        ssize_t n = got < due ? recv(r.fd, room, 8000, MSG_DONTWAIT) : 0;
        got += n > 0 ? (size_t)n : 0;
        loop_turn(&w->loop);
    }
    assert_true(got < BIG);
    loop_until(&w->loop, raw_ended(&r));
    assert_true(got + buf_pending(&r.in) > BIG);
    assert_int_equal(r.error, 0);
    raw_end(&r);

    /* The next request of a connection waits until the answer has been taken. */
    r = raw_tcp_room(http_server_port(w->server), 4096);
    raw_send(&r,
             "GET /hold HTTP/1.1\r\nHost: h\r\n\r\nGET /query?q=next HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    int calls = w->calls;
    http_call_reply(w->held, 200, NULL, NULL, span_of(big, BIG));
    w->held = NULL;
    for (int i = 0; i < 20; i++)
        loop_turn(&w->loop);
    assert_int_equal(w->calls, calls);
    loop_until(&w->loop, (raw_read(&r), buf_pending(&r.in) > BIG) &&
                             memcmp(r.in.data + r.in.len - 8, "\r\n\r\nnext", 8) == 0);
    raw_end(&r);

    /* One that never reads is closed. */
    r = raw_tcp_room(http_server_port(w->server), 4096);
    raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_call_reply(w->held, 200, NULL, NULL, span_of(big, BIG));
    w->held = NULL;
    struct pollfd p = {.fd = r.fd};
    loop_until(&w->loop, poll(&p, 1, 0) == 1 && p.revents & (POLLERR | POLLHUP));
    raw_end(&r);
    free(big);
    world_end(w);
}

/* Requests that come while a call runs are kept, but not without bound. */
static void a_flood_behind_a_call(void **state)
{
    struct world *w = world_new(NULL, "127.0.0.1:0");
    struct raw r = world_client(w);
    static const char one[] = "GET /query?q=x HTTP/1.1\r\nHost: h\r\n\r\n";
    size_t sent = 0, done = 0, stuck = 0;

    raw_send(&r, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    while (stuck < 50) {
        ssize_t n = send(r.fd, one + done, sizeof(one) - 1 - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        stuck = n > 0 ? 0 : stuck + 1;
        done += n > 0 ? (size_t)n : 0;
        if (done == sizeof(one) - 1)
            done = 0, sent++;
        if (stuck || sent % 1000 == 0)
            loop_turn(&w->loop);
    }
    assert_int_equal(w->calls, 1);
    http_call_reply(w->held, 200, NULL, NULL, SPAN_LIT("x"));
    w->held = NULL;
    shutdown(r.fd, SHUT_WR);
    loop_until(&w->loop, raw_ended(&r));
    assert_int_equal(w->calls, (int)sent + 1);
    raw_end(&r);
    world_end(w);
}

static void limits_and_refusals(void **state)
{
    struct http_server_limits limits = {.head_bytes = 1000, .body_bytes = 100, .connections = 3};
    struct world *w = world_new(&limits, "127.0.0.1:0");
    char long_head[1200];
    snprintf(long_head, sizeof(long_head), "GET / HTTP/1.1\r\nHost: h\r\nX: %01100d", 0);
    const struct {
        const char *request, *status, *code;
    } cases[] = {
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n", "413 ",
         "request_too_large"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n",
         "413 ", "request_too_large"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6e\r\n"
         "0123456789012345678901234567890123456789012345678901234567890123456789"
         "0123456789012345678901234567890123456789",
         "413 ", "request_too_large"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "400 ",
         "malformed_request"},
        {long_head, "431 ", "request_head_too_large"},
        {"GET / HTTP/1.1\r\n\r\n", "400 ", "malformed_request"},
        {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", "505 ", "malformed_request"},
        {"GET / HTTP/1.1\r\nHost: h\r\nExpect: more\r\n\r\n", "417 ", "malformed_request"},
        {"\x16\x03\x01 TLS here\n\n", "400 ", "malformed_request"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct raw r = world_client(w);
        raw_send(&r, cases[i].request);
        loop_until(&w->loop, raw_ended(&r));
        assert_int_equal(r.error, 0);
        assert_int_equal(count(&r, "\r\nDate: "), 1);
        assert_memory_equal(buf_cstr(&r.in) + 9, cases[i].status, 4);
        assert_true(raw_has(&r, cases[i].code));
        assert_true(raw_has(&r, "{\"error\":{\"message\":\""));
        assert_true(raw_has(&r, "Connection: close\r\n"));
        raw_end(&r);
    }
    assert_int_equal(w->calls, 0);

    struct raw full[3];
    for (int i = 0; i < 3; i++) {
        full[i] = world_client(w);
        raw_send(&full[i], "GET /query?q=in HTTP/1.1\r\nHost: h\r\n\r\n");
        loop_until(&w->loop, raw_has(&full[i], "\r\n\r\nin"));
    }
    struct raw r = world_client(w);
    raw_send(&r, "GET /query?q=in HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, raw_ended(&r));
    assert_true(raw_has(&r, "HTTP/1.1 503 "));
    assert_true(raw_has(&r, "Retry-After: 1\r\n"));
    raw_end(&r);
    for (int i = 0; i < 3; i++)
        raw_end(&full[i]);
    world_end(w);
}

static void time_limits(void **state)
{
    struct http_server_limits limits = {.idle_ms = 50, .receive_ms = 100};
    struct world *w = world_new(&limits, "127.0.0.1:0");
    struct raw silent = world_client(w), slow = world_client(w), body = world_client(w);

    raw_send(&slow, "GET / HT");
    raw_send(&body, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
    loop_until(&w->loop, raw_ended(&silent) && raw_ended(&slow) && raw_ended(&body));
    assert_int_equal(buf_pending(&silent.in), 0);
    assert_true(raw_has(&slow, "HTTP/1.1 408 "));
    assert_true(raw_has(&body, "HTTP/1.1 408 "));
    raw_end(&silent);
    raw_end(&slow);
    raw_end(&body);
    world_end(w);
}

static void drain_and_close(void **state)
{
    struct world *w = world_new(NULL, "127.0.0.1:0");
    struct raw idle = world_client(w), busy = world_client(w), late = world_client(w);

    raw_send(&idle, "GET /query?q=1 HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_send(&late, "GET /echo HTTP/1.1\r\n");
    loop_until(&w->loop, raw_has(&idle, "\r\n\r\n1"));
    raw_send(&busy, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_server_drain(w->server);
    loop_until(&w->loop, raw_ended(&idle));
    raw_send(&late, "Host: h\r\n\r\n");
    loop_until(&w->loop, raw_ended(&late));
    assert_true(raw_has(&late, "HTTP/1.1 200 OK"));
    http_call_reply(w->held, 200, NULL, NULL, SPAN_LIT("last words"));
    w->held = NULL;
    loop_until(&w->loop, raw_ended(&busy));
    assert_true(raw_has(&busy, "Connection: close\r\n\r\nlast words"));
    raw_end(&idle);
    raw_end(&busy);
    raw_end(&late);
    world_end(w);

    /* close() with a call running: it gets its on_gone. */
    w = world_new(NULL, "127.0.0.1:0");
    busy = world_client(w);
    raw_send(&busy, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    loop_until(&w->loop, w->held);
    http_server_close(w->server);
    assert_int_equal(w->gone, 1);
    loop_end(&w->loop);
    free(w);
    raw_end(&busy);
}

static void unix_sockets(void **state)
{
    char folder[] = "/tmp/segue-test-XXXXXX", address[96], path[64], text[96];
    struct stat file;
    struct err err;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/s", folder);
    snprintf(address, sizeof(address), "unix:%s", path);
    struct world *w = world_new(NULL, address);
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(file.st_mode & 0777, 0600);
    assert_int_equal(http_server_port(w->server), 0);

    /* A live one is refused and not harmed. */
    struct http_server *second = http_server_new(&w->loop, NULL, on_call, w);
    assert_int_equal(http_server_listen(second, address, &err), -1);
    assert_non_null(strstr(err.text, "another process is listening there"));
    http_server_close(second);
    assert_int_equal(stat(path, &file), 0);

    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, path, strlen(path) + 1);
    struct raw r = {.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
    assert_int_equal(connect(r.fd, (struct sockaddr *)&at, sizeof(at)), 0);
    raw_send(&r, "GET /query?q=unix HTTP/1.1\r\nHost: localhost\r\n\r\n");
    loop_until(&w->loop, raw_has(&r, "\r\n\r\nunix"));
    raw_end(&r);
    world_end(w);
    assert_int_equal(stat(path, &file), -1);

    /* A stale one is replaced, a plain file is not. */
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    close(fd);
    w = world_new(NULL, address);
    world_end(w);
    fd = creat(path, 0600);
    close(fd);
    w = world_new(NULL, "127.0.0.1:0");
    assert_int_equal(http_server_listen(w->server, address, &err), -1);
    assert_non_null(strstr(err.text, "not a socket"));
    assert_int_equal(unlink(path), 0);
    snprintf(text, sizeof(text), "unix:%s/no/s", folder);
    assert_int_equal(http_server_listen(w->server, text, &err), -1);
    assert_non_null(strstr(err.text, "does its folder exist"));
    assert_int_equal(rmdir(folder), 0);

    snprintf(text, sizeof(text), "127.0.0.1:%d", http_server_port(w->server));
    assert_int_equal(http_server_listen(w->server, text, &err), -1);
    snprintf(text, sizeof(text), "port %d is in use", http_server_port(w->server));
    assert_non_null(strstr(err.text, text));
    assert_int_equal(http_server_listen(w->server, "localhost:1", &err), -1);
    assert_int_equal(http_server_listen(w->server, "127.0.0.1", &err), -1);
    assert_int_equal(http_server_listen(w->server, "::1:80", &err), -1);
    assert_int_equal(http_server_listen(w->server, "127.0.0.1:65536", &err), -1);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_alive),
        cmocka_unit_test(pipelining),
        cmocka_unit_test(continue_and_chunked_body),
        cmocka_unit_test(head_requests_and_old_clients),
        cmocka_unit_test(streaming),
        cmocka_unit_test(clients_that_leave),
        cmocka_unit_test(clients_that_do_not_read),
        cmocka_unit_test(large_answers),
        cmocka_unit_test(a_flood_behind_a_call),
        cmocka_unit_test(what_a_call_says),
        cmocka_unit_test(limits_and_refusals),
        cmocka_unit_test(time_limits),
        cmocka_unit_test(drain_and_close),
        cmocka_unit_test(unix_sockets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
