/*
 * gateway/access - the access log: one line for each request.
 *
 * A worker formats into its own buffer and gives it to the file with one write(2)
 * when it is large or a second old.  What the file does not take is kept, within
 * bounds, and tried again each second; lines beyond that are dropped and counted.
 * Nobody ever waits for the log.
 *
 *   head ──▶ access_begin: a note ──▶ exchange ends, or an answer of our own ──▶ access_end: a line
 *
 * When there is no log a request costs two comparisons.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "gateway/timers.h"

struct client;
struct exchange;
struct http_request_head;
struct worker;

// clang-format off
/*    id         name         what became of the request */
#define ACCESS_OUTCOMES(X)                                                            \
    X(FINISHED,  "finished",  "a whole answer")                                       \
    X(FAILED,    "failed",    "an engine was asked; it answered 5xx, or nothing whole") \
    X(TRUNCATED, "truncated", "the answer was cut after it had begun, not by the client") \
    X(CANCELLED, "cancelled", "the client left before its answer was whole")          \
    X(REFUSED,   "refused",   "the gateway said no; no engine was asked")
// clang-format on

enum access_outcome {
#define X(id, name, note) ACCESS_##id,
    ACCESS_OUTCOMES(X)
#undef X
};

/* What a line says. Empty spans and ACCESS_NONE: nothing is known. */
#define ACCESS_NONE UINT64_MAX

struct access_record {
    int64_t wall_ms;
    struct span request_id, client, key, method, path, model, version, replica, error;
    int status; /* 0: none was sent */
    enum access_outcome outcome;
    uint64_t bytes, events;
    uint64_t first_byte_us, token_us, total_us, held_us, overhead_us;
    unsigned tries;
};

/* Appends the line of a record with its line feed. */
void access_format(struct buf *out, const struct access_record *r, bool text);

/* --- a worker's log --------------------------------------------------------------------------- */

struct access_log {
    int fd; /* owned; -1: no log */
    bool text;
    bool pieces;    /* a pipe or the like: whole lines of at most PIPE_BUF at once */
    bool failing;   /* the last write did not take everything */
    bool torn;      /* the file ends within a line */
    unsigned seen;  /* of gateway_access() */
    uint64_t lost;  /* lines dropped since it is failing */
    struct buf out; /* lines that the file does not have yet */
    struct timer timer;
};

void access_init(struct worker *w);
/* Takes the newest file, if there is a newer one; lines so far go to the old one. */
void access_adopt(struct worker *w);
/* Writes what there is and lets go of the file. */
void access_fini(struct worker *w);

/* --- a request -------------------------------------------------------------------------------- */

/* All of these only while the worker has a log or the client a note; `head` NULL: not known. */
void access_begin(struct client *c, const struct http_request_head *head);
/* The answer is one of our own. */
void access_answer(struct client *c, int status, uint64_t bytes);
/* It is a refusal, or a failure: the code that the client is told. */
void access_error(struct client *c, const char *code);
/* The exchange of c is over; access_end() is called before this call stack is left. */
void access_exchange(struct client *c, struct exchange *x);
/* Whether an answer of our own was made. */
bool access_answered(const struct client *c);
/* Writes the line. FINISHED is made FAILED or REFUSED where that is the case. */
void access_end(struct client *c, enum access_outcome outcome);
/* Forgets the request. */
void access_drop(struct client *c);
