/*
 * child - one engine process with all that it started.
 *
 *   spawn ─┐            child_end          10 s            child_kill
 *   adopt ─┴▶ RUNNING ───────────▶ ENDING ─────▶ KILLED ◀───────────── (any)
 *                │                   │             │
 *                └───────────────────┴─────────────┴─ leader ended ─▶ SWEEPING ─▶ GONE
 *
 * The engine leads its own session and process group.  When it has ended,
 * whatever it left behind is killed and waited for (workers that hold a GPU
 * or a port); only then on_exit is called, once, and the child frees itself.
 */
#pragma once
#include <stdbool.h>
#include <uv.h>

#include "base/err.h"

/*    id        name        what is true */
#define CHILD_STATES(X)                                             \
    X(RUNNING, "running", "the leader runs")                        \
    X(ENDING, "ending", "it was asked to end (SIGTERM)")            \
    X(KILLED, "killed", "SIGKILL was sent to all of it")            \
    X(SWEEPING, "sweeping", "the leader ended; the rest is killed") \
    X(GONE, "gone", "no process is left; on_exit was called or it was released")

enum child_state {
#define X(id, name, note) CHILD_##id,
    CHILD_STATES(X)
#undef X
        CHILD_NSTATES
};

struct child;

/* How it ended. */
struct child_exit {
    bool known;       /* false: an earlier manager's child, the kernel does not tell us */
    int64_t status;   /* exit status, if signal is 0 */
    int signal;       /* that ended it; 0: none */
    bool asked;       /* we had sent SIGTERM or SIGKILL */
    uint64_t life_ms; /* since spawn or adoption */
};

typedef void (*child_exit_cb)(const struct child_exit *exit, void *arg);

struct child_options {
    char *const *argv;  /* NULL-terminated; argv[0] is looked for on PATH */
    const char *folder; /* working directory; NULL: ours */
    int log_fd;         /* standard output and error; stays the caller's */
};

/* Starts a process; NULL with a sentence if it could not be executed. It has
 * /dev/null, the log, and no other descriptor of ours. */
struct child *child_spawn(uv_loop_t *loop, const struct child_options *options,
                          child_exit_cb on_exit, void *arg, struct err *err);

/* Watches a process that runs already; NULL if it is not there any more. */
struct child *child_adopt(uv_loop_t *loop, pid_t pid, uint64_t start_time);

/* Who is told of its end; for an adopted child. */
void child_watch(struct child *c, child_exit_cb on_exit, void *arg);

/* SIGTERM to all of it, SIGKILL after grace_ms. Twice is fine. */
void child_end(struct child *c, uint64_t grace_ms);

/* SIGKILL to all of it. */
void child_kill(struct child *c);

/* Lets it run and forgets it: on_exit is never called, the pointer is invalid. */
void child_release(struct child *c);

pid_t child_pid(const struct child *c);
uint64_t child_start_time(const struct child *c);
/* RUNNING, and nobody has asked it to end. */
bool child_running(const struct child *c);
