/*
 * rollout/tally - what the exchanges of some replicas came to, added up.
 *
 * A tally is a reading of counters that only grow (and of one gauge,
 * in_flight).  Differences between two tallies say what happened in between.
 */
#pragma once
#include <stdint.h>

struct tally {
    uint64_t started;       /* exchanges begun because of the route */
    uint64_t pinned;        /* begun because the client named the version */
    uint64_t finished;      /* answered whole, status below 500 */
    uint64_t failed;        /* 5xx, or no whole answer before the first relayed byte */
    uint64_t truncated;     /* cut after the first relayed byte, not by the client */
    uint64_t cancelled;     /* the client left */
    uint64_t retried;       /* moved elsewhere before the first relayed byte */
    uint64_t tokens;        /* SSE events relayed */
    uint64_t in_flight;     /* now */
    uint64_t last_start_ns; /* CLOCK_MONOTONIC of the newest start by the route, 0 if none */
};

/* Adds what `more` counted. */
void tally_add(struct tally *sum, const struct tally *more);

/* What happened from `a` to `b`: counters are subtracted (never below 0), in_flight and
 * last_start_ns are those of b. */
struct tally tally_since(const struct tally *a, const struct tally *b);

/* Exchanges that came to an end here, in whatever way. */
uint64_t tally_ended(const struct tally *t);
