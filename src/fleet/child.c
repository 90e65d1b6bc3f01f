/*
 * child - see child.h.
 *
 * The end of a process that we spawned comes from libuv (SIGCHLD, waitpid), of
 * an adopted one from its pidfd.  Either way the rest of its group and session
 * is looked for in /proc until there is nothing alive; zombies do not count,
 * since their parent may be a process that never waits.
 */
#include "fleet/child.h"

#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "fleet/proc.h"

enum {
    SWEEP_MS = 10,            /* between two looks at what is left */
    SWEEP_PATIENCE_MS = 10000 /* then it is said that something does not die */
};

struct child {
    enum child_state state;
    pid_t pid;
    uint64_t start_time;
    uint64_t began_ns;
    uint64_t swept_ns; /* SWEEPING: since when */
    struct child_exit exit;
    child_exit_cb on_exit;
    void *arg;            /* borrowed; on_exit's */
    uv_process_t process; /* spawned children only */
    uv_poll_t pidfd_poll; /* adopted children only */
    int pidfd;            /* owned; -1 if spawned */
    uv_timer_t timer;     /* ENDING: SIGKILL; SWEEPING: next look */
    int handles;          /* that libuv has not let go of */
};

#define TO(st) (1u << CHILD_##st)

static const unsigned allowed[CHILD_NSTATES] = {
    [CHILD_RUNNING] = TO(ENDING) | TO(KILLED) | TO(SWEEPING) | TO(GONE),
    [CHILD_ENDING] = TO(KILLED) | TO(SWEEPING) | TO(GONE),
    [CHILD_KILLED] = TO(SWEEPING) | TO(GONE),
    [CHILD_SWEEPING] = TO(GONE),
};

static void set_state(struct child *c, enum child_state next)
{
    ALWAYS(allowed[c->state] & (1u << next));
    c->state = next;
    ALWAYS(c->pid > 1);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct child *c = handle->data;

    if (--c->handles > 0)
        return;
    if (c->pidfd >= 0)
        close(c->pidfd);
    free(c);
}

static void close_handles(struct child *c)
{
    if (c->pidfd >= 0)
        uv_close((uv_handle_t *)&c->pidfd_poll, on_handle_closed);
    else
        uv_close((uv_handle_t *)&c->process, on_handle_closed);
    uv_close((uv_handle_t *)&c->timer, on_handle_closed);
}

static void on_sweep(uv_timer_t *timer)
{
    struct child *c = timer->data;
    pid_t left[16];
    size_t n = proc_members(c->pid, true, left, COUNT_OF(left));
    uint64_t now = clock_ns();

    proc_reap_orphans(c->pid);
    if (n == 0) {
        set_state(c, CHILD_GONE);
        close_handles(c);
        if (c->on_exit)
            c->on_exit(&c->exit, c->arg);
        return;
    }
    proc_signal(c->pid, SIGKILL);
    if (now - c->swept_ns > SWEEP_PATIENCE_MS * 1000000ull) {
        log_warn("process %d ended, but %zu of its processes (one is %d) do not die of SIGKILL",
                 (int)c->pid, n, (int)left[0]);
        c->swept_ns = now;
    }
    uv_timer_start(&c->timer, on_sweep, SWEEP_MS, 0);
}

static void leader_ended(struct child *c)
{
    c->exit.life_ms = (clock_ns() - c->began_ns) / 1000000;
    c->exit.asked = c->state == CHILD_ENDING || c->state == CHILD_KILLED;
    c->swept_ns = clock_ns();
    set_state(c, CHILD_SWEEPING);
    on_sweep(&c->timer);
}

static void on_process_exit(uv_process_t *process, int64_t status, int signal)
{
    struct child *c = process->data;

    c->exit.known = true;
    c->exit.status = status;
    c->exit.signal = signal;
    leader_ended(c);
}

static void on_pidfd(uv_poll_t *poll, int status, int events)
{
    struct child *c = poll->data;
    int how;

    uv_poll_stop(poll);
    /* It may be our child after all, when one process closes a fleet and opens another. */
    if (waitpid(c->pid, &how, WNOHANG) == c->pid) {
        c->exit.known = true;
        c->exit.status = WIFEXITED(how) ? WEXITSTATUS(how) : 0;
        c->exit.signal = WIFSIGNALED(how) ? WTERMSIG(how) : 0;
    }
    leader_ended(c);
}

static struct child *child_new(uv_loop_t *loop)
{
    struct child *c = NEW(struct child);

    c->began_ns = clock_ns();
    c->pidfd = -1;
    ALWAYS(uv_timer_init(loop, &c->timer) == 0);
    c->timer.data = c;
    c->handles = 1;
    return c;
}

/* Descriptors that somebody gave us without O_CLOEXEC (a shell, a test runner)
 * are not the engine's. */
static void keep_descriptors_to_ourselves(void)
{
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
        log_debug("close_range: %s; inherited descriptors may reach the engines", strerror(errno));
}

/* The kernel shall take an engine before it takes us (FAULTS D3). */
static void offer_to_oom_killer(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
    FILE *f = fopen(path, "we");
    if (!f || fputs("300", f) == EOF)
        log_debug("cannot write %s: %s", path, strerror(errno));
    if (f && fclose(f) != 0)
        log_debug("cannot write %s: %s", path, strerror(errno));
}

struct child *child_spawn(uv_loop_t *loop, const struct child_options *options,
                          child_exit_cb on_exit, void *arg, struct err *err)
{
    struct child *c = child_new(loop);
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = options->log_fd},
        {.flags = UV_INHERIT_FD, .data.fd = options->log_fd},
    };
    uv_process_options_t o = {
        .exit_cb = on_process_exit,
        .file = options->argv[0],
        .args = (char **)options->argv,
        .cwd = options->folder,
        .flags = UV_PROCESS_DETACHED, /* setsid(): own session and group */
        .stdio_count = 3,
        .stdio = stdio,
    };
    struct proc p;

    c->on_exit = on_exit;
    c->arg = arg;
    c->process.data = c;
    keep_descriptors_to_ourselves();
    int rc = uv_spawn(loop, &c->process, &o);
    c->handles++;
    if (rc != 0) {
        err_set(err, 500, "cannot execute %s: %s", options->argv[0],
                rc == UV_ENOENT ? "there is no such program (or no such interpreter or folder)"
                                : uv_strerror(rc));
        close_handles(c);
        return NULL;
    }
    c->pid = c->process.pid;
    /* Not reaped before the loop runs again, so it is there even if it has ended. */
    ALWAYS(proc_read(c->pid, &p));
    c->start_time = p.start_time;
    offer_to_oom_killer(c->pid);
    return c;
}

struct child *child_adopt(uv_loop_t *loop, pid_t pid, uint64_t start_time)
{
    if (!proc_is(pid, start_time))
        return NULL;
    int pidfd = proc_pidfd(pid);
    /* Asked again: it may have ended, and its number be another's, in between. */
    if (pidfd < 0 || !proc_is(pid, start_time)) {
        if (pidfd >= 0)
            close(pidfd);
        return NULL;
    }
    struct child *c = child_new(loop);
    c->pid = pid;
    c->start_time = start_time;
    c->pidfd = pidfd;
    ALWAYS(uv_poll_init(loop, &c->pidfd_poll, pidfd) == 0);
    c->handles++;
    c->pidfd_poll.data = c;
    ALWAYS(uv_poll_start(&c->pidfd_poll, UV_READABLE, on_pidfd) == 0);
    return c;
}

void child_watch(struct child *c, child_exit_cb on_exit, void *arg)
{
    c->on_exit = on_exit;
    c->arg = arg;
}

void child_kill(struct child *c)
{
    if (c->state != CHILD_RUNNING && c->state != CHILD_ENDING)
        return;
    uv_timer_stop(&c->timer);
    set_state(c, CHILD_KILLED);
    proc_signal(c->pid, SIGKILL);
}

static void on_grace_over(uv_timer_t *timer)
{
    struct child *c = timer->data;

    log_warn("process %d did not end after SIGTERM; it is killed", (int)c->pid);
    child_kill(c);
}

void child_end(struct child *c, uint64_t grace_ms)
{
    if (c->state != CHILD_RUNNING)
        return;
    set_state(c, CHILD_ENDING);
    uv_timer_start(&c->timer, on_grace_over, grace_ms, 0);
    proc_signal(c->pid, SIGTERM);
}

void child_release(struct child *c)
{
    set_state(c, CHILD_GONE);
    close_handles(c);
}

pid_t child_pid(const struct child *c)
{
    return c->pid;
}

uint64_t child_start_time(const struct child *c)
{
    return c->start_time;
}

bool child_running(const struct child *c)
{
    return c->state == CHILD_RUNNING;
}
