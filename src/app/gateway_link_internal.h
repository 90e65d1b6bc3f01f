/*
 * app/gateway_link_internal - a gateway link from the inside, for its three files:
 *
 *   gateway_link.c      its life: start, hello, messages, end
 *   gateway_handover.c  the sockets: bound by us, or taken from a gateway that was there
 *   gateway_view.c      what it tells: counters, JSON
 */
#pragma once
#include <sys/un.h>

#include "app/gateway_link.h"
#include "base/list.h"
#include "gateway/control.h"
#include "gateway/counters.h"

// clang-format off
#define LINK_STATES(X)                                                          \
    X(STARTING, "starting", "spawned; its hello has not come")                  \
    X(UP,       "up",       "connected; has said hello")                        \
    X(ENDING,   "ending",   "its connection has ended, its process not yet")    \
    X(DOWN,     "down",     "no process; a restart is planned")                 \
    X(CLOSING,  "closing",  "let go, or told to end; no restart")
// clang-format on

enum link_state {
#define X(id, name, note) LINK_##id,
    LINK_STATES(X)
#undef X
};

struct gateway_link {
    uv_loop_t *loop;             /* borrowed */
    const struct config *config; /* borrowed */
    struct gateway_link_events events;
    void *arg;

    enum link_state state;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int control;               /* listening control socket; owned */
    int counters_fd;           /* owned */
    struct counters *counters; /* owned mapping */
    char **listen;             /* owned; with real ports */
    size_t nlisten;
    int listen_fds[CONTROL_FDS_MAX]; /* owned; address by address, one for each worker */
    size_t nlisten_fds;
    unsigned workers;

    int access_fd; /* of the access log; owned; -1: none */
    bool access_text;

    int connection; /* owned; -1: none */
    struct control_reader reader;
    int pidfd;        /* owned; -1: none */
    pid_t pid;        /* 0: none */
    int64_t since_ms; /* wall clock */
    uint64_t up_ns;
    unsigned restarts;
    unsigned failures; /* in a row */
    bool restarted;    /* UP, but the newest table is not acknowledged */

    json_t *table;       /* owned; the newest without its models, NULL before the first */
    json_t *models;      /* owned; every model's newest part of the table, by name */
    json_t *certificate; /* owned; the message, NULL: no TLS */
    json_t *keys;        /* owned; the newest list of keys, NULL: there was none */
    uint64_t published;  /* epoch of `table` */
    uint64_t sent;       /* epoch that this gateway has been sent as a whole; 0: none */
    uint64_t epoch;      /* of the newest that the gateway has acknowledged */
    struct list waiters;

    uv_poll_t *poll;      /* on connection; owned, NULL: none */
    uv_poll_t *exit_poll; /* on pidfd; owned, NULL: none */
    uv_timer_t timer;     /* first step, restart, deadlines */
    void (*closed)(void *arg);
    void *closed_arg;
};

/* A connection to STATE/gateway.sock, or -1. */
int gateway_connect(struct gateway_link *g);

/* Makes and listens on STATE/gateway.sock. */
int gateway_open_control(struct gateway_link *g, struct err *err) MUST_CHECK;

/* Binds what `listen` says, a socket for each worker. */
int gateway_open_listeners(struct gateway_link *g, struct err *err) MUST_CHECK;
void gateway_close_listeners(struct gateway_link *g);

/* The hello of the gateway at g->connection (new reference), or NULL; waits, so
 * only before the loop runs. */
json_t *gateway_wait_hello(struct gateway_link *g, struct err *err);

/* Takes the sockets and the counters that came with a hello. */
int gateway_take_over(struct gateway_link *g, json_t *hello, struct err *err) MUST_CHECK;

/* Says what of the configuration the gateway that runs does not follow. */
void gateway_warn_of_changes(const struct gateway_link *g);
