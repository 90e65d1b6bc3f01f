/*
 * app/gateway_link - see gateway_link.h.
 *
 * There is one way to a gateway, for one that we start and for one that we
 * find: connect to STATE/gateway.sock and read its hello.  The listening
 * control socket is ours too and is handed to each gateway we start, so the
 * connect succeeds at once and waits in the backlog until the gateway is there.
 *
 * A gateway is gone when its connection ends.  Its pidfd then tells when the
 * process has really ended: two gateways must not write the counters at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "app/gateway_link_internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

enum {
    START_WAIT_MS = 5000, /* spawned, but no hello: killed and tried again */
    BACKOFF_MAX_MS = 5000,
    BACKOFF_STEP_MS = 50,
    STEADY_MS = 5000,    /* a gateway that lived so long restarts at once */
    KILL_AFTER_MS = 3000 /* beyond the drain time */
};

struct waiter {
    struct list link;
    uint64_t epoch;
    void (*acked)(const struct gateway_ack *ack, void *arg);
    void *arg;
};

static void on_connection(uv_poll_t *poll, int status, int events);
static void lost(struct gateway_link *g, const char *why);
static void start(struct gateway_link *g);

static void set_state(struct gateway_link *g, enum link_state next)
{
#define TO(id) (1u << LINK_##id)
    static const unsigned allowed[] = {
        [LINK_STARTING] = TO(UP) | TO(ENDING) | TO(DOWN) | TO(CLOSING),
        [LINK_UP] = TO(ENDING) | TO(DOWN) | TO(CLOSING),
        [LINK_ENDING] = TO(DOWN) | TO(CLOSING),
        [LINK_DOWN] = TO(STARTING) | TO(DOWN) | TO(CLOSING),
        [LINK_CLOSING] = 0,
    };
#undef TO
    ALWAYS(allowed[g->state] & 1u << next);
    g->state = next;
    ALWAYS(next != LINK_UP || g->connection >= 0);
    ALWAYS(next != LINK_DOWN || (g->connection < 0 && g->pidfd < 0));
}

static uv_poll_t *poll_new(struct gateway_link *g, int fd, uv_poll_cb cb)
{
    uv_poll_t *poll = NEW(uv_poll_t);
    int rc = uv_poll_init(g->loop, poll, fd);

    ALWAYS(rc == 0); /* fails only for descriptors that are not pollable, or twice there */
    poll->data = g;
    uv_poll_start(poll, UV_READABLE, cb);
    return poll;
}

/* Before its descriptor is closed. */
static void poll_free(uv_poll_t **poll)
{
    if (*poll)
        uv_close((uv_handle_t *)*poll, (uv_close_cb)free);
    *poll = NULL;
}

/* --- hello --------------------------------------------------------------------- */

static void watch_exit(struct gateway_link *g);

static void note_hello(struct gateway_link *g, json_t *hello)
{
    g->pid = (pid_t)json_integer_value(json_object_get(hello, "pid"));
    g->epoch = (uint64_t)json_integer_value(json_object_get(hello, "epoch"));
    g->sent = 0;
    g->since_ms = clock_wall_ms();
    g->up_ns = clock_ns();
    watch_exit(g);
}

static int adopt(struct gateway_link *g, struct err *err)
{
    json_t *hello = gateway_wait_hello(g, err);

    if (!hello)
        return -1;
    int rc = gateway_take_over(g, hello, err);
    if (rc == 0) {
        g->counters = counters_map(g->counters_fd, err);
        rc = g->counters ? 0 : -1;
    }
    if (rc == 0) {
        note_hello(g, hello);
        gateway_warn_of_changes(g);
        log_info("adopted the running gateway, pid %d, epoch %llu", (int)g->pid,
                 (unsigned long long)g->epoch);
    }
    json_decref(hello);
    return rc;
}

/* --- messages -------------------------------------------------------------------- */

static void send_json(struct gateway_link *g, json_t *j)
{
    struct err err;
    char *text = json_dumps(j, JSON_COMPACT);

    if (control_send(g->connection, span_str(text), NULL, 0, &err) < 0) {
        /* Half of a message may be in the socket: no other can follow it. The connection's
         * end reaches on_connection(). */
        log_warn("the gateway (pid %d) does not take a message: %s", (int)g->pid, err.text);
        shutdown(g->connection, SHUT_RDWR);
    }
    free(text);
}

static void send_access_log(struct gateway_link *g)
{
    struct err err;
    json_t *j = json_pack("{s:s, s:s*}", "type", "access_log", "format",
                          g->access_fd < 0 ? NULL
                          : g->access_text ? "text"
                                           : "json");
    char *text = json_dumps(j, JSON_COMPACT);

    if (control_send(g->connection, span_str(text), &g->access_fd, g->access_fd >= 0, &err) < 0)
        log_warn("the gateway (pid %d) does not take the access log: %s", (int)g->pid, err.text);
    free(text);
    json_decref(j);
}

/* The whole table: to a gateway that has none, or another manager's. */
static void send_whole(struct gateway_link *g)
{
    json_t *models = json_array(), *whole = json_copy(g->table), *model;
    const char *name;

    json_object_foreach(g->models, name, model) json_array_append(models, model);
    json_object_set_new(whole, "models", models);
    json_object_set(whole, "keys", g->keys);
    send_json(g, whole);
    json_decref(whole);
    g->sent = g->published;
}

static void send_change(struct gateway_link *g, json_t *changed, json_t *keys)
{
    json_t *change = json_copy(g->table);

    json_object_set(change, "models", changed);
    json_object_set(change, "keys", keys);
    json_object_set_new(change, "base", json_integer((json_int_t)g->sent));
    send_json(g, change);
    json_decref(change);
    g->sent = g->published;
}

static void on_ack(struct gateway_link *g, json_t *message)
{
    struct gateway_ack ack = {
        .epoch = (uint64_t)json_integer_value(json_object_get(message, "epoch")),
        .acked_ns = (uint64_t)json_integer_value(json_object_get(message, "acked_ns")),
    };
    bool newest = ack.epoch >= g->published;

    g->epoch = ack.epoch;
    LIST_FOR_EACH_SAFE(it, &g->waiters)
    {
        struct waiter *w = CONTAINER_OF(it, struct waiter, link);
        if (w->epoch > ack.epoch)
            break;
        list_remove(&w->link);
        w->acked(&ack, w->arg);
        free(w);
    }
    if (newest && g->restarted) {
        g->restarted = false;
        g->events.on_up(g->arg);
    }
}

static void on_hello(struct gateway_link *g, json_t *message)
{
    control_reader_fini(&g->reader); /* duplicates of what we hold */
    note_hello(g, message);
    uv_timer_stop(&g->timer);
    set_state(g, LINK_UP);
    log_info("gateway is up, pid %d", (int)g->pid);
    send_access_log(g);
    if (g->certificate) /* before the table lets it listen */
        send_json(g, g->certificate);
    if (g->table) {
        g->restarted = true; /* on_up comes with the acknowledgement */
        send_whole(g);
    } else {
        g->events.on_up(g->arg);
    }
}

/* A change that did not fit is followed by the whole; a whole that is refused is our
 * own fault, and nothing that we could send would be better. */
static void on_refused(struct gateway_link *g, json_t *message)
{
    bool change = json_is_true(json_object_get(message, "change"));

    log_error("the gateway refused what it was sent: %s",
              json_string_value(json_object_get(message, "message")));
    if (change)
        send_whole(g);
}

static void on_message(struct gateway_link *g, json_t *message)
{
    const char *type = json_string_value(json_object_get(message, "type"));

    if (type && strcmp(type, "ack") == 0)
        on_ack(g, message);
    else if (type && strcmp(type, "hello") == 0 && g->state == LINK_STARTING)
        on_hello(g, message);
    else if (type && strcmp(type, "refused") == 0)
        on_refused(g, message);
    else
        log_error("the gateway sent an unexpected message");
}

/* --- life of the process ----------------------------------------------------------- */

static void close_connection(struct gateway_link *g)
{
    if (g->connection < 0)
        return;
    poll_free(&g->poll);
    close(g->connection);
    g->connection = -1;
    control_reader_fini(&g->reader);
}

static void finish_close(struct gateway_link *g);

static void on_restart(uv_timer_t *timer)
{
    start(timer->data);
}

/* The process is gone for certain. */
static void gone(struct gateway_link *g)
{
    uint64_t lived_ms = g->up_ns ? (clock_ns() - g->up_ns) / 1000000 : 0;

    if (g->pidfd >= 0) {
        poll_free(&g->exit_poll);
        close(g->pidfd);
        g->pidfd = -1;
    }
    g->pid = 0;
    if (g->state == LINK_CLOSING) {
        finish_close(g);
        return;
    }
    g->failures = lived_ms >= STEADY_MS ? 0 : g->failures + 1;
    uint64_t wait = g->failures < 2 ? 0 : (uint64_t)BACKOFF_STEP_MS << (g->failures - 2);
    if (g->failures > 8 || wait > BACKOFF_MAX_MS)
        wait = BACKOFF_MAX_MS;
    g->up_ns = 0;
    g->restarts++;
    set_state(g, LINK_DOWN);
    uv_timer_start(&g->timer, on_restart, wait, 0);
}

static void on_exit_poll(uv_poll_t *poll, int status, int events)
{
    struct gateway_link *g = poll->data;

    if (g->connection >= 0) {
        /* Its last messages may still be in the socket; its end is there too, unless it
         * ended before it took the connection: the queue is ours as well. */
        on_connection(g->poll, 0, UV_READABLE);
        if (g->connection >= 0)
            lost(g, "its process has ended");
    }
    if (g->pidfd >= 0)
        gone(g);
}

static void watch_exit(struct gateway_link *g)
{
    if (g->pidfd >= 0)
        return;
    g->pidfd = (int)syscall(SYS_pidfd_open, g->pid, 0);
    if (g->pidfd < 0)
        return;
    fcntl(g->pidfd, F_SETFD, FD_CLOEXEC);
    g->exit_poll = poll_new(g, g->pidfd, on_exit_poll);
}

static void kill_it(struct gateway_link *g)
{
    if (g->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, g->pidfd, SIGKILL, NULL, 0);
}

/* Its connection has ended: it is dead, or of no use any more. */
static void lost(struct gateway_link *g, const char *why)
{
    close_connection(g);
    if (g->state != LINK_CLOSING) {
        log_error("gateway (pid %d) is gone: %s", (int)g->pid, why);
        set_state(g, LINK_ENDING);
        kill_it(g);
        g->events.on_down(why, g->arg);
    }
    if (g->pidfd < 0)
        gone(g);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    struct gateway_link *g = poll->data;
    struct err err = {0};
    struct span text;
    bool broken = false;

    if (g->connection < 0)
        return;
    int rc = control_read(&g->reader, g->connection, &err);
    if (rc < 0 && err.status == 0)
        return;
    if (rc <= 0) {
        lost(g, rc == 0 ? "it closed its control connection" : err.text);
        return;
    }
    while (g->connection >= 0 && control_next(&g->reader, &text, &broken)) {
        json_t *message = json_loadb(text.p, text.n, 0, NULL);
        on_message(g, message);
        json_decref(message);
    }
    if (broken)
        lost(g, "it sent an oversized message");
}

static void watch_connection(struct gateway_link *g)
{
    fcntl(g->connection, F_SETFL, O_NONBLOCK);
    g->poll = poll_new(g, g->connection, on_connection);
}

static void on_process_exit(uv_process_t *process, int64_t status, int signal)
{
    if (signal)
        log_warn("gateway process %d ended by signal %d", process->pid, signal);
    else
        log_info("gateway process %d ended with status %lld", process->pid, (long long)status);
    uv_close((uv_handle_t *)process, (uv_close_cb)free);
}

static char *list_fds(size_t first, size_t n)
{
    struct buf b = {0};

    for (size_t i = 0; i < n; i++)
        buf_addf(&b, "%s%zu", i ? "," : "", first + i);
    return buf_take(&b);
}

static int spawn(struct gateway_link *g)
{
    enum { CONTROL_FD = 3, COUNTERS_FD = 4, LISTEN_FD = 5 };
    uv_process_t *process = NEW(uv_process_t);
    uv_stdio_container_t io[LISTEN_FD + CONTROL_FDS_MAX];
    char *workers = str_fmt("%u", g->workers);
    char *fds = list_fds(LISTEN_FD, g->nlisten_fds);
    char **argv = mem_zero((16 + 2 * g->nlisten) * sizeof(*argv));
    size_t n = 0;
    uv_process_options_t options = {
        .file = "/proc/self/exe",
        .args = argv,
        .stdio = io,
        .stdio_count = (int)(LISTEN_FD + g->nlisten_fds),
        .flags = UV_PROCESS_DETACHED, /* outlives us, and Ctrl-C on our terminal */
        .exit_cb = on_process_exit,
    };
    char *const fixed[] = {"segue",         "gateway", "--control-fd", "3",
                           "--counters-fd", "4",       "--workers",    workers,
                           "--listen-fds",  fds,       "--log-level",  g->config->log_level};

    memcpy(argv, fixed, sizeof(fixed));
    n = COUNT_OF(fixed);
    for (size_t i = 0; i < g->nlisten; i++) {
        argv[n++] = "--listen";
        argv[n++] = g->listen[i];
    }
    io[0].flags = UV_IGNORE;
    for (int i = 1; i < options.stdio_count; i++) {
        io[i].flags = UV_INHERIT_FD;
        io[i].data.fd = i == 1             ? 2 /* nothing of it may end up in our output */
                        : i == CONTROL_FD  ? g->control
                        : i == COUNTERS_FD ? g->counters_fd
                        : i >= LISTEN_FD   ? g->listen_fds[i - LISTEN_FD]
                                           : i;
    }
    int rc = uv_spawn(g->loop, process, &options);
    if (rc == 0) {
        g->pid = process->pid;
        uv_unref((uv_handle_t *)process);
    } else {
        uv_close((uv_handle_t *)process, (uv_close_cb)free);
    }
    free(argv);
    free(fds);
    free(workers);
    return rc;
}

static void on_start_timeout(uv_timer_t *timer)
{
    struct gateway_link *g = timer->data;

    log_error("the gateway (pid %d) did not say hello within %d ms", (int)g->pid, START_WAIT_MS);
    lost(g, "no hello");
}

static void start(struct gateway_link *g)
{
    int rc = spawn(g);

    g->state = LINK_STARTING;
    if (rc == 0) {
        watch_exit(g);
        g->connection = gateway_connect(g);
        if (g->connection >= 0)
            watch_connection(g);
    }
    if (rc < 0 || g->connection < 0) {
        log_error("cannot start the gateway: %s", rc < 0 ? uv_strerror(rc) : strerror(errno));
        kill_it(g);
        close_connection(g);
        if (g->pidfd >= 0)
            set_state(g, LINK_ENDING); /* gone() comes with its exit */
        else
            gone(g);
        return;
    }
    uv_timer_start(&g->timer, on_start_timeout, START_WAIT_MS, 0);
}

/* The first step happens in the loop, so that no event comes before
 * gateway_link_new() has returned. */
static void on_begin(uv_timer_t *timer)
{
    struct gateway_link *g = timer->data;

    if (g->connection >= 0)
        g->events.on_up(g->arg);
    else
        start(g);
}

/* --- the interface ------------------------------------------------------------------ */

static void release(struct gateway_link *g)
{
    gateway_close_listeners(g);
    control_reader_fini(&g->reader);
    if (g->connection >= 0)
        close(g->connection);
    if (g->pidfd >= 0)
        close(g->pidfd);
    if (g->control >= 0)
        close(g->control);
    if (g->counters_fd >= 0)
        close(g->counters_fd);
    if (g->access_fd >= 0)
        close(g->access_fd);
    counters_unmap(g->counters);
    for (size_t i = 0; g->listen && i < g->nlisten; i++)
        free(g->listen[i]);
    free(g->listen);
    json_decref(g->table);
    json_decref(g->models);
    json_decref(g->keys);
    json_decref(g->certificate);
    while (!list_empty(&g->waiters)) {
        struct waiter *w = CONTAINER_OF(g->waiters.next, struct waiter, link);
        list_remove(&w->link);
        free(w);
    }
    free(g);
}

struct gateway_link *gateway_link_new(uv_loop_t *loop, const struct config *config,
                                      const struct gateway_link_events *events, void *arg,
                                      struct err *err)
{
    struct gateway_link *g = NEW(struct gateway_link);
    int rc = 0;

    g->loop = loop;
    g->config = config;
    g->events = *events;
    g->arg = arg;
    g->control = g->counters_fd = g->access_fd = g->connection = g->pidfd = -1;
    g->state = LINK_STARTING;
    list_init(&g->waiters);
    g->models = json_object();
    char *path = str_fmt("%s/gateway.sock", config->state);
    if (strlen(path) >= sizeof(g->path))
        rc = err_set(err, 400, "the path %s is longer than %zu bytes; choose a shorter `state`",
                     path, sizeof(g->path) - 1);
    else
        strcpy(g->path, path);
    free(path);
    if (rc == 0) {
        g->connection = gateway_connect(g);
        if (g->connection >= 0) {
            rc = adopt(g, err);
        } else if (gateway_open_listeners(g, err) < 0 || gateway_open_control(g, err) < 0 ||
                   (g->counters_fd = counters_create(err)) < 0 ||
                   !(g->counters = counters_map(g->counters_fd, err))) {
            rc = -1;
        }
    }
    if (rc < 0) {
        poll_free(&g->exit_poll);
        release(g);
        return NULL;
    }
    if (g->connection >= 0) {
        g->state = LINK_UP;
        watch_connection(g);
    }
    uv_timer_init(loop, &g->timer);
    g->timer.data = g;
    uv_timer_start(&g->timer, on_begin, 0, 0);
    return g;
}

void gateway_link_publish(struct gateway_link *g, json_t *table,
                          void (*acked)(const struct gateway_ack *ack, void *arg), void *arg)
{
    struct waiter *w = NEW(struct waiter);

    w->epoch = (uint64_t)json_integer_value(json_object_get(table, "epoch"));
    w->acked = acked;
    w->arg = arg;
    ALWAYS(w->epoch > g->epoch);
    list_append(&g->waiters, &w->link);
    g->published = w->epoch;
    json_t *changed = json_incref(json_object_get(table, "models")), *model;
    size_t i;
    json_array_foreach(changed, i, model)
        json_object_set(g->models, json_string_value(json_object_get(model, "name")), model);
    json_object_del(table, "models");
    json_t *keys = json_incref(json_object_get(table, "keys"));
    json_object_del(table, "keys");
    if (keys) {
        json_decref(g->keys);
        g->keys = json_incref(keys);
    }
    json_object_set_new(table, "type", json_string("table"));
    json_decref(g->table);
    g->table = table;
    if (g->state == LINK_UP && g->sent)
        send_change(g, changed, keys);
    else if (g->state == LINK_UP)
        send_whole(g);
    json_decref(changed);
    json_decref(keys);
}

void gateway_link_access_log(struct gateway_link *g, int fd, bool text)
{
    if (g->access_fd >= 0)
        close(g->access_fd);
    g->access_fd = fd;
    g->access_text = text;
    if (g->state == LINK_UP)
        send_access_log(g);
}

void gateway_link_certificate(struct gateway_link *g, json_t *message)
{
    json_decref(g->certificate);
    g->certificate = message;
    if (g->state == LINK_UP)
        send_json(g, message);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct gateway_link *g = handle->data;
    void (*closed)(void *) = g->closed;
    void *arg = g->closed_arg;

    release(g);
    if (closed)
        closed(arg);
}

static void finish_close(struct gateway_link *g)
{
    close_connection(g);
    poll_free(&g->exit_poll);
    if (uv_is_closing((uv_handle_t *)&g->timer))
        return; /* asked to close twice */
    uv_close((uv_handle_t *)&g->timer, on_handle_closed);
}

static void on_close_timeout(uv_timer_t *timer)
{
    struct gateway_link *g = timer->data;

    log_warn("the gateway (pid %d) does not end; killing it", (int)g->pid);
    kill_it(g);
}

void gateway_link_close(struct gateway_link *g, bool end, uint64_t drain_ms,
                        void (*closed)(void *arg), void *arg)
{
    bool running = g->connection >= 0 && g->pidfd >= 0;

    g->closed = closed;
    g->closed_arg = arg;
    uv_timer_stop(&g->timer);
    if (g->state != LINK_CLOSING)
        set_state(g, LINK_CLOSING);
    if (!end || !running) {
        if (end)
            kill_it(g);
        finish_close(g);
        return;
    }
    /* Our copies go first, or connections would wait in a queue that nobody serves. */
    gateway_close_listeners(g);
    json_t *stop = json_pack("{s:s, s:I}", "type", "stop", "drain_ms", (json_int_t)drain_ms);
    send_json(g, stop);
    json_decref(stop);
    unlink(g->path);
    uv_timer_start(&g->timer, on_close_timeout, drain_ms + KILL_AFTER_MS, 0);
}
