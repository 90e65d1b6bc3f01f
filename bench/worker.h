/*
 * worker - one thread of the load generator: an epoll loop over its
 * connections, which sends the script's requests and judges each answer.
 *
 * Closed loop: each connection sends its next request when it has its answer.
 * Open loop: requests have intended starts at a fixed rate; one that finds no
 * free connection waits, and its latency counts from the intended start (no
 * coordinated omission).
 */
#pragma once
#include "address.h"
#include "expect.h"
#include "switches.h"
#include "tally.h"

enum { WORKER_SAMPLES = 8, WORKER_SAMPLE_BYTES = 400 };

/* What all workers share; constant while they run, but for `stop`. */
struct run {
    struct address address;
    struct script script;
    struct expect expect;
    struct names names;
    unsigned threads;
    unsigned connections; /* of all threads, like the following */
    unsigned idle;        /* more connections: one request each, then held */
    uint64_t requests;    /* 0: no limit */
    double rate;          /* requests a second; 0: closed loop */
    double streams;       /* share of streamed requests */
    uint64_t timeout_ns;  /* for one answer */
    uint64_t grace_ns;    /* for what is in flight at the end */
    bool check_version, keep_text, reconnect;
    bool keep_records; /* for a switch log */
    uint64_t start_ns;
    atomic_bool stop; /* no request starts any more */
};

struct worker;

struct worker *worker_start(struct run *run, unsigned number, struct err *err);

/* True when it has nothing in flight and will start nothing. */
bool worker_ended(struct worker *w);

/* Moves what was counted since the last call into `into`; *in_flight and
 * *idle_open are those of now. */
void worker_collect(struct worker *w, struct interval *into, uint64_t *in_flight,
                    uint64_t *idle_open);

/* Takes the records; the caller frees the array. */
struct record *worker_take_records(struct worker *w, size_t *count);

/* Waits for its end, merges its tally; `sample` gets descriptions of its first failures. */
void worker_join(struct worker *w, struct tally *into, uint64_t *started,
                 void (*sample)(void *arg, const char *text), void *arg);
