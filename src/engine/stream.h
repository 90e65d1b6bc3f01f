/*
 * stream - one answer that is being generated.
 *
 *   WAITING ──slot──▶ READING ──prompt computed──▶ TALKING ──▶ ENDED
 *      └────────────────┴────── cancelled, failed ─────────────┘
 *
 * Two threads know a stream and each keeps one reference.  The HTTP thread makes
 * it, hands it over and may cancel it; everything else belongs to the decode
 * thread.  What was said travels in `said`, under the engine's lock.
 */
#pragma once
#include "base/list.h"
#include "engine/request.h"

#define STREAM_STATES(X)                                              \
    X(WAITING, "waiting", "in the queue, no slot")                    \
    X(READING, "reading", "has a slot; its prompt is being computed") \
    X(TALKING, "talking", "has a slot and said at least one token")   \
    X(ENDED, "ended", "no slot; its end is told or will be")

enum stream_state {
#define X(id, name, fact) STREAM_##id,
    STREAM_STATES(X)
#undef X
        STREAM_NSTATES
};

#define FINISHES(X)           \
    X(NONE, "")               \
    X(STOP, "stop")           \
    X(LENGTH, "length")       \
    X(CANCELLED, "cancelled") \
    X(FAILED, "error")

enum finish {
#define X(id, name) FINISH_##id,
    FINISHES(X)
#undef X
};

const char *finish_name(enum finish f);

/* What the decode thread tells the HTTP thread, gathered until it is taken. */
struct said {
    struct buf text; /* owned */
    enum finish finish;
    uint32_t tokens;   /* generated so far */
    uint32_t reused;   /* prompt tokens that were not computed */
    const char *error; /* static text; FINISH_FAILED only */
};

struct slot;

struct stream {
    int refs;                    /* atomic */
    struct request *request;     /* counted */
    int index;                   /* of the choice in the answer */
    const struct prompt *prompt; /* borrowed from request */
    uint64_t seed;
    void *owner;   /* the HTTP thread's */
    int cancelled; /* atomic flag; set by the HTTP thread */

    /* the decode thread's */
    enum stream_state state;
    struct slot *slot;       /* borrowed; READING and TALKING */
    struct list link;        /* in the inbox, then in the waiting queue */
    struct sampler *sampler; /* owned; READING and TALKING */
    struct tail tail;
    uint32_t generated;
    uint64_t arrived_ns;
    struct said fresh; /* said in this step, not yet published */

    /* shared, under the engine's lock */
    struct said said;
    struct list out; /* in the outbox while there is something to take */
};

struct stream *stream_new(struct request *r, int index);
struct stream *stream_ref(struct stream *s);
void stream_unref(struct stream *s);

const char *stream_state_name(enum stream_state state);

/* The only place where the state changes. */
void stream_move(struct stream *s, enum stream_state next);

static inline bool stream_is_cancelled(const struct stream *s)
{
    return __atomic_load_n(&s->cancelled, __ATOMIC_RELAXED);
}
