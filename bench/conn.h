/*
 * conn - one connection of the load generator, from connect to the verdict on
 * each of its answers.  Inside: only conn.c and worker.c include this.
 *
 *              ┌──────────── connection ended, or must not be reused ───────────┐
 *              ▼                                                                │
 *   CLOSED ─▶ CONNECTING ─▶ READY ─▶ SENDING ─▶ WAITING ─▶ READING ─▶ READY …  ─┘
 *
 * A connection is registered once, edge-triggered for both directions.  CLOSED
 * ones wait in `retry` in the order of their due time; READY ones without work
 * wait in `ready`.
 */
#pragma once
#include "base/list.h"
#include "worker.h"

enum { CONN_READ_BYTES = 65536 };

/*    id           what is true */
#define CONN_STATES(X)                                          \
    X(CLOSED, "no descriptor; in `retry`, or never used again") \
    X(CONNECTING, "a descriptor, not yet connected")            \
    X(READY, "connected, no request; perhaps in `ready`")       \
    X(SENDING, "a request is not sent completely")              \
    X(WAITING, "sent; no byte of the answer has come")          \
    X(READING, "a part of the answer has come")

enum conn_state {
#define X(id, note) CONN_##id,
    CONN_STATES(X)
#undef X
        CONN_NSTATES
};

struct conn {
    struct list link;      /* in `retry` or `ready` of the worker, or alone */
    struct worker *worker; /* borrowed */
    enum conn_state state;
    bool hold;                     /* one request, then it is held idle */
    bool holding;                  /* it had its answer */
    bool head_seen;                /* the verdict knows the head */
    bool ending;                   /* the other side has sent its last byte */
    int fd;                        /* owned; -1 when CLOSED */
    int version;                   /* of this answer; -1 unknown */
    const struct request *request; /* borrowed from the script */
    size_t sent;
    uint64_t due_ns;      /* CLOSED: when to connect */
    uint64_t intended_ns; /* when the request should have started */
    uint64_t started_ns, first_ns, event_ns;
    struct reply reply;
    struct verdict verdict;
    struct buf held; /* bytes that could not be used yet */
};

struct worker {
    struct run *run; /* borrowed */
    pthread_t thread;
    int epoll;          /* owned */
    struct conn *conns; /* owned array */
    unsigned count;
    struct list retry, ready;
    struct facts_memory memory;
    char *bytes; /* owned; READ_BYTES */
    uint64_t now, looked_ns;
    uint64_t quota;   /* requests that may still start */
    uint64_t begun;   /* requests of the load begun; the next one's number */
    double period_ns; /* open loop: between two intended starts */
    unsigned phase;   /* number of the worker: shifts sentences and starts */
    struct tally tally;
    atomic_bool ended;

    pthread_mutex_t lock; /* guards what follows */
    struct interval interval;
    uint64_t started, in_flight, idle_open;
    struct record *records; /* owned */
    size_t nrecords, records_room;

    unsigned nsamples;
    char sample[WORKER_SAMPLES][WORKER_SAMPLE_BYTES];
};

/* A descriptor for a CLOSED connection; on failure it waits in `retry` again. */
void conn_open(struct conn *c);

/* A READY connection sends its next request. */
void conn_begin(struct conn *c, uint64_t intended_ns);

/* What epoll told. */
void conn_event(struct conn *c, uint32_t events);

/* The request ends with this cause; the connection goes on if it may. */
void conn_finish(struct conn *c, enum cause cause, bool reusable);

static inline bool conn_has_request(const struct conn *c)
{
    return c->state >= CONN_SENDING;
}

/* A request of the load may start now. */
bool worker_may_begin(const struct worker *w);

/* Open loop: when the next request should start. */
uint64_t worker_next_intended(const struct worker *w);
