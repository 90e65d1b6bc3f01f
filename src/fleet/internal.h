/*
 * fleet/internal - what the files of this folder share.
 */
#pragma once
#include "base/list.h"
#include "fleet/child.h"
#include "fleet/fleet.h"
#include "fleet/probe.h"
#include "fleet/restart.h"

enum { FLEET_SLOTS = 1024 };

/* All durations in one place, so that tests need not wait. */
struct fleet_times {
    uint64_t first_look_ms; /* spawn to the first health check; grows by half each time */
    uint64_t look_ms;       /* between health checks, and their timeout */
    uint64_t again_ms;      /* "not yet" to the known question: ask again */
    uint64_t silent_ms;     /* DOWN without a good answer for so long: killed and restarted */
    uint64_t grace_ms;      /* SIGTERM to SIGKILL */
    uint64_t log_ms;        /* between looks at the size of the logs */
};

enum {
    LOOK_FALL = 3, /* missed checks that make a READY replica DOWN */
    LOOK_RISE = 2  /* good checks that bring a DOWN replica back to the known question */
};

struct fleet {
    uv_loop_t *loop; /* borrowed, like the next five */
    const struct config *config;
    struct store *store;
    struct fleet_events events;
    void *arg;
    struct fleet_times times;
    struct list replicas;             /* struct replica.link, in the order of fleet_add() */
    struct list orphans;              /* struct orphan.link */
    uint64_t slots[FLEET_SLOTS / 64]; /* bit set: in use */
    uv_timer_t starter;               /* due at once when a waiting replica may be able to start */
    uv_timer_t log_timer;
    unsigned members;          /* replicas and orphans, also those that libuv still holds */
    int handles;               /* of its own that libuv has not let go of */
    void (*closed)(void *arg); /* set once it closes */
    void *closed_arg;          /* borrowed */
};

/*
 * An engine of an earlier manager that nobody has asked for yet; or only its
 * slot, kept for the replica of that name (`child` NULL).
 */
struct orphan {
    struct list link;
    struct fleet *fleet; /* borrowed */
    char *replica, *address,
        *command;        /* owned; the latter two NULL when the store did not know it */
    int slot;            /* -1 then */
    struct child *child; /* owned; NULL: no process */
};

struct replica {
    struct list link;
    struct fleet *fleet; /* borrowed */
    enum replica_state state;
    int64_t since_ms; /* wall clock, of the state */
    uint64_t since_ns;
    struct config_version version; /* owned copy */
    struct config_ready ready;     /* its strings are owned copies */
    char *name, *model;            /* owned */
    char *address, *prefix;        /* owned; address "" until it is first started */
    char *log_path;                /* owned; NULL: no process of ours */
    int slot;
    bool first_start;       /* set by fleet_add, cleared by the first READY: until then
                               nothing is tried twice */
    struct child *child;    /* owned; NULL: no process */
    struct probe *probe;    /* owned; NULL: none under way */
    enum probe_kind asking; /* ASKING: MODELS, then QUESTION */
    uv_timer_t timer;       /* next look, or next start */
    uint64_t look_ms;       /* STARTING: wait before the next look */
    uint64_t look_ns;       /* when the last look began */
    uint64_t deadline_ns;   /* STARTING, ASKING: when it must be READY */
    uint64_t good_ns;       /* last good health check, or spawn */
    uint64_t ready_ns;      /* when it became READY in this life; 0: not yet */
    uint64_t spawn_ns;      /* of this life */
    uint64_t start_ms;      /* spawn to READY, of the newest READY */
    unsigned misses, goods; /* READY: missed in a row; DOWN: good in a row */
    unsigned restarts;      /* starts after the first */
    struct restart restart;
    char *answer; /* owned; the known question's */
    char *reason; /* owned; DOWN, FAILED: why */
    char *detail; /* owned; what the last look said */
};

/* --- replica.c --- */
struct replica *replica_new(struct fleet *f, const struct config_model *m,
                            const struct config_version *v, char *name, bool first_start);
/* Begins its life: adopts o (which may be NULL), waits for its turn, or starts it.
 * -1: it cannot be started (only without o). */
int replica_begin(struct replica *r, struct orphan *o, struct err *err) MUST_CHECK;
/* STARTING without a process, and it should have one. */
bool replica_waits(const struct replica *r);
/* Starts one that waited for its turn. */
void replica_start_now(struct replica *r);
/* Forgets it without a word; its process runs on. Frees itself later. */
void replica_release(struct replica *r);
/* SIGKILL instead of patience. */
void replica_hurry(struct replica *r);
/* Frees one that never began. */
void replica_discard(struct replica *r);

/* For look.c: the only place where the state changes; the last thing that its caller does. */
void replica_move(struct replica *r, enum replica_state next);
/* It runs but cannot be used: given up at a first start, else tried again later. */
void replica_unfit(struct replica *r, const char *reason);
/* DOWN, looked at (or started) again after so long; negative: when its process has ended. */
void replica_go_down(struct replica *r, const char *reason, int64_t look_after_ms);
bool replica_managed(const struct replica *r); /* its process is ours */
void replica_set_text(char **text, const char *to);

/* --- look.c --- */
/* The replica's timer: a look that fits its state, or the next start. */
void replica_on_timer(uv_timer_t *timer);

/* --- fleet.c --- */
bool fleet_may_start(struct fleet *f, const struct replica *r);
/* Somebody may be able to start now. */
void fleet_wake(struct fleet *f);
int fleet_slot_take(struct fleet *f, int wanted); /* wanted < 0: the lowest free; -1: none left */
void fleet_slot_put(struct fleet *f, int slot);
/* A replica or an orphan is no more: the fleet may be closed now. */
void fleet_left(struct fleet *f);
/* "STATE/FOLDER/MODEL@VERSION-INDEX.SUFFIX" of a replica's name; the caller frees it. */
char *fleet_path(const struct fleet *f, const char *folder, const char *name, const char *suffix);

/* --- orphan.c --- */
struct orphan *orphan_find(struct fleet *f, const char *name);
/* Ends its process (if there is one), then it is gone. */
void orphan_end(struct orphan *o);
/* Gives child and slot away (they belong to the caller then) and is gone. */
struct child *orphan_take(struct orphan *o, int *slot);
void orphan_release(struct orphan *o);
