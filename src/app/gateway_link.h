/*
 * app/gateway_link - the manager's end of the gateway: it starts the gateway
 * process or adopts a running one, keeps the listening sockets and the counters
 * segment, sends route tables and waits for their acknowledgement.
 *
 *    adopted ──▶ UP ◀──hello── STARTING ◀──back-off── DOWN
 *                 │               ▲ └───process ended──▲
 *                 └──process ended┼────────────────────┘
 *    nobody there ────────────────┘        any ──close──▶ CLOSING
 *
 * After a restart the gateway gets the newest table before it takes a request.
 */
#pragma once
#include <jansson.h>
#include <uv.h>

#include "base/err.h"
#include "config/config.h"

struct gateway_link;

/* What a publish has brought about. */
struct gateway_ack {
    uint64_t epoch;
    uint64_t acked_ns; /* CLOCK_MONOTONIC when the last worker had adopted it */
};

struct gateway_link_events {
    /* The gateway is up and has the newest table (after start, restart, adoption). */
    void (*on_up)(void *arg);
    void (*on_down)(const char *reason, void *arg);
};

/*
 * Binds the listening sockets (or takes them from a running gateway, which is
 * then adopted). -1 with a sentence if an address is in use (and by whom).
 */
struct gateway_link *gateway_link_new(uv_loop_t *loop, const struct config *config,
                                      const struct gateway_link_events *events, void *arg,
                                      struct err *err);

/*
 * Publishes a table; reference is stolen.  Its "epoch" must be greater than any
 * before; its "models" are those that have changed since the last publish (all of
 * them the first time), the gateway is told no more than that; so with "keys", which may
 * be missing.  acked is called
 * once when all workers have adopted it; if the gateway is down, when the next
 * one has started with it.
 */
void gateway_link_publish(struct gateway_link *g, json_t *table,
                          void (*acked)(const struct gateway_ack *ack, void *arg), void *arg);

/*
 * The access log: fd is a file open for appending (owned from now on), -1: none.  This
 * gateway and those after it write there; again after a rotation.
 */
void gateway_link_access_log(struct gateway_link *g, int fd, bool text);

/* The message with the certificate for TLS, for the gateway that runs and for those after it;
 * reference is stolen. */
void gateway_link_certificate(struct gateway_link *g, json_t *message);

/* The newest epoch that the gateway has (of an adopted one: perhaps newer than the
 * store knows). A publish needs a greater one. */
uint64_t gateway_link_epoch(const struct gateway_link *g);

/* The first listening address with its real port, e.g. "127.0.0.1:8080"; borrowed. */
const char *gateway_link_listen(const struct gateway_link *g);

/* Counters of one replica slot, summed over the workers. */
struct replica_counters {
    uint64_t started;   /* exchanges sent to this replica because of the route */
    uint64_t pinned;    /* the same because the client named MODEL@VERSION */
    uint64_t finished;  /* answered whole with status < 500 */
    uint64_t failed;    /* 5xx from the engine, or no whole answer before its first relayed byte */
    uint64_t truncated; /* cut after the first relayed byte, not by the client's wish */
    uint64_t cancelled; /* the client left first */
    uint64_t retried;   /* moved to another replica before the first byte */
    uint64_t in_flight; /* started + pinned - ended */
    uint64_t tokens;    /* SSE data events relayed */
    uint64_t last_start_ns; /* CLOCK_MONOTONIC of the newest start by the route, 0 if none */
};
void gateway_link_replica(const struct gateway_link *g, int slot, struct replica_counters *out);

/* Counters of the whole gateway, summed over workers. */
struct gateway_counters {
    uint64_t requests, rejected;     /* whole; answered before they were whole */
    uint64_t answered, unanswered;   /* whole answers of any status; cut, or the client left */
    uint64_t errors_4xx, errors_5xx; /* answers made by the gateway itself */
    uint64_t refused;                /* connections refused or shed at a limit */
    uint64_t connections;            /* open now */
    uint64_t held;                   /* waiting now */
    uint64_t held_total, hold_expired;
};
void gateway_link_counters(const struct gateway_link *g, struct gateway_counters *out);

/* The rows themselves, and how many workers write them; borrowed. */
struct counters;
const struct counters *gateway_link_rows(const struct gateway_link *g);
unsigned gateway_link_workers(const struct gateway_link *g);

pid_t gateway_link_pid(const struct gateway_link *g); /* 0: none runs */
unsigned gateway_link_restarts(const struct gateway_link *g);

/* {state, pid, since, restarts, epoch, workers, listen[], rss_bytes}; new reference. */
json_t *gateway_link_json(const struct gateway_link *g);

/* Lets go: the gateway runs on (end = false), or is told to drain and end (end = true,
 * streams get drain_ms). closed is called when done. */
void gateway_link_close(struct gateway_link *g, bool end, uint64_t drain_ms,
                        void (*closed)(void *arg), void *arg);
