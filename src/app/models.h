/*
 * app/models - what the manager knows about each model: its versions, the
 * replicas that are there, which version serves, which one is the spare.
 *
 *   segue.yaml ──┐
 *                ├─▶ struct model ─▶ struct version ─▶ replicas (the fleet's)
 *   store ───────┘      serving, previous, rollout
 *
 * What should run follows from these (version_should_run, version_may_stay);
 * nobody starts or stops a replica for another reason.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "base/list.h"
#include "config/config.h"
#include "fleet/fleet.h"
#include "rollout/fingerprint.h"
#include "rollout/rollout.h"
#include "store/store.h"

struct admin_call;
struct model;

struct member {
    struct replica *replica; /* borrowed; valid until the fleet says that it is gone */
    unsigned index;
    struct tally base;  /* its slot's counters when it was added */
    uint64_t failed_ns; /* when it was given up */
    bool trusted; /* it served before this manager came and has said nothing else since: it goes on
                     serving while it is asked again */
};

struct version {
    struct model *model;        /* borrowed */
    struct config_version spec; /* owned copy */
    bool stored;                /* `deploy` added it; otherwise it is in segue.yaml */
    bool fresh;                 /* the running deploy added it: forgotten if that fails */
    bool doomed;                /* to be forgotten when its replicas are gone */
    bool checked;               /* `file` is known */
    bool looked_at;             /* it was tried to read the file only to know it */
    struct fingerprint file;
    struct fingerprint
        other;              /* the file that is there instead, if it was looked at; size 0: none */
    bool found;             /* an engine of it runs already (at the manager's start) */
    struct member *members; /* owned array */
    size_t nmembers;
    struct tally gone; /* what replicas that are gone had counted */
    char *trouble;     /* owned; why it could not be started; NULL: no trouble */
    uint64_t trouble_ns;
    uint64_t retired_ns; /* since when nothing wants it; 0: wanted */
};

enum { MODEL_ROLLOUT_KINDS = ROLLOUT_ROLLBACK + 1 };

struct model {
    const struct config_model *config; /* borrowed */
    struct version **versions;         /* owned array of owned, in order of appearance */
    size_t nversions;
    struct version *serving;    /* never NULL */
    bool moved;                 /* the store knew which one serves: not the first start */
    struct version *previous;   /* the spare; may be NULL */
    bool keep_spare;            /* it should run */
    struct rollout *rollout;    /* owned; NULL: none under way */
    struct admin_call *waiting; /* who asked for the switch under way; NULL: nobody waits */
    uint64_t said_ns;           /* when the rollout's progress was told last */
    uint64_t next_epoch;        /* given to the change of route that is being made */
    uint64_t epoch;             /* of its last change of route */
    struct tally gone;          /* of versions that were forgotten */
    uint64_t results[MODEL_ROLLOUT_KINDS][ROLLOUT_NSTATES]; /* updates that ended so */
    char *told; /* owned; routes_text() of what the gateway has; NULL: nothing */
};

struct model *model_new(const struct config_model *config);
void model_free(struct model *m);

/* A new version; the spec is copied. */
struct version *model_add(struct model *m, const struct config_version *spec);
/* Forgets a version without members; its counts stay with the model. */
void model_forget(struct model *m, struct version *v);
struct version *model_version(const struct model *m, const char *name); /* or NULL */

/* "v1, v2", for sentences; the caller frees it. */
char *model_version_names(const struct model *m);

/* The next name of the form vN, owned by the caller. */
char *model_next_name(const struct model *m);

/* Versions of segue.yaml and of the store; the route: the store's if both its names are still
 * there, else segue.yaml's `serve` (then *notice says so; the caller frees it). */
int model_load(struct model *m, struct store *store, char **notice, struct err *err) MUST_CHECK;

/* The target of the rollout under way, or NULL. */
struct version *model_target(const struct model *m);

/* A replica is to be there. */
bool version_should_run(const struct version *v);
/* It is to be left running if it does. */
bool version_may_stay(const struct version *v);

struct member *version_member(const struct version *v, const struct replica *r); /* or NULL */
struct member *version_member_at(const struct version *v, unsigned index);       /* or NULL */
struct member *version_add_member(struct version *v, struct replica *r, unsigned index,
                                  const struct tally *base);
/* Takes it off the list; the pointer is invalid afterwards. */
void version_remove_member(struct version *v, struct member *member);

/* How many of its replicas are in one of the states of a mask of 1 << REPLICA_x. */
unsigned version_count(const struct version *v, unsigned states);
#define IN_STATE(id) (1U << REPLICA_##id)

/* Requests may be sent: it is ready, or trusted and not heard of yet. */
bool member_serves(const struct member *m);

/* As many are ready as there should be. */
bool version_ready(const struct version *v);
/* Why a replica of it is down or failed, or why it could not be started; "" if none. */
const char *version_reason(const struct version *v);

/* One word for people: serving, spare, starting, ready, failed, stopped ... */
const char *version_state(const struct version *v);

/* Its file is the one that was deployed, or was never looked at (segue.yaml). -1 with a sentence.
 */
int version_check_file(struct version *v, struct err *err) MUST_CHECK;

void version_trouble(struct version *v, const char *why, uint64_t now_ns); /* why NULL: over */
