/*
 * loop - a libuv loop with deadlines, and a plain socket client beside it.
 *
 * Tests run the loop until a fact holds (loop_until), never for a time.
 */
#pragma once
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "base/buf.h"
#include "base/clock.h"
#include "test.h"

enum { LOOP_DEADLINE_S = 20 };

/* Runs the loop until `fact` holds; fails the test after the deadline. */
#define loop_until(loop, fact)                                                              \
    do {                                                                                    \
        uint64_t end_ = clock_ns() + LOOP_DEADLINE_S * UINT64_C(1000000000);                \
        while (!(fact)) {                                                                   \
            if (clock_ns() > end_)                                                          \
                fail_msg("line %d: not within %d s: %s", __LINE__, LOOP_DEADLINE_S, #fact); \
            loop_turn(loop);                                                                \
        }                                                                                   \
    } while (0)

static inline void loop_turn(uv_loop_t *loop)
{
    uv_run(loop, UV_RUN_NOWAIT);
    struct pollfd p = {.fd = uv_backend_fd(loop), .events = POLLIN};
    poll(&p, 1, 1);
}

/* Lets every handle close; nothing may be left in the loop. */
static inline void loop_end(uv_loop_t *loop)
{
    uint64_t end = clock_ns() + LOOP_DEADLINE_S * UINT64_C(1000000000);

    while (uv_run(loop, UV_RUN_NOWAIT) && clock_ns() < end)
        loop_turn(loop);
    assert_int_equal(uv_loop_close(loop), 0);
}

/* A client that sends what it is told and keeps what it reads. */
struct raw {
    int fd;
    struct buf in;
    bool ended; /* EOF or an error came */
    int error;  /* errno of that error */
};

/* receive_room: bytes that the kernel keeps for us unread; 0: its default. */
static inline struct raw raw_tcp_room(int port, int receive_room)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct raw r = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};

    if (receive_room)
        setsockopt(r.fd, SOL_SOCKET, SO_RCVBUF, &receive_room, sizeof(receive_room));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(r.fd, (struct sockaddr *)&at, sizeof(at)), 0);
    return r;
}

static inline struct raw raw_tcp(int port)
{
    return raw_tcp_room(port, 0);
}

static inline void raw_end(struct raw *r)
{
    close(r->fd);
    buf_fini(&r->in);
}

static inline void raw_read(struct raw *r)
{
    char room[65536];
    ssize_t n;

    while (!r->ended && (n = recv(r->fd, room, sizeof(room), MSG_DONTWAIT)) != -1) {
        if (n == 0)
            r->ended = true;
        buf_add(&r->in, room, (size_t)n);
    }
    if (!r->ended && errno != EAGAIN) {
        r->ended = true;
        r->error = errno;
    }
}

static inline void raw_send(struct raw *r, const char *text)
{
    size_t n = strlen(text);

    assert_int_equal(send(r->fd, text, n, MSG_NOSIGNAL), (ssize_t)n);
}

static inline bool raw_has(struct raw *r, const char *text)
{
    raw_read(r);
    return strstr(buf_cstr(&r->in), text) != NULL;
}

static inline bool raw_ended(struct raw *r)
{
    raw_read(r);
    return r->ended;
}
