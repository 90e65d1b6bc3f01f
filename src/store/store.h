/*
 * store - what must survive the manager, in SQLite (WAL): versions, routes,
 * engines that run, API keys, rollouts with their steps, receipts.
 *
 * One writer: the manager's thread.  A row is written before the thing that it
 * says is acted on.  Strings are copied in; what is handed out is owned by the
 * caller (jansson references are new references); callbacks may use the store.  Every function that
 * can fail returns -1 with a sentence.  A database file that cannot be read (truncated, zeroed,
 * from a newer segue) is renamed aside to segue.db.bad-TIME, a new one is begun, and `*notice` says
 * so (the caller frees it).
 */
#pragma once
#include <jansson.h>
#include <stdint.h>

#include "base/err.h"
#include "config/config.h"

struct store;

/* Opens STATE/segue.db (folder must exist). */
struct store *store_open(const char *state_folder, char **notice, struct err *err);
void store_close(struct store *s);

/*
 * Several changes as one: begin, the calls, end with their result.  If that is
 * not 0, or the end fails (-1), none of them was made.
 */
int store_group_begin(struct store *s, struct err *err) MUST_CHECK;
int store_group_end(struct store *s, int result, struct err *err) MUST_CHECK;

/* Moves the log into the database and waits for the disk: for a moment of rest. A failure is
 * made up for by the next one. */
void store_checkpoint(struct store *s);

/* --- versions that `deploy` added (those of segue.yaml are not stored) --- */
int store_version_put(struct store *s, const char *model, const struct config_version *v,
                      const char *sha256, struct err *err) MUST_CHECK;
/* Calls cb for each version of `model`, oldest first; v is valid during the call. */
int store_versions(struct store *s, const char *model,
                   void (*cb)(const struct config_version *v, const char *sha256, void *arg),
                   void *arg, struct err *err) MUST_CHECK;
int store_version_delete(struct store *s, const char *model, const char *version,
                         struct err *err) MUST_CHECK;

/* --- route: which version serves, which one is the spare (previous) --- */
int store_route_put(struct store *s, const char *model, const char *serving, const char *previous,
                    uint64_t epoch, struct err *err) MUST_CHECK;
/* 1 found, 0 none, -1 error. *serving, *previous owned by the caller; previous may be NULL. */
int store_route_get(struct store *s, const char *model, char **serving, char **previous,
                    struct err *err) MUST_CHECK;
/* The highest epoch ever stored, 0 if none. */
int store_epoch(struct store *s, uint64_t *epoch, struct err *err) MUST_CHECK;

/* --- engines that run --- */
struct store_engine {
    const char *replica; /* "hy-mt@v1#0" */
    int64_t pid;
    uint64_t
        start_time; /* field 22 of /proc/PID/stat, in clock ticks: with pid it names one process */
    const char *address; /* "unix:..." or "127.0.0.1:PORT" */
    int slot;            /* index in the counters segment */
    const char *command; /* command line, for people */
    const char *log_file;
};
int store_engine_put(struct store *s, const struct store_engine *e, struct err *err) MUST_CHECK;
int store_engine_delete(struct store *s, const char *replica, struct err *err) MUST_CHECK;
int store_engines(struct store *s, void (*cb)(const struct store_engine *e, void *arg), void *arg,
                  struct err *err) MUST_CHECK;

/* --- API keys --- */
struct store_key {
    const char *name;
    const char *sha256;        /* of the key's text, lower-case hex */
    json_t *models;            /* borrowed array of names; empty: all */
    int64_t concurrency, rate; /* 0: any */
    int64_t added_ms;          /* set by the store */
};
/* The name must be a new one. */
int store_key_add(struct store *s, const struct store_key *k, struct err *err) MUST_CHECK;
int store_key_delete(struct store *s, const char *name, struct err *err) MUST_CHECK;
/* By name; k is valid during the call. */
int store_keys(struct store *s, void (*cb)(const struct store_key *k, void *arg), void *arg,
               struct err *err) MUST_CHECK;

/* --- rollouts --- */
/* A new rollout row; *id is its number (1, 2, ...). */
int store_rollout_begin(struct store *s, const char *model, const char *from, const char *to,
                        const char *kind, int64_t *id, struct err *err) MUST_CHECK;
/* A step row: state name and a JSON object of facts (borrowed; may be NULL). */
int store_rollout_step(struct store *s, int64_t id, const char *state, json_t *facts,
                       struct err *err) MUST_CHECK;
/* Rollouts whose last state is not in {done, rolled back, failed}: for recovery. */
int store_rollouts_open(struct store *s,
                        void (*cb)(int64_t id, const char *model, const char *from, const char *to,
                                   const char *kind, const char *state, void *arg),
                        void *arg, struct err *err) MUST_CHECK;
/* New reference: array of {id, model, from, to, kind, state, began, steps:[{state, at, facts}]},
 * newest first. */
json_t *store_rollouts_json(struct store *s, const char *model, int limit, struct err *err);

/* --- receipts --- */
/* Appends; each row keeps sha256(previous hash + text) as its hash. `*number` counts from 1. */
int store_receipt_put(struct store *s, const char *model, json_t *receipt, int64_t *number,
                      struct err *err) MUST_CHECK;
/* New reference or NULL (err status 404 if there is none). number 0: the newest; model may be NULL.
 * `number`, `previous_hash` and `hash` are members of it. */
json_t *store_receipt_get(struct store *s, const char *model, int64_t number, struct err *err);
/* Reads the whole chain; -1 names the first number that does not fit its hash. */
int store_receipts_check(struct store *s, struct err *err) MUST_CHECK;
