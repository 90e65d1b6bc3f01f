/*
 * tally - what one thread has counted.
 *
 * The tally of a whole run belongs to its thread alone and is read when the
 * thread has ended; an interval is shared with the thread that reports, under
 * the worker's lock.
 */
#pragma once
#include "histogram.h"
#include "names.h"
#include "verdict.h"

enum { TALLY_STATUSES = 600 };

struct tally {
    uint64_t plain_ok, streams_ok;
    uint64_t tokens;         /* events relayed in streams that were right */
    uint64_t cause[NCAUSES]; /* of failed requests; NONE: those that were right */
    uint64_t status[TALLY_STATUSES];
    uint64_t version[NAMES_MAX]; /* right answers by version */
    uint64_t unversioned;        /* right answers that name no version */
    uint64_t connects;           /* connections opened */
    uint64_t closed_idle;   /* kept-alive connections that the server closed between requests */
    uint64_t stray;         /* bytes came on a connection without a request */
    uint64_t idle_failed;   /* connections to be held idle that got no right answer */
    uint64_t idle_lost;     /* that were closed by the server while held */
    uint64_t last_ended_ns; /* of any request */
    uint64_t first_ended_ns, last_right_ns; /* of right answers that named a version */
    int first_version, last_version;        /* theirs; -1: none */
    uint64_t received_bytes;
    struct histogram plain, streams; /* intended start to last byte */
    struct histogram first_byte;     /* first byte sent to first byte of the answer */
    struct histogram first_token;    /* first byte sent to first event, streams */
    struct histogram token_gap;      /* event to event within a stream */
};

void tally_init(struct tally *t);
void tally_merge(struct tally *into, const struct tally *from);

struct interval {
    uint64_t ok, failed, tokens;
    uint64_t version[NAMES_MAX];
    struct histogram latency;
};

void interval_clear(struct interval *i);
void interval_merge(struct interval *into, const struct interval *from);
