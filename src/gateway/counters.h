/*
 * gateway/counters - what happened, in shared memory.
 *
 * A memfd with one row for each (slot, worker) and one for each worker.  A row
 * has a single writer, its worker; the manager maps the segment and adds the
 * rows up.  The segment outlives the gateway: the manager holds the memfd and
 * hands it to the next one.  Rows never go backwards.
 */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"

enum {
    COUNTERS_SLOTS = 4096,
    COUNTERS_WORKERS = 16,
    COUNTERS_VERSION = 4 /* of this layout; another one is not adopted */
};

/*
 * Durations, in buckets of a quarter of an octave from HISTOGRAM_FIRST_US: bucket i
 * ends at FIRST * 2^((i + 1) / 4) microseconds, the last one has no end.  The
 * bound of a bucket is at most 19 % above what it holds.
 */
enum { HISTOGRAM_FIRST_US = 64, HISTOGRAM_BUCKETS = 84 /* to 134 s */ };

struct histogram {
    _Atomic uint64_t sum_us;
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t us);
/* The upper bound of a bucket in microseconds; UINT64_MAX for the last. */
uint64_t histogram_bound_us(unsigned bucket);

// clang-format off
/* What a replica's exchanges came to.  The last five end an exchange there. */
#define REPLICA_COUNTERS(X)                                             \
    X(started)   /* sent there because of the route */                  \
    X(pinned)    /* sent there because the client named the version */  \
    X(tokens)    /* SSE events relayed */                               \
    X(finished)  /* whole answer, status below 500 */                   \
    X(failed)    /* 5xx, or nothing relayed and given up */             \
    X(truncated) /* cut after the first relayed byte, not by the client */ \
    X(cancelled) /* the client left */                                  \
    X(retried)   /* moved elsewhere before the first relayed byte */

/* At rest, requests + rejected = answered + unanswered. */
#define WORKER_COUNTERS(X)                                              \
    X(requests)     /* received whole */                                \
    X(rejected)     /* answered before they were whole */               \
    X(answered)     /* whole answers of any status */                   \
    X(unanswered)   /* cut answers, and requests whose client left */   \
    X(errors_4xx)   /* answers made by the gateway itself */            \
    X(errors_5xx)                                                       \
    X(refused)      /* connections shed at a limit */                   \
    X(opened)       /* client connections accepted */                   \
    X(closed)       /* client connections ended */                      \
    X(held_total)   /* exchanges that had to wait */                    \
    X(unheld)       /* exchanges that wait no more */                   \
    X(hold_expired) /* of those: answered 503 at their deadline */      \
    X(log_lines)    /* of the access log: written */                    \
    X(log_lost)     /* of the access log: not taken by its file */
// clang-format on

struct replica_row {
#define X(name) _Atomic uint64_t name;
    REPLICA_COUNTERS(X)
#undef X
    _Atomic uint64_t last_start_ns; /* CLOCK_MONOTONIC of the newest start by the route */
    struct histogram first_byte;    /* request sent to the first byte of the answer's body */
    struct histogram token;         /* SSE answers: mean time of one event after the first */
    struct histogram whole;         /* request whole to answer whole */
} __attribute__((aligned(128)));

struct worker_row {
#define X(name) _Atomic uint64_t name;
    WORKER_COUNTERS(X)
#undef X
} __attribute__((aligned(128)));

struct counters {
    uint64_t version;        /* COUNTERS_VERSION */
    _Atomic uint64_t nslots; /* slots that were ever used; rows behind them were never touched */
    struct worker_row workers[COUNTERS_WORKERS];
    struct replica_row replicas[COUNTERS_SLOTS][COUNTERS_WORKERS];
};

/* The single writer adds without a locked instruction. */
static inline void counter_add(_Atomic uint64_t *c, uint64_t n)
{
    atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static inline uint64_t counter_read(const _Atomic uint64_t *c)
{
    return atomic_load_explicit((_Atomic uint64_t *)c, memory_order_relaxed);
}

/* Exchanges that a row has begun and not ended. */
uint64_t replica_row_in_flight(const struct replica_row *r);

/* A new zeroed segment: its memfd (close-on-exec), or -1. */
int counters_create(struct err *err) MUST_CHECK;

/* Maps a segment; NULL if it is not one of this layout.  counters_unmap() ends it. */
struct counters *counters_map(int fd, struct err *err);
void counters_unmap(struct counters *c);

/* Exchanges that a dead gateway left open are booked as truncated. Called by a
 * gateway before its workers start. Returns how many there were. */
uint64_t counters_settle(struct counters *c);
