/*
 * The server under clients that do everything at random: requests in pieces,
 * pipelined, wrong, given up at any byte, not read; and a handler that answers
 * at once, later, in a stream, by a cut, or sees the client leave.  Afterwards
 * every call has ended exactly once and nothing is left over.
 */
#include <stdlib.h>

#include "http/server.h"
#include "loop.h"

enum { CLIENTS = 24, CALLS = 16, ROUNDS = 3000 };

struct storm {
    uv_loop_t loop;
    struct http_server *server;
    unsigned seed;
    struct http_call *calls[CALLS]; /* borrowed; being answered */
    bool started[CALLS];
    int begun, ended, gone;
};

static unsigned below(struct storm *s, unsigned n)
{
    return (unsigned)rand_r(&s->seed) % n;
}

static void on_gone(struct http_call *call, void *arg)
{
    struct storm *s = arg;

    for (int i = 0; i < CALLS; i++)
        if (s->calls[i] == call) {
            s->calls[i] = NULL;
            s->gone++;
            return;
        }
    fail_msg("on_gone for a call that had ended");
}

static void on_call(struct http_call *call, void *arg)
{
    struct storm *s = arg;
    int free_at = -1;

    s->begun++;
    for (int i = 0; i < CALLS; i++)
        if (!s->calls[i])
            free_at = i;
    if (free_at < 0 || below(s, 3) == 0) {
        s->ended++;
        http_call_reply(call, 200, NULL, NULL, http_call_body(call));
        return;
    }
    s->calls[free_at] = call;
    s->started[free_at] = false;
    http_call_on_gone(call, on_gone, s);
}

/* One step of one call that is being answered. */
static void answer(struct storm *s)
{
    static char data[200000];
    unsigned i = below(s, CALLS);
    struct http_call *call = s->calls[i];

    if (!call)
        return;
    if (!s->started[i] && below(s, 2)) {
        s->started[i] = true;
        http_call_start(call, 200, "text/plain", NULL);
        return;
    }
    if (s->started[i] && below(s, 4)) {
        http_call_write(call, span_of(data, below(s, 8) ? below(s, 100) : sizeof(data)));
        return;
    }
    s->calls[i] = NULL;
    s->ended++;
    if (below(s, 5) == 0)
        http_call_cut(call);
    else if (s->started[i])
        http_call_finish(call);
    else
        http_call_error(call, 404, "x", "nothing here");
}

static const char *const requests[] = {
    "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789",
    "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\nshort",
    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "rubbish\r\n\r\n",
};

/* One step of one client: connect, send a piece, read a little, leave. */
static void client(struct storm *s, struct raw *r)
{
    char room[3000];

    if (r->fd < 0) {
        *r = raw_tcp(http_server_port(s->server));
        return;
    }
    unsigned what = below(s, 12);
    if (what < 6) {
        const char *text = requests[below(s, COUNT_OF(requests))];
        size_t n = strlen(text), from = below(s, 6) ? 0 : below(s, (unsigned)n);
        send(r->fd, text + from, below(s, 6) ? n - from : below(s, (unsigned)(n - from)),
             MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (what < 10) {
        ssize_t n = recv(r->fd, room, sizeof(room), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN)) {
            close(r->fd);
            r->fd = -1;
        }
    } else if (what == 10) {
        shutdown(r->fd, SHUT_WR);
    } else {
        close(r->fd);
        r->fd = -1;
    }
}

static void storm(void **state)
{
    const struct http_server_limits limits = {.connections = 20,
                                              .idle_ms = 20,
                                              .receive_ms = 20,
                                              .pending_bytes = 300000,
                                              .body_bytes = 99};
    struct storm *s = calloc(1, sizeof(*s));
    struct err err;

    for (unsigned seed = 1; seed <= 4; seed++) {
        struct raw clients[CLIENTS];
        *s = (struct storm){.seed = seed};
        assert_int_equal(uv_loop_init(&s->loop), 0);
        s->server = http_server_new(&s->loop, &limits, on_call, s);
        assert_int_equal(http_server_listen(s->server, "127.0.0.1:0", &err), 0);
        for (int i = 0; i < CLIENTS; i++)
            clients[i] = (struct raw){.fd = -1};

        for (int round = 0; round < ROUNDS; round++) {
            for (int i = 0; i < 8; i++) {
                client(s, &clients[below(s, CLIENTS)]);
                answer(s);
            }
            uv_run(&s->loop, UV_RUN_NOWAIT);
            assert_int_equal((int)http_server_calls(s->server), s->begun - s->ended - s->gone);
        }
        if (seed % 2)
            http_server_drain(s->server);
        http_server_close(s->server);
        assert_int_equal(s->begun, s->ended + s->gone);
        assert_true(s->ended > 300 && s->gone > 100);
        loop_end(&s->loop);
        for (int i = 0; i < CLIENTS; i++)
            if (clients[i].fd >= 0)
                close(clients[i].fd);
    }
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(storm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
