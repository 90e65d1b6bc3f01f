/*
 * rollout - the state machine of an update.
 *
 *   facts ──▶ judge() ──▶ event ──▶ rollout_next() ──▶ set_state() ──▶ enter()
 *             (pure)                (pure, a table)    (records)       (acts)
 *
 * set_state() is the only place where the state changes.  A state that cannot
 * be recorded is not entered before the switch (the update fails); after it
 * the store's trouble is logged and the update goes on, since clients come first.
 */
#include "rollout/rollout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

struct rollout {
    enum rollout_state state;
    enum rollout_kind kind;
    char *model, *from, *to; /* owned */
    char *from_previous;     /* owned; may be NULL */
    int64_t id;
    struct rollout_limits limits;
    const struct rollout_ops *ops; /* borrowed; outlives the rollout */
    void *arg;                     /* borrowed */
    bool resumed;                  /* its table is not acknowledged yet by this manager's gateway */
    uint64_t epoch;                /* of the table whose acknowledgement is awaited */
    uint64_t asked_ns;
    uint64_t since_ns; /* when the state was entered */
    char reason[ERR_TEXT_MAX];
    char *from_sha256, *to_sha256; /* owned; may be NULL */
    struct receipt receipt;        /* its text is borrowed from the members above */
};

// clang-format off
#define TO(st) (UINT32_C(1) << ROLLOUT_##st)

static const uint32_t allowed[ROLLOUT_NSTATES] = {
    [ROLLOUT_NEW]          = TO(CHECKING) | TO(STARTING) | TO(SWITCHING) | TO(DRAINING) |
                             TO(ROLLING_BACK),
    [ROLLOUT_CHECKING]     = TO(STARTING) | TO(FAILED),
    [ROLLOUT_STARTING]     = TO(WARMING) | TO(FAILED),
    [ROLLOUT_WARMING]      = TO(SWITCHING) | TO(FAILED),
    [ROLLOUT_SWITCHING]    = TO(DRAINING) | TO(ROLLING_BACK),
    [ROLLOUT_DRAINING]     = TO(SETTLING) | TO(ROLLING_BACK) | TO(DONE) | TO(ROLLED_BACK),
    [ROLLOUT_SETTLING]     = TO(DONE) | TO(ROLLING_BACK) | TO(ROLLED_BACK),
    [ROLLOUT_ROLLING_BACK] = TO(ROLLED_BACK),
};

/* What follows; 0 (NEW) stands for "the event means nothing here". */
static const uint8_t follows[ROLLOUT_NSTATES][ROLLOUT_NEVENTS] = {
    [ROLLOUT_CHECKING] = {
        [ROLLOUT_ON_CHECKED]    = ROLLOUT_STARTING,
        [ROLLOUT_ON_REFUSED]    = ROLLOUT_FAILED,
    },
    [ROLLOUT_STARTING] = {
        [ROLLOUT_ON_HEALTHY]    = ROLLOUT_WARMING,
        [ROLLOUT_ON_DIED]       = ROLLOUT_FAILED,
    },
    [ROLLOUT_WARMING] = {
        [ROLLOUT_ON_READY]      = ROLLOUT_SWITCHING,
        [ROLLOUT_ON_DIED]       = ROLLOUT_FAILED,
    },
    [ROLLOUT_SWITCHING] = {
        [ROLLOUT_ON_ACKED]      = ROLLOUT_DRAINING,
        [ROLLOUT_ON_DIED]       = ROLLOUT_ROLLING_BACK,
    },
    [ROLLOUT_DRAINING] = {
        [ROLLOUT_ON_DRAINED]    = ROLLOUT_SETTLING,
        [ROLLOUT_ON_DIED]       = ROLLOUT_ROLLING_BACK,
        [ROLLOUT_ON_SPOILED]    = ROLLOUT_ROLLING_BACK,
        [ROLLOUT_ON_REPLACED]   = ROLLOUT_DONE,
        [ROLLOUT_ON_TAKEN_BACK] = ROLLOUT_ROLLED_BACK,
    },
    [ROLLOUT_SETTLING] = {
        [ROLLOUT_ON_SETTLED]    = ROLLOUT_DONE,
        [ROLLOUT_ON_DIED]       = ROLLOUT_ROLLING_BACK,
        [ROLLOUT_ON_SPOILED]    = ROLLOUT_ROLLING_BACK,
        [ROLLOUT_ON_REPLACED]   = ROLLOUT_DONE,
        [ROLLOUT_ON_TAKEN_BACK] = ROLLOUT_ROLLED_BACK,
    },
    [ROLLOUT_ROLLING_BACK] = {
        [ROLLOUT_ON_ACKED]      = ROLLOUT_ROLLED_BACK,
    },
};
// clang-format on

static const char *const state_names[] = {
#define X(id, name, note) name,
    ROLLOUT_STATES(X)
#undef X
};

static const char *const state_notes[] = {
#define X(id, name, note) note,
    ROLLOUT_STATES(X)
#undef X
};

static const char *const kind_names[] = {
#define X(id, name) name,
    ROLLOUT_KINDS(X)
#undef X
};

static int index_of(const char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -1;
}

const char *rollout_state_name(enum rollout_state s)
{
    return state_names[s];
}

const char *rollout_state_note(enum rollout_state s)
{
    return state_notes[s];
}

int rollout_state_by_name(const char *name)
{
    return index_of(state_names, COUNT_OF(state_names), name);
}

const char *rollout_kind_name(enum rollout_kind k)
{
    return kind_names[k];
}

int rollout_kind_by_name(const char *name)
{
    return index_of(kind_names, COUNT_OF(kind_names), name);
}

enum rollout_state rollout_next(enum rollout_state state, enum rollout_event event)
{
    uint8_t next = follows[state][event];

    return next ? (enum rollout_state)next : state;
}

bool rollout_may_move(enum rollout_state from, enum rollout_state to)
{
    return allowed[from] & (UINT32_C(1) << to);
}

bool rollout_state_ended(enum rollout_state s)
{
    return s == ROLLOUT_DONE || s == ROLLOUT_ROLLED_BACK || s == ROLLOUT_FAILED;
}

bool rollout_state_switched(enum rollout_state s)
{
    return s == ROLLOUT_SWITCHING || s == ROLLOUT_DRAINING || s == ROLLOUT_SETTLING ||
           s == ROLLOUT_ROLLING_BACK || s == ROLLOUT_DONE || s == ROLLOUT_ROLLED_BACK;
}

static void check(const struct rollout *r)
{
    bool awaits = r->state == ROLLOUT_SWITCHING || r->state == ROLLOUT_ROLLING_BACK;
    bool serves =
        r->state == ROLLOUT_DRAINING || r->state == ROLLOUT_SETTLING || r->state == ROLLOUT_DONE;

    ALWAYS(r->state == ROLLOUT_NEW || r->id > 0);
    ALWAYS(!serves || r->receipt.switched);
    ALWAYS(awaits || r->state != ROLLOUT_ROLLED_BACK || r->epoch > 0);
    ALWAYS(r->state != ROLLOUT_FAILED || r->reason[0]);
}

/* Books the time of the state that is left. */
static void leave(struct rollout *r, uint64_t now)
{
    if (r->state == ROLLOUT_NEW || rollout_state_ended(r->state))
        return;
    for (int i = 0; i < RECEIPT_PHASES; i++) {
        if (r->receipt.phases[i].name)
            continue;
        r->receipt.phases[i].name = rollout_state_name(r->state);
        r->receipt.phases[i].ns = now - r->since_ns;
        return;
    }
}

/* The only place where the state changes. */
static void set_state(struct rollout *r, enum rollout_state next)
{
    uint64_t now = r->ops->now(r->arg);

    ALWAYS(rollout_may_move(r->state, next));
    leave(r, now);
    r->state = next;
    r->since_ns = now;
    r->receipt.result = rollout_state_name(next);
    r->receipt.reason = r->reason;
    r->receipt.rollout = r->id;
    check(r);
}

static void set_reason(struct rollout *r, const char *reason)
{
    if (reason && *reason)
        snprintf(r->reason, sizeof(r->reason), "%s", reason);
}

/* Readings that belong to the end of a state or to the beginning of the next. */
static void read_for(struct rollout *r, enum rollout_state next)
{
    struct receipt *receipt = &r->receipt;

    if (next == ROLLOUT_ROLLING_BACK)
        r->ops->read(r, &receipt->until, r->arg);
    if (!rollout_state_ended(next))
        return;
    r->ops->read(r, &receipt->end, r->arg);
    receipt->ended_wall_ms = clock_wall_ms();
    if (r->state != ROLLOUT_ROLLING_BACK)
        receipt->until = receipt->end;
}

static int enter(struct rollout *r, struct err *err)
{
    switch (r->state) {
    case ROLLOUT_CHECKING:
        return r->ops->check(r, r->arg, err);
    case ROLLOUT_STARTING:
        return r->ops->start(r, r->arg, err);
    case ROLLOUT_SWITCHING:
        if (!r->receipt.switch_began_ns)
            r->receipt.switch_began_ns = r->since_ns;
        r->ops->route(r, r->to, &r->epoch, r->arg);
        r->receipt.epoch = r->epoch;
        return 0;
    case ROLLOUT_ROLLING_BACK:
        r->ops->route(r, r->from, &r->epoch, r->arg);
        return 0;
    default:
        return 0;
    }
}

/* The event that says that a state's action could not be begun. */
static enum rollout_event trouble(enum rollout_state s)
{
    return s == ROLLOUT_CHECKING ? ROLLOUT_ON_REFUSED : ROLLOUT_ON_DIED;
}

/* One event; what it leads to is done. True if the state moved. */
static bool fire(struct rollout *r, enum rollout_event event, const char *reason)
{
    enum rollout_state next = rollout_next(r->state, event);
    struct err err;

    if (next == r->state)
        return false;
    set_reason(r, reason);
    read_for(r, next);
    if (r->ops->record(r, next, r->reason, r->arg, &err) != 0) {
        if (!rollout_state_ended(next) && !rollout_state_switched(r->state)) {
            /* Not promised yet: we may still give up, and do, even if that cannot be written. */
            next = ROLLOUT_FAILED;
            set_reason(r, err.text);
            read_for(r, next);
            if (r->ops->record(r, next, r->reason, r->arg, &err) != 0)
                log_error("rollout %lld: %s", (long long)r->id, err.text);
        } else {
            log_error("rollout %lld: %s", (long long)r->id, err.text);
        }
    }
    set_state(r, next);
    int entered = enter(r, &err);
    r->ops->moved(r, r->arg);
    if (entered != 0)
        fire(r, trouble(r->state), err.text);
    return true;
}

struct rollout *rollout_new(const struct rollout_want *want, const struct rollout_ops *ops,
                            void *arg)
{
    struct rollout *r = NEW(struct rollout);

    r->kind = want->kind;
    r->model = str_dup(want->model);
    r->from = str_dup(want->from);
    r->to = str_dup(want->to);
    r->from_previous = str_dup(want->from_previous);
    r->limits = want->limits;
    r->ops = ops;
    r->arg = arg;
    r->asked_ns = want->asked_ns;
    r->receipt = (struct receipt){
        .model = r->model,
        .kind = rollout_kind_name(r->kind),
        .from = r->from,
        .to = r->to,
        .reason = r->reason,
        .result = rollout_state_name(ROLLOUT_NEW),
        .began_wall_ms = clock_wall_ms(),
    };
    ops->read(r, &r->receipt.begin, arg);
    return r;
}

void rollout_free(struct rollout *r)
{
    if (!r)
        return;
    free(r->model);
    free(r->from);
    free(r->to);
    free(r->from_previous);
    free(r->from_sha256);
    free(r->to_sha256);
    free(r);
}

int rollout_begin(struct rollout *r, enum rollout_state first, struct err *err)
{
    ALWAYS(r->state == ROLLOUT_NEW);
    if (r->ops->record(r, first, "", r->arg, err) != 0)
        return -1;
    /* A switch counts from the moment that its request was read. */
    if (first == ROLLOUT_SWITCHING)
        r->receipt.switch_began_ns = r->asked_ns;
    set_state(r, first);

    struct err trouble_err;
    int entered = enter(r, &trouble_err);
    r->ops->moved(r, r->arg);
    if (entered != 0)
        fire(r, trouble(r->state), trouble_err.text);
    return 0;
}

void rollout_resume(struct rollout *r, int64_t id, enum rollout_state state, uint64_t epoch,
                    uint64_t switch_us)
{
    ALWAYS(r->state == ROLLOUT_NEW);
    ALWAYS(state == ROLLOUT_DRAINING || state == ROLLOUT_ROLLING_BACK);
    r->id = id;
    r->epoch = epoch;
    r->resumed = true;
    r->receipt.recovered = true;
    r->receipt.recorded_switch_us = switch_us;
    r->receipt.epoch = epoch;
    r->receipt.switched = true;
    r->receipt.acked_ns = r->ops->now(r->arg);
    r->receipt.ack = r->receipt.until = r->receipt.begin;
    set_state(r, state);
    r->ops->moved(r, r->arg);
}

void rollout_checked(struct rollout *r, const char *problem)
{
    fire(r, problem ? ROLLOUT_ON_REFUSED : ROLLOUT_ON_CHECKED, problem);
}

void rollout_acked(struct rollout *r, uint64_t epoch, uint64_t acked_ns)
{
    /* A later table contains an earlier one's promise. */
    if (!r->epoch || epoch < r->epoch)
        return;
    if (r->resumed) {
        r->resumed = false;
        r->receipt.acked_ns = acked_ns;
        r->ops->read(r, &r->receipt.ack, r->arg);
    }
    if (r->state == ROLLOUT_SWITCHING) {
        r->receipt.acked_ns = acked_ns;
        r->receipt.switched = true;
        r->ops->read(r, &r->receipt.ack, r->arg);
    }
    fire(r, ROLLOUT_ON_ACKED, NULL);
}

/* --- judging ------------------------------------------------------------------------------ */

/* Too large a share of the new version's answers since the switch failed. */
static bool spoiled(const struct rollout *r, const struct rollout_facts *f, char *reason,
                    size_t room)
{
    struct tally d = tally_since(&r->receipt.ack.to, &f->reading.to);
    uint64_t ended = tally_ended(&d), bad = d.failed + d.truncated;

    if (ended < ROLLOUT_LEAST_ANSWERS || (double)bad <= r->limits.settle_failures * (double)ended)
        return false;
    snprintf(reason, room,
             "%llu of %llu answers of %s failed after the switch; update.settle_failures allows a "
             "share of %g",
             (unsigned long long)bad, (unsigned long long)ended, r->to, r->limits.settle_failures);
    return true;
}

/* After the switch: is the new version unfit?  A rollback that somebody asked for is not
 * taken back by us, and nobody goes back to an old version that cannot answer. */
static enum rollout_event unfit(const struct rollout *r, const struct rollout_facts *f,
                                char *reason, size_t room)
{
    if (r->kind == ROLLOUT_ROLLBACK || !f->old_ready)
        return ROLLOUT_ON_NONE;
    if (f->wanted && f->dead >= f->wanted) {
        snprintf(reason, room, "all replicas of %s died: %s", r->to, f->dead_reason);
        return ROLLOUT_ON_DIED;
    }
    if (r->state == ROLLOUT_SWITCHING) /* its answers are counted from the acknowledgement on */
        return ROLLOUT_ON_NONE;
    return spoiled(r, f, reason, room) ? ROLLOUT_ON_SPOILED : ROLLOUT_ON_NONE;
}

static bool drained(const struct rollout *r, const struct rollout_facts *f)
{
    return f->reading.from.in_flight == 0 ||
           r->ops->now(r->arg) - r->since_ns >= r->limits.drain_ns;
}

static bool settled(const struct rollout *r, const struct rollout_facts *f)
{
    struct tally d = tally_since(&r->receipt.ack.to, &f->reading.to);

    return tally_ended(&d) >= r->limits.settle_requests ||
           r->ops->now(r->arg) - r->since_ns >= r->limits.settle_ns;
}

static enum rollout_event judge(const struct rollout *r, const struct rollout_facts *f,
                                char *reason, size_t room)
{
    enum rollout_event event;

    switch (r->state) {
    case ROLLOUT_STARTING:
    case ROLLOUT_WARMING:
        if (f->dead) {
            snprintf(reason, room, "%s", f->dead_reason);
            return ROLLOUT_ON_DIED;
        }
        if (r->state == ROLLOUT_STARTING)
            return f->wanted && f->healthy >= f->wanted ? ROLLOUT_ON_HEALTHY : ROLLOUT_ON_NONE;
        return f->wanted && f->ready >= f->wanted ? ROLLOUT_ON_READY : ROLLOUT_ON_NONE;
    case ROLLOUT_SWITCHING:
        return unfit(r, f, reason, room);
    case ROLLOUT_DRAINING:
        if (r->resumed)
            return ROLLOUT_ON_NONE; /* nothing is known before the gateway has the table */
        event = unfit(r, f, reason, room);
        return event ? event : drained(r, f) ? ROLLOUT_ON_DRAINED : ROLLOUT_ON_NONE;
    case ROLLOUT_SETTLING:
        event = unfit(r, f, reason, room);
        return event ? event : settled(r, f) ? ROLLOUT_ON_SETTLED : ROLLOUT_ON_NONE;
    default:
        return ROLLOUT_ON_NONE;
    }
}

void rollout_look(struct rollout *r, const struct rollout_facts *facts)
{
    char reason[ERR_TEXT_MAX] = "";

    /* Each round moves on; the longest way is STARTING to DONE. */
    while (fire(r, judge(r, facts, reason, sizeof(reason)), reason) && !rollout_ended(r))
        reason[0] = '\0';
}

bool rollout_replace(struct rollout *r, bool way_back, const char *reason)
{
    return fire(r, way_back ? ROLLOUT_ON_TAKEN_BACK : ROLLOUT_ON_REPLACED, reason);
}

/* --- reading ------------------------------------------------------------------------------ */

int64_t rollout_id(const struct rollout *r)
{
    return r->id;
}

void rollout_set_id(struct rollout *r, int64_t id)
{
    ALWAYS(r->state == ROLLOUT_NEW);
    r->id = id;
}

enum rollout_kind rollout_kind(const struct rollout *r)
{
    return r->kind;
}

enum rollout_state rollout_state(const struct rollout *r)
{
    return r->state;
}

bool rollout_ended(const struct rollout *r)
{
    return rollout_state_ended(r->state);
}

const char *rollout_model(const struct rollout *r)
{
    return r->model;
}

const char *rollout_from(const struct rollout *r)
{
    return r->from;
}

const char *rollout_to(const struct rollout *r)
{
    return r->to;
}

const char *rollout_from_previous(const struct rollout *r)
{
    return r->from_previous;
}

const char *rollout_reason(const struct rollout *r)
{
    return r->reason;
}

uint64_t rollout_since_ns(const struct rollout *r)
{
    return r->since_ns;
}

const struct receipt *rollout_receipt(const struct rollout *r)
{
    return &r->receipt;
}

json_t *rollout_receipt_now(const struct rollout *r)
{
    struct receipt now = r->receipt;

    ALWAYS(!rollout_ended(r));
    r->ops->read(r, &now.end, r->arg);
    if (r->state != ROLLOUT_ROLLING_BACK)
        now.until = now.end;
    now.ended_wall_ms = clock_wall_ms();
    return receipt_json(&now);
}

void rollout_receipt_facts(struct rollout *r, unsigned workers, const char *from_sha256,
                           const char *to_sha256)
{
    free(r->from_sha256);
    free(r->to_sha256);
    r->from_sha256 = str_dup(from_sha256);
    r->to_sha256 = str_dup(to_sha256);
    r->receipt.workers = workers;
    r->receipt.from_sha256 = r->from_sha256;
    r->receipt.to_sha256 = r->to_sha256;
}
