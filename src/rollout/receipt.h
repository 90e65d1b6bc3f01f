/*
 * rollout/receipt - what an update leaves behind, computed from readings.
 *
 *   begin ──────────── ack ──────────── until ──── end
 *     │                 │                 │         │
 *     │                 │                 │         └ the rollout is over
 *     │                 │                 └ the old version gets requests again (rolling
 *     │                 │                   back), or the same as end
 *     │                 └ the last worker had the new table
 *     └ the rollout was begun
 *
 * Whoever keeps a receipt fills it as things happen; receipt_json() does the
 * arithmetic.  Nothing here reads a clock or a counter.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "rollout/tally.h"

/* One reading of everything that a receipt is made from. */
struct receipt_reading {
    struct tally model;    /* all replicas of the model, those that are gone included */
    struct tally from;     /* the old version's */
    struct tally to;       /* the new version's */
    uint64_t held;         /* exchanges that had to wait, ever, in the whole gateway */
    uint64_t hold_expired; /* of those: answered 503 at their deadline */
};

enum { RECEIPT_PHASES = 6 };

struct receipt {
    int64_t rollout;   /* the rollout's number in the store */
    const char *model; /* borrowed, like all text here */
    const char *kind, *from, *to, *result, *reason;
    int64_t began_wall_ms, ended_wall_ms;
    struct {
        const char *name; /* borrowed; NULL: not reached */
        uint64_t ns;
    } phases[RECEIPT_PHASES];
    bool switched;            /* the new table was acknowledged; `ack` is a reading */
    bool recovered;           /* a new manager took over: readings begin there */
    uint64_t switch_began_ns; /* CLOCK_MONOTONIC; 0 if not known (recovered) */
    uint64_t acked_ns;
    uint64_t recorded_switch_us; /* recovered: what the former manager wrote down; 0: nothing */
    uint64_t epoch;              /* 0: none was published */
    unsigned workers;
    const char *from_sha256, *to_sha256; /* NULL: not known */
    struct receipt_reading begin, ack, until, end;
};

/* The documented object; new reference. */
json_t *receipt_json(const struct receipt *r);

/* Microseconds from the beginning of the switch to its acknowledgement; 0 if it did not happen. */
uint64_t receipt_switch_us(const struct receipt *r);
