/*
 * app/internal - the manager's parts, shared by the files of this folder.
 *
 *   manager.c   starts and stops everything, owns the loop
 *   fleetwork.c makes the replicas be what the models say, publishes tables
 *   updates.c   deploy, switch, rollback: what is asked for, and whether it can be
 *   owner.c     does what rollouts decide, and says what came of it
 *   recover.c   rollouts that a former manager left open
 *   views.c     status, versions and the like as JSON
 *   reload.c    what SIGHUP finds changed
 *   apikeys.c   the API keys: made, listed, revoked
 */
#pragma once
#include <stdatomic.h>
#include <uv.h>

#include "admin/admin.h"
#include "app/account.h"
#include "app/apikeys.h"
#include "app/certificate.h"
#include "app/gateway_link.h"
#include "app/models.h"

// clang-format off
/*    id         name         what is true */
#define MANAGER_STATES(X)                                                       \
    X(STARTING, "starting", "parts are being made; the loop does not run yet")  \
    X(RUNNING,  "running",  "it serves")                                        \
    X(DRAINING, "draining", "the gateway finishes its streams; no change is taken") \
    X(ENDING,   "ending",   "the gateway is gone; engines are ended or let go") \
    X(CLOSED,   "closed",   "handles are being closed; the loop ends")
// clang-format on

enum manager_state {
#define X(id, name, note) MANAGER_##id,
    MANAGER_STATES(X)
#undef X
};

/* A file that is being read in a thread. */
struct check_job {
    uv_work_t work;
    struct manager *manager; /* borrowed */
    char *model, *version;   /* owned */
    int64_t rollout;         /* 0: only to know its sha256 */
    char *path;              /* owned */
    atomic_bool stop;
    struct fingerprint result;
    int failed; /* -1: err says why */
    struct err err;
    struct list link; /* in manager.checks */
};

struct manager {
    enum manager_state state;
    uv_loop_t loop;
    char *config_file;               /* owned */
    struct config *config;           /* owned */
    struct store *store;             /* owned */
    struct gateway_link *link;       /* owned; NULL before start and after its end */
    struct fleet *fleet;             /* owned; the same */
    struct admin *admin;             /* owned */
    struct account *account;         /* owned; sums of each version's counters */
    struct http_server *metrics;     /* owned; NULL without metrics.listen */
    struct certificate *certificate; /* owned; NULL without tls */
    int lock_fd;                     /* STATE/lock; -1: not held */
    struct model **models;           /* owned array of owned */
    size_t nmodels;
    uint64_t epoch;          /* of the newest table */
    uint64_t acked;          /* of the newest acknowledged one */
    int64_t since_ms;        /* when it started, for people */
    int64_t receipts;        /* number of the newest receipt */
    json_t *keys;            /* owned; the API keys, see apikeys.c */
    bool keys_changed;       /* since the last table */
    struct list key_waiters; /* of apikeys.c */
    bool adopting;           /* replicas that are added may be running already */
    bool ready_said;         /* the line on standard output was printed */
    bool gateway_adopted;    /* the gateway was there before us */
    bool end_engines;        /* when stopping */
    bool hurried;            /* asked to stop a second time: nothing is waited for */
    int exit_code;
    uv_timer_t soon;  /* fires once, in the next round of the loop: manager_settle() */
    uv_timer_t tick;  /* while an update is under way or a version is retiring */
    uv_timer_t rest;  /* fires when no update was under way for a while */
    uv_timer_t again; /* when something that could not be started is tried again */
    uv_signal_t on_term, on_int, on_hup;
    struct list ended;  /* of struct ended: rollouts whose receipt is to be written */
    struct list checks; /* of struct check_job */
};

struct ended {
    struct list link;
    struct rollout *rollout; /* owned */
};

/* --- manager.c --- */
struct model *manager_model(const struct manager *m, const char *name); /* or NULL */
/* Something changed: everything is looked at once, in the next round of the loop. */
void manager_soon(struct manager *m);
/* The same, when answers that were given are on their way. */
void manager_after_answers(struct manager *m);
/* The same, later; an earlier wish stays. */
void manager_again(struct manager *m, uint64_t after_ms);

/* --- fleetwork.c --- */
const struct fleet_events *fleetwork_events(void);
/* At the start: adds what should run and what runs already. */
void fleetwork_adopt(struct manager *m);
/* Adds the replicas that should be there and ends those that nothing wants. True if some have
 * yet to be ended. */
bool fleetwork_reconcile(struct manager *m);
/* Replicas of v that were given up start anew: at once, or when enough time has passed since.
 * True if there was one. */
bool fleetwork_revive(struct manager *m, struct version *v, bool now);
/* Publishes what has changed since the last time; nothing if nothing has. */
void fleetwork_publish(struct manager *m);
/* The change of one model's route alone, always, with an epoch that was given by
 * fleetwork_next_epoch(): it costs the same however many models there are. */
uint64_t fleetwork_next_epoch(struct manager *m);
void fleetwork_publish_route(struct manager *m, struct model *model, uint64_t epoch);
struct tally fleetwork_version_tally(const struct manager *m, const struct version *v);
struct tally fleetwork_model_tally(const struct manager *m, const struct model *model);
struct tally fleetwork_slot_tally(const struct manager *m, int slot);

/* --- owner.c: does what rollouts decide --- */
/* The rollout is the model's until it has ended. -1: nothing was begun, and it is freed. */
int owner_begin(struct manager *m, struct model *model, const struct rollout_want *want,
                enum rollout_state first, struct err *err) MUST_CHECK;
/* A rollout whose owner is the manager; not yet the model's. */
struct rollout *owner_rollout(struct manager *m, const struct rollout_want *want);
/* Looks at all rollouts; true if one is under way. */
bool owner_look(struct manager *m);
/* Writes the receipts of those that have ended. */
void owner_finish(struct manager *m);
void owner_acked(struct manager *m, const struct gateway_ack *ack);
/* The manager stops: nobody waits any longer. */
void owner_abandon(struct manager *m);
/* Reads, one after the other, the files whose sha256 is not known yet. */
void owner_read_files(struct manager *m);
/* The number that the receipt of the update under way will have; 0: not certain yet. */
int64_t owner_next_receipt(const struct manager *m);
struct rollout_limits owner_limits(const struct model *model);

/* --- recover.c --- */
/* Rollouts that a former manager left open. */
int recover_rollouts(struct manager *m, struct err *err) MUST_CHECK;

/* --- updates.c: what is asked for --- */
void updates_deploy(struct admin_call *call, const char *model, const char *path,
                    const char *version, const char *engine, void *arg);
void updates_switch(struct admin_call *call, const char *model, const char *version, void *arg);
void updates_rollback(struct admin_call *call, const char *model, void *arg);

/* --- views.c --- */
json_t *views_health(void *arg);
json_t *views_status(void *arg);
json_t *views_versions(const char *model, void *arg, struct err *err);
json_t *views_receipt(const char *model, int64_t number, void *arg, struct err *err);
json_t *views_rollouts(const char *model, int limit, void *arg, struct err *err);
json_t *views_logs(const char *replica, unsigned lines, void *arg, struct err *err);

/* --- reload.c --- */
/* What differs between two configurations, one line each; the number of lines. */
size_t reload_differences(const struct config *running, const struct config *read, struct buf *out);
