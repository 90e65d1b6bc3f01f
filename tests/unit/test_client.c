/*
 * The client against the server, and against a socket that answers badly.
 */
#include "http/client.h"

#include <stdio.h>
#include <stdlib.h>

#include "http/server.h"
#include "loop.h"

/* What one request came to. */
struct result {
    uv_loop_t *loop;
    struct http_fetch *fetch; /* borrowed; until done */
    int heads, pieces, done, status;
    int cancel_at; /* 1: in on_head, 2: in on_data, 3: in on_done */
    struct buf data, body;
    char error[ERR_TEXT_MAX];
};

static void on_head(const struct http_response_head *head, void *arg)
{
    struct result *r = arg;

    assert_int_equal(r->done, 0);
    r->heads++;
    r->status = head->status;
    if (r->cancel_at == 1)
        http_fetch_cancel(r->fetch);
}

static void on_data(struct span data, void *arg)
{
    struct result *r = arg;

    assert_int_equal(r->heads, 1);
    assert_int_equal(r->done, 0);
    assert_int_not_equal(r->cancel_at, 1);
    r->pieces++;
    buf_add_span(&r->data, data);
    if (r->cancel_at == 2)
        http_fetch_cancel(r->fetch);
}

static void on_done(int status, struct span body, const struct err *err, void *arg)
{
    struct result *r = arg;

    r->done++;
    assert_true((status == 0) == (err != NULL));
    r->status = status;
    buf_add_span(&r->body, body);
    snprintf(r->error, sizeof(r->error), "%s", err ? err->text : "");
    if (r->cancel_at == 3)
        http_fetch_cancel(r->fetch);
}

static const struct http_fetch_events collect = {NULL, NULL, on_done};
static const struct http_fetch_events follow = {on_head, on_data, on_done};

static void result_clear(struct result *r)
{
    buf_fini(&r->data);
    buf_fini(&r->body);
    *r = (struct result){.loop = r->loop, .cancel_at = r->cancel_at};
}

static void fetch(struct result *r, const struct http_fetch_options *o,
                  const struct http_fetch_events *events)
{
    result_clear(r);
    r->fetch = http_fetch_start(r->loop, o, events, r);
    assert_int_equal(r->done, 0);
}

/* ---- against our own server ---- */

struct world {
    uv_loop_t loop;
    struct http_server *server;
    struct http_call *held; /* borrowed */
    int gone;
    char address[32];
};

static void on_gone(struct http_call *call, void *arg)
{
    struct world *w = arg;

    w->held = NULL;
    w->gone++;
}

static void on_call(struct http_call *call, void *arg)
{
    struct world *w = arg;

    if (span_eq_str(http_call_head(call)->path, "/echo")) {
        http_call_reply(call, 200, "text/plain", NULL, http_call_body(call));
        return;
    }
    w->held = call;
    http_call_on_gone(call, on_gone, w);
}

static void world_begin(struct world *w)
{
    struct err err;

    *w = (struct world){0};
    assert_int_equal(uv_loop_init(&w->loop), 0);
    w->server = http_server_new(&w->loop, NULL, on_call, w);
    if (http_server_listen(w->server, "127.0.0.1:0", &err) != 0)
        fail_msg("%s", err.text);
    snprintf(w->address, sizeof(w->address), "127.0.0.1:%d", http_server_port(w->server));
}

static void world_end(struct world *w)
{
    http_server_close(w->server);
    loop_end(&w->loop);
}

static void whole_answers(void **state)
{
    struct world w;
    world_begin(&w);
    struct result r = {.loop = &w.loop};
    char *big = malloc(3000000);
    memset(big, 'x', 3000000);

    fetch(&r, &(struct http_fetch_options){w.address, "POST", "/echo", .body = SPAN_LIT("hello")},
          &collect);
    loop_until(&w.loop, r.done);
    assert_int_equal(r.status, 200);
    assert_span(buf_span(&r.body), "hello");

    fetch(&r, &(struct http_fetch_options){w.address, "POST", "/echo", .body = {big, 3000000}},
          &follow);
    loop_until(&w.loop, r.done);
    assert_int_equal(buf_pending(&r.data), 3000000);
    assert_int_equal(buf_pending(&r.body), 0);

    fetch(&r,
          &(struct http_fetch_options){w.address, "POST", "/echo", .body = {big, 3000000},
                                       .body_max = 2999999},
          &collect);
    loop_until(&w.loop, r.done);
    assert_non_null(strstr(r.error, "larger than 2999999 bytes"));
    free(big);

    /* By name; every address that the name has is tried. */
    char by_name[40];
    snprintf(by_name, sizeof(by_name), "localhost:%d", http_server_port(w.server));
    fetch(&r, &(struct http_fetch_options){by_name, "GET", "/echo"}, &follow);
    loop_until(&w.loop, r.done);
    assert_string_equal(r.error, "");
    assert_int_equal(r.status, 200);
    assert_int_equal(r.pieces, 0);

    /* Chunked, in pieces. */
    fetch(&r, &(struct http_fetch_options){w.address, "GET", "/hold"}, &follow);
    loop_until(&w.loop, w.held);
    http_call_start(w.held, 202, "text/event-stream", NULL);
    loop_until(&w.loop, r.heads == 1);
    http_call_write(w.held, SPAN_LIT("one "));
    loop_until(&w.loop, r.pieces == 1);
    http_call_write(w.held, SPAN_LIT("two"));
    loop_until(&w.loop, r.pieces == 2);
    assert_int_equal(r.done, 0);
    http_call_finish(w.held);
    loop_until(&w.loop, r.done);
    assert_int_equal(r.status, 202);
    assert_span(buf_span(&r.data), "one two");
    assert_string_equal(r.error, "");
    result_clear(&r);
    world_end(&w);
}

static void a_cut_is_an_error(void **state)
{
    struct world w;
    world_begin(&w);
    struct result r = {.loop = &w.loop};

    fetch(&r, &(struct http_fetch_options){w.address, "GET", "/hold"}, &follow);
    loop_until(&w.loop, w.held);
    http_call_start(w.held, 200, NULL, NULL);
    http_call_write(w.held, SPAN_LIT("half"));
    http_call_cut(w.held);
    loop_until(&w.loop, r.done);
    assert_int_equal(r.status, 0);
    assert_span(buf_span(&r.data), "half");
    assert_non_null(strstr(r.error, "cut after 4 body bytes"));
    assert_non_null(strstr(r.error, "GET /hold at 127.0.0.1:"));
    assert_int_equal(w.gone, 0);
    result_clear(&r);
    world_end(&w);
}

static void cancel(void **state)
{
    struct world w;
    world_begin(&w);
    struct result r = {.loop = &w.loop};
    const struct http_fetch_options hold = {w.address, "GET", "/hold"};

    /* Before anything happened, and twice. */
    fetch(&r, &hold, &follow);
    http_fetch_cancel(r.fetch);
    http_fetch_cancel(r.fetch);
    assert_int_equal(r.done, 0);
    loop_until(&w.loop, r.done);
    assert_non_null(strstr(r.error, "cancelled"));

    /* While the server thinks: it notices. */
    w.held = NULL;
    fetch(&r, &hold, &follow);
    loop_until(&w.loop, w.held);
    int gone = w.gone;
    http_fetch_cancel(r.fetch);
    loop_until(&w.loop, r.done && w.gone == gone + 1);

    /* In each callback. */
    for (int at = 1; at <= 3; at++) {
        r.cancel_at = at;
        w.held = NULL;
        fetch(&r, &hold, &follow);
        loop_until(&w.loop, w.held);
        http_call_start(w.held, 200, NULL, NULL);
        http_call_write(w.held, SPAN_LIT("x"));
        if (at == 3)
            http_call_finish(w.held);
        loop_until(&w.loop, r.done);
        assert_int_equal(r.heads, 1);
        assert_int_equal(r.pieces, at == 1 ? 0 : 1);
        assert_int_equal(r.status, at == 3 ? 200 : 0);
    }
    result_clear(&r);
    world_end(&w);
    assert_int_equal(r.done, 0);
}

static void time_limits(void **state)
{
    struct world w;
    world_begin(&w);
    struct result r = {.loop = &w.loop};

    fetch(&r, &(struct http_fetch_options){w.address, "GET", "/hold", .timeout_ms = 30}, &collect);
    loop_until(&w.loop, r.done);
    assert_non_null(strstr(r.error, "no whole answer after 30 ms"));
    w.held = NULL;
    fetch(&r, &(struct http_fetch_options){w.address, "GET", "/hold", .silence_ms = 500}, &follow);
    loop_until(&w.loop, w.held);
    http_call_start(w.held, 200, NULL, NULL);
    for (int i = 1; i <= 3; i++) {
        http_call_write(w.held, SPAN_LIT("x"));
        loop_until(&w.loop, r.pieces == i);
    }
    loop_until(&w.loop, r.done);
    assert_non_null(strstr(r.error, "nothing came for 500 ms"));
    result_clear(&r);
    world_end(&w);
}

/* ---- against a socket that says what we tell it ---- */

static void bad_answers(void **state)
{
    static const struct {
        const char *answer, *error, *body;
    } cases[] = {
        {"", "no answer came: the connection was closed", ""},
        {"HTTP/1.1 200 OK\r\nContent-", "no answer came: the connection was closed", ""},
        {"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the status line is not valid", ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "cut after 4 body bytes", ""},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "cut after 5", ""},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "a chunk is not", ""},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "both there",
         ""},
        {"HTTP/1.1 101 Switching Protocols\r\n\r\n", "the status line is not valid", ""},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
         NULL, "ok"},
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end", NULL, "until the end"},
        {"HTTP/1.0 200\r\n\r\nold", NULL, "old"},
        {"HTTP/1.1 204 No Content\r\n\r\n", NULL, ""},
        {"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", NULL,
         "no"},
    };
    uv_loop_t loop;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    char address[32], request[4096];
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    snprintf(address, sizeof(address), "127.0.0.1:%d", ntohs(at.sin_port));

    struct result r = {.loop = &loop};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        /* Whole, and byte by byte. */
        for (int drip = 0; drip <= 1; drip++) {
            fetch(&r, &(struct http_fetch_options){address, "GET", "/"}, &collect);
            for (int turn = 0; turn < 3; turn++)
                loop_turn(&loop);
            int fd = accept(listener, NULL, NULL);
            size_t n = strlen(cases[i].answer);
            for (size_t k = 0; drip && k + 1 < n; k++) {
                send(fd, cases[i].answer + k, 1, MSG_NOSIGNAL);
                loop_turn(&loop);
            }
            if (!drip)
                send(fd, cases[i].answer, n, MSG_NOSIGNAL);
            else if (n)
                send(fd, cases[i].answer + n - 1, 1, MSG_NOSIGNAL);
            while (recv(fd, request, sizeof(request), MSG_DONTWAIT) > 0)
                ;
            shutdown(fd, SHUT_WR);
            loop_until(&loop, r.done);
            close(fd);
            if (cases[i].error) {
                assert_int_equal(r.status, 0);
                if (!strstr(r.error, cases[i].error))
                    fail_msg("case %zu: %s", i, r.error);
            } else {
                assert_string_equal(r.error, "");
                assert_span(buf_span(&r.body), cases[i].body);
            }
        }
    }

    /* More interim answers than anybody needs. */
    fetch(&r, &(struct http_fetch_options){address, "GET", "/"}, &collect);
    loop_turn(&loop);
    int fd = accept(listener, NULL, NULL);
    for (int i = 0; i < 100; i++)
        send(fd, "HTTP/1.1 102 Processing\r\n\r\n", 27, MSG_NOSIGNAL);
    loop_until(&loop, r.done);
    assert_non_null(strstr(r.error, "interim answers"));
    close(fd);

    /* A head without end. */
    fetch(&r, &(struct http_fetch_options){address, "GET", "/"}, &collect);
    loop_turn(&loop);
    fd = accept(listener, NULL, NULL);
    send(fd, "HTTP/1.1 200 OK\r\n", 17, MSG_NOSIGNAL);
    for (int i = 0; i < 20; i++) {
        char field[4096] = "A: ";
        memset(field + 3, 'x', sizeof(field) - 5);
        memcpy(field + sizeof(field) - 2, "\r\n", 2);
        send(fd, field, sizeof(field), MSG_NOSIGNAL);
        loop_turn(&loop);
    }
    loop_until(&loop, r.done);
    assert_non_null(strstr(r.error, "head is larger than 65536 bytes"));
    close(fd);
    close(listener);

    fetch(&r, &(struct http_fetch_options){address, "GET", "/"}, &collect);
    loop_until(&loop, r.done);
    assert_non_null(strstr(r.error, "cannot connect: connection refused"));
    fetch(&r, &(struct http_fetch_options){"unix:/nonexistent/s", "GET", "/"}, &collect);
    loop_until(&loop, r.done);
    assert_non_null(strstr(r.error, "cannot connect: no such file"));
    fetch(&r, &(struct http_fetch_options){"nowhere", "GET", "/"}, &collect);
    loop_until(&loop, r.done);
    assert_non_null(strstr(r.error, "write HOST:PORT"));
    fetch(&r, &(struct http_fetch_options){"host.invalid:80", "GET", "/"}, &collect);
    http_fetch_cancel(r.fetch);
    loop_until(&loop, r.done);
    result_clear(&r);
    loop_end(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_answers), cmocka_unit_test(a_cut_is_an_error),
        cmocka_unit_test(cancel),        cmocka_unit_test(time_limits),
        cmocka_unit_test(bad_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
