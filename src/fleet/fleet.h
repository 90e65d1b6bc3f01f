/*
 * fleet - the engine processes, and how we know that they answer.
 *
 * The fleet keeps one `struct replica` for each engine that should be there:
 * spawned by us (builtin, llama-server, command) or somebody else's (openai).
 * It spawns, probes, asks the known question, restarts with back-off, notices
 * crash loops, stops, and adopts engines that a former manager started.  It
 * does not decide what should run: the manager asks for replicas and drops
 * them.  All on the manager's loop thread.
 *
 *              fleet_add           /health 200          known answer
 *   (adopted) ──────────▶ STARTING ───────────▶ ASKING ─────────────▶ READY
 *                           ▲  │ exit, timeout     │ wrong answer      │ exit, 3 missed probes
 *                  back-off │  ▼                   ▼                   ▼
 *                          DOWN ◀──────────────────┴───────────────────┘
 *                           │ crash loop, or first start failed
 *                           ▼
 *                         FAILED        any ── fleet_drop ──▶ STOPPING ──▶ (gone)
 */
#pragma once
#include <jansson.h>
#include <uv.h>

#include "config/config.h"
#include "store/store.h"

/*    id         name         what is true */
#define REPLICA_STATES(X)                                                               \
    X(STARTING, "starting", "the process is there (or being reached); not yet healthy") \
    X(ASKING, "asking", "healthy; the known question is being asked")                   \
    X(READY, "ready", "it answered; requests may be sent")                              \
    X(DOWN, "down", "it died or does not answer; a restart or probe is planned")        \
    X(FAILED, "failed", "given up: crash loop, or the first start did not succeed")     \
    X(STOPPING, "stopping", "being ended; no request may be sent")

enum replica_state {
#define X(id, name, note) REPLICA_##id,
    REPLICA_STATES(X)
#undef X
};
const char *replica_state_name(enum replica_state s);

struct fleet;
struct replica;

struct fleet_events {
    /* After every change of a replica's state, also from within fleet_drop() and
     * fleet_close(), never from within fleet_add(). The replica is valid; it is
     * the last call for it when `gone` is true (its process has ended). */
    void (*on_state)(struct replica *r, bool gone, void *arg);
    /* Before each start of a process, also a restart: -1 with err and it is not started, which
     * counts as a start that failed. NULL: every start is fine. */
    int (*may_start)(struct replica *r, void *arg, struct err *err);
};

/* Everything borrowed outlives the fleet. */
struct fleet *fleet_new(uv_loop_t *loop, const struct config *config, struct store *store,
                        const struct fleet_events *events, void *arg);

/*
 * Reads the engines table and adopts those that still run (pid + start time
 * match, the address answers); forgets the others.  Call before fleet_add():
 * an adopted engine is used by the fleet_add() that asks for its replica name
 * with the same command line, and ended if nobody asked within fleet_adopt_end().
 */
int fleet_adopt(struct fleet *f, struct err *err) MUST_CHECK;
void fleet_adopt_end(struct fleet *f);

/*
 * Asks for a replica "MODEL@VERSION#INDEX".  `first_start`: a start that fails
 * is final (FAILED, no restart): used by deploys.  The version is copied; slot
 * is its index in the counters segment (kept if adopted).  It may have to wait in
 * STARTING without a process: replicas of one version start one after the other,
 * and none before a former process of the same name has ended.
 * NULL with err if it cannot even be tried (no such file, not a GGUF, exec error).
 */
struct replica *fleet_add(struct fleet *f, const struct config_model *m,
                          const struct config_version *v, unsigned index, bool first_start,
                          struct err *err);

/* Ends a replica: SIGTERM to its process group, SIGKILL after 10 s (configurable
 * later), reaped, its row deleted; on_state(gone) at the end. Twice is fine. */
void fleet_drop(struct replica *r);

/* Leaves all engines running and forgets them (manager's shutdown; no more events); or ends
 * them, with events for each. closed is called once, later; the fleet is freed then. */
void fleet_close(struct fleet *f, bool end_engines, void (*closed)(void *arg), void *arg);

/* No more patience: SIGKILL for every process that is being ended. */
void fleet_hurry(struct fleet *f);

const char *replica_name(const struct replica *r); /* "hy-mt@v1#0" */
const char *replica_model(const struct replica *r);
const char *replica_version(const struct replica *r);
const char *replica_address(const struct replica *r); /* "unix:PATH" | "HOST:PORT" */
const char *replica_prefix(const struct replica *r);  /* path prefix of an openai url, "" if none */
const char *replica_serve_as(const struct replica *r); /* its name for the model */
enum replica_state replica_state(const struct replica *r);
int replica_slot(const struct replica *r);
pid_t replica_pid(const struct replica *r); /* 0: not ours */
/* Why it is DOWN or FAILED, in one sentence with the engine's last words; "" otherwise. */
const char *replica_reason(const struct replica *r);
/* What the last look at it said, in any state ("the health check was answered with status 503");
 * "" if it was good. Progress for people. */
const char *replica_detail(const struct replica *r);
/* The known question's answer, "" until it was given. */
const char *replica_answer(const struct replica *r);

/* Facts for people: name, model, version, state, since, pid, address, prefix, serve_as, slot,
 * restarts, start_ms (spawn to READY), rss_bytes (of all its processes), log, reason, detail (what
 * the last look at it said, "" if good), answer. New reference. */
json_t *replica_json(const struct replica *r);

/* The last `lines` lines of a replica's log (its stdout and stderr), new string; works
 * for engines that are gone, by name. NULL with err when there is no log. */
char *fleet_log_tail(struct fleet *f, const char *replica_name, unsigned lines, struct err *err);
