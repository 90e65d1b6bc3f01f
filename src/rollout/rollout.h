/*
 * rollout - one update of one model: which state it is in, and what follows.
 *
 *   NEW ─▶ CHECKING ─▶ STARTING ─▶ WARMING ─▶ SWITCHING ─▶ DRAINING ─▶ SETTLING ─▶ DONE
 *            │            │           │           │            │           │
 *            └────────────┴───────────┴─▶ FAILED  └────────────┴───────────┴─▶ ROLLING_BACK
 *                                                                                  │
 *                                                                             ROLLED_BACK
 *
 * A rollout decides, its owner acts: events and facts come in, actions go out
 * through struct rollout_ops, and nothing here does IO or reads a clock that
 * was not given.  Each state is recorded (ops->record) before anything of it
 * is done.  `switch` and `rollback` begin at SWITCHING when the target is
 * ready.  From SWITCHING on the route in the store is the promise.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "rollout/receipt.h"

// clang-format off
/*    id            name            what is true while we are here */
#define ROLLOUT_STATES(X)                                                                       \
    X(NEW,          "new",          "nothing was recorded or done yet")                         \
    X(CHECKING,     "checking",     "the file is read and its sha256 computed; nothing is started") \
    X(STARTING,     "starting",     "the new version's replicas are there, not all healthy; old serves") \
    X(WARMING,      "warming",      "all are healthy; the known question is being asked; old serves") \
    X(SWITCHING,    "switching",    "the new table is stored and published, not acknowledged by all") \
    X(DRAINING,     "draining",     "new requests go to the new version; the old one finishes its own") \
    X(SETTLING,     "settling",     "the old version is idle and ready; the new one's answers are watched") \
    X(ROLLING_BACK, "rolling back", "the old table is stored and published, not acknowledged by all") \
    X(DONE,         "done",         "the new version serves; nothing more is done")             \
    X(ROLLED_BACK,  "rolled back",  "the old version serves again; nothing more is done")       \
    X(FAILED,       "failed",       "given up before the switch; the old version served all along")

/*    id            what happened */
#define ROLLOUT_EVENTS(X)                                                       \
    X(NONE,         "nothing")                                                  \
    X(CHECKED,      "the file is what it should be")                            \
    X(REFUSED,      "the file is not what it should be, or cannot be read")     \
    X(HEALTHY,      "all replicas of the new version are healthy")              \
    X(READY,        "all replicas of the new version are ready")                \
    X(DIED,         "replicas of the new version died or cannot be started")    \
    X(ACKED,        "the last worker acknowledged the table that was published") \
    X(DRAINED,      "the old version is idle, or the time for that is over")    \
    X(SETTLED,      "enough answers were watched, or long enough")              \
    X(SPOILED,      "too many answers of the new version failed")               \
    X(REPLACED,     "a newer update of the model takes over")                   \
    X(TAKEN_BACK,   "a newer update goes back to the old version")
// clang-format on

enum rollout_state {
#define X(id, name, note) ROLLOUT_##id,
    ROLLOUT_STATES(X)
#undef X
        ROLLOUT_NSTATES
};

enum rollout_event {
#define X(id, note) ROLLOUT_ON_##id,
    ROLLOUT_EVENTS(X)
#undef X
        ROLLOUT_NEVENTS
};

// clang-format off
#define ROLLOUT_KINDS(X) \
    X(DEPLOY, "deploy") X(SWITCH, "switch") X(ROLLBACK, "rollback")
// clang-format on

enum rollout_kind {
#define X(id, name) ROLLOUT_##id,
    ROLLOUT_KINDS(X)
#undef X
};

const char *rollout_state_name(enum rollout_state s);
const char *rollout_state_note(enum rollout_state s);
int rollout_state_by_name(const char *name); /* -1: none */
const char *rollout_kind_name(enum rollout_kind k);
int rollout_kind_by_name(const char *name); /* -1: none */

/* The state that follows; `state` itself when the event means nothing there. */
enum rollout_state rollout_next(enum rollout_state state, enum rollout_event event);
bool rollout_may_move(enum rollout_state from, enum rollout_state to);

/* DONE, ROLLED_BACK or FAILED. */
bool rollout_state_ended(enum rollout_state s);

/* SWITCHING or later: the new version has been promised in the store at some time. */
bool rollout_state_switched(enum rollout_state s);

/* How patient it is. */
struct rollout_limits {
    uint64_t drain_ns;
    uint64_t settle_requests; /* 0: settled at once */
    uint64_t settle_ns;
    double settle_failures; /* share above which it rolls back */
};

/* How many answers must have ended before their failed share means anything. */
enum { ROLLOUT_LEAST_ANSWERS = 20 };

struct rollout;

/* What the owner does. `arg` is that of rollout_new(). Calls of rollout functions from
 * within one of these are not allowed. */
struct rollout_ops {
    /* Writes the state down, before it is entered; for SWITCHING and ROLLING_BACK also, and as
     * one, which version serves from then on. -1: it could not, nothing was written. */
    int (*record)(struct rollout *r, enum rollout_state next, const char *reason, void *arg,
                  struct err *err);
    /* CHECKING: begins to look at the file; rollout_checked() tells. */
    int (*check)(struct rollout *r, void *arg, struct err *err);
    /* STARTING: asks for the new version's replicas; rollout_look() sees them. */
    int (*start)(struct rollout *r, void *arg, struct err *err);
    /* SWITCHING, ROLLING_BACK: publishes that `version` serves. *epoch is set before anything is
     * sent; rollout_acked() tells. */
    void (*route)(struct rollout *r, const char *version, uint64_t *epoch, void *arg);
    /* Reads the counters. */
    void (*read)(const struct rollout *r, struct receipt_reading *out, void *arg);
    uint64_t (*now)(void *arg); /* CLOCK_MONOTONIC */
    /* After each move; in the last call rollout_ended(r) is true. The rollout is freed by its
     * owner, after the call that brought it here has returned. */
    void (*moved)(struct rollout *r, void *arg);
};

/* What the owner sees, whenever something may have changed. */
struct rollout_facts {
    unsigned wanted;  /* replicas that the new version should have */
    unsigned healthy; /* of those: healthy (ASKING or READY) */
    unsigned ready;
    unsigned dead;           /* DOWN or FAILED */
    const char *dead_reason; /* of the first dead one; "" if none */
    bool old_ready;          /* at least one replica of the old version is ready */
    struct receipt_reading reading;
};

struct rollout_want {
    enum rollout_kind kind;
    const char *model, *from, *to; /* copied */
    const char *from_previous;     /* the spare before; copied; may be NULL */
    struct rollout_limits limits;
    uint64_t asked_ns; /* CLOCK_MONOTONIC at which the request was read */
};

struct rollout *rollout_new(const struct rollout_want *want, const struct rollout_ops *ops,
                            void *arg);
void rollout_free(struct rollout *r);

/* Enters the first state: CHECKING, STARTING or SWITCHING. -1 if it could not be recorded: then
 * nothing was done and the rollout is still NEW. */
int rollout_begin(struct rollout *r, enum rollout_state first, struct err *err) MUST_CHECK;

/* Goes on with the rollout of a former manager: DRAINING or ROLLING_BACK, as the route says.
 * `epoch` is that of the table that must be acknowledged first, switch_us what was recorded. */
void rollout_resume(struct rollout *r, int64_t id, enum rollout_state state, uint64_t epoch,
                    uint64_t switch_us);

/* The file was looked at; problem NULL: it is right. */
void rollout_checked(struct rollout *r, const char *problem);

/* All workers have adopted the table `epoch`. */
void rollout_acked(struct rollout *r, uint64_t epoch, uint64_t acked_ns);

/* Judges the facts and moves as far as they allow. */
void rollout_look(struct rollout *r, const struct rollout_facts *facts);

/* A newer update of the model takes over; allowed in DRAINING and SETTLING only (false: not
 * now). way_back: it goes to the old version. */
bool rollout_replace(struct rollout *r, bool way_back, const char *reason);

int64_t rollout_id(const struct rollout *r);
void rollout_set_id(struct rollout *r, int64_t id); /* by ops->record of the first state */
enum rollout_kind rollout_kind(const struct rollout *r);
enum rollout_state rollout_state(const struct rollout *r);
bool rollout_ended(const struct rollout *r);
const char *rollout_model(const struct rollout *r);
const char *rollout_from(const struct rollout *r);
const char *rollout_to(const struct rollout *r);
const char *rollout_from_previous(const struct rollout *r); /* may be NULL */
const char *rollout_reason(const struct rollout *r);        /* "" if none */
uint64_t rollout_since_ns(const struct rollout *r);         /* when its state was entered */

/* The receipt so far: filled up to the last move; its result is the state's name. */
const struct receipt *rollout_receipt(const struct rollout *r);
/* The same with the newest readings, for a rollout that has not ended. */
json_t *rollout_receipt_now(const struct rollout *r);
/* Completes the receipt by what only the owner knows. */
void rollout_receipt_facts(struct rollout *r, unsigned workers, const char *from_sha256,
                           const char *to_sha256);
