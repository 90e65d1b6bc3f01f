/*
 * replica - the life of one engine, as fleet.h draws it.
 *
 * A replica has at most one process, one probe under way and one timer.  What
 * happens comes in through four doors: the timer (look, or start), the probe's
 * answer, the process's end, and fleet_drop().  Whoever changes the state does it
 * as the last thing: the manager's callback may drop the replica at once.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "fleet/adapter.h"
#include "fleet/internal.h"
#include "fleet/log_file.h"
#include "fleet/proc.h"
#include "http/url.h"

enum { LAST_WORDS = 3, LAST_WORDS_MAX = 640 };

static const char *const names[] = {
#define X(id, name, note) [REPLICA_##id] = name,
    REPLICA_STATES(X)
#undef X
};

#define TO(st) (1u << REPLICA_##st)

static const unsigned allowed[] = {
    [REPLICA_STARTING] = TO(ASKING) | TO(DOWN) | TO(FAILED) | TO(STOPPING),
    [REPLICA_ASKING] = TO(READY) | TO(DOWN) | TO(FAILED) | TO(STOPPING),
    [REPLICA_READY] = TO(DOWN) | TO(STOPPING),
    [REPLICA_DOWN] = TO(STARTING) | TO(ASKING) | TO(FAILED) | TO(STOPPING),
    [REPLICA_FAILED] = TO(STOPPING),
    [REPLICA_STOPPING] = 0,
};

const char *replica_state_name(enum replica_state s)
{
    return names[s];
}

bool replica_managed(const struct replica *r)
{
    return adapter_of(&r->version)->place != ADAPTER_URL;
}

static void check(const struct replica *r)
{
    bool serves = r->state == REPLICA_ASKING || r->state == REPLICA_READY;
    bool explains = r->state == REPLICA_DOWN || r->state == REPLICA_FAILED;

    ALWAYS(!serves || !replica_managed(r) || r->child);
    ALWAYS(replica_managed(r) || !r->child);
    ALWAYS(!explains || r->reason[0]);
    ALWAYS(!r->probe || (r->state != REPLICA_FAILED && r->state != REPLICA_STOPPING));
    ALWAYS((r->state == REPLICA_READY) <= (r->ready_ns != 0));
}

void replica_set_text(char **text, const char *to)
{
    char *copy = str_dup(to); /* `to` may be a part of *text */

    free(*text);
    *text = copy;
}

/* The only place where the state changes. */
void replica_move(struct replica *r, enum replica_state next)
{
    ALWAYS(allowed[r->state] & (1u << next));
    if (next != REPLICA_DOWN && next != REPLICA_FAILED)
        replica_set_text(&r->reason, "");
    log_info("%s: %s%s%s", r->name, names[next], r->reason[0] ? ": " : "", r->reason);
    r->state = next;
    r->since_ms = clock_wall_ms();
    r->since_ns = clock_ns();
    check(r);
    fleet_wake(r->fleet);
    r->fleet->events.on_state(r, false, r->fleet->arg);
}

/* --- store --- */

/* Before anything else is done with a process.  A store that cannot be written
 * (a full disk) costs the adoption by the next manager, not the service. */
static void keep_row(struct replica *r, const char *command)
{
    struct store_engine e = {
        .replica = r->name,
        .pid = r->child ? child_pid(r->child) : 0,
        .start_time = r->child ? child_start_time(r->child) : 0,
        .address = r->address,
        .slot = r->slot,
        .command = command,
        .log_file = r->log_path ? r->log_path : "",
    };
    struct err err;

    if (store_engine_put(r->fleet->store, &e, &err) != 0)
        log_error("%s: %s; a restarted manager would not find this engine", r->name, err.text);
}

/* --- end --- */

static void replica_free(struct replica *r)
{
    config_version_fini(&r->version);
    free(r->ready.ask);
    free(r->ready.expect);
    free(r->name);
    free(r->model);
    free(r->address);
    free(r->prefix);
    free(r->log_path);
    free(r->answer);
    free(r->reason);
    free(r->detail);
    free(r);
}

static void leave(struct replica *r)
{
    struct fleet *f = r->fleet;

    list_remove(&r->link);
    replica_free(r);
    fleet_wake(f);
    fleet_left(f);
}

static void on_closed_quietly(uv_handle_t *handle)
{
    leave(handle->data);
}

static void on_closed_gone(uv_handle_t *handle)
{
    struct replica *r = handle->data;
    struct fleet *f = r->fleet;
    struct err err;

    if (store_engine_delete(f->store, r->name, &err) != 0)
        log_error("%s: %s", r->name, err.text);
    fleet_slot_put(f, r->slot);
    log_info("%s: gone", r->name);
    f->events.on_state(r, true, f->arg);
    leave(r);
}

static void stop_looking(struct replica *r)
{
    if (r->probe)
        probe_cancel(r->probe);
    r->probe = NULL;
    uv_timer_stop(&r->timer);
}

static void finish(struct replica *r)
{
    if (strncmp(r->address, "unix:", 5) == 0 && replica_managed(r))
        unlink(r->address + 5);
    uv_close((uv_handle_t *)&r->timer, on_closed_gone);
}

void fleet_drop(struct replica *r)
{
    if (r->state == REPLICA_STOPPING)
        return;
    stop_looking(r);
    if (r->child)
        child_end(r->child, r->fleet->times.grace_ms);
    replica_move(r, REPLICA_STOPPING);
    if (!r->child)
        finish(r);
}

void replica_release(struct replica *r)
{
    if (uv_is_closing((uv_handle_t *)&r->timer))
        return;
    stop_looking(r);
    if (r->child)
        child_release(r->child);
    r->child = NULL;
    uv_close((uv_handle_t *)&r->timer, on_closed_quietly);
}

void replica_discard(struct replica *r)
{
    list_remove(&r->link); /* nobody shall find it any more */
    fleet_slot_put(r->fleet, r->slot);
    replica_release(r);
}

void replica_hurry(struct replica *r)
{
    if (r->child && !child_running(r->child))
        child_kill(r->child);
}

/* --- failure --- */

static uint32_t dice(void)
{
    uint32_t n;

    if (getrandom(&n, sizeof(n), GRND_NONBLOCK) != sizeof(n))
        n = (uint32_t)clock_ns() * 2654435761u;
    return n;
}

static uint64_t ready_ms(const struct replica *r)
{
    return r->ready_ns ? (clock_ns() - r->ready_ns) / 1000000 + 1 : 0;
}

static void give_up(struct replica *r, const char *reason)
{
    stop_looking(r);
    replica_set_text(&r->reason, reason);
    if (r->child)
        child_end(r->child, r->fleet->times.grace_ms);
    replica_move(r, REPLICA_FAILED);
}

void replica_go_down(struct replica *r, const char *reason, int64_t look_after_ms)
{
    stop_looking(r);
    r->goods = 0;
    replica_set_text(&r->reason, reason);
    if (look_after_ms >= 0)
        uv_timer_start(&r->timer, replica_on_timer, (uint64_t)look_after_ms, 0);
    if (r->state != REPLICA_DOWN)
        replica_move(r, REPLICA_DOWN);
}

/* There is no process any more, or none came about; is there to be another? */
static void died(struct replica *r, const char *reason)
{
    uint64_t wait;
    bool again = restart_death(&r->restart, clock_ns() / 1000000, ready_ms(r), dice(), &wait);

    r->ready_ns = 0;
    if (r->first_start) {
        give_up(r, reason);
    } else if (!again) {
        char *text = str_fmt("crash loop: it ended %d times in a row before it was ready; %s",
                             RESTART_LOOP_DEATHS, reason);
        give_up(r, text);
        free(text);
    } else {
        replica_go_down(r, reason, (int64_t)wait);
    }
}

/* It runs but cannot be used. */
void replica_unfit(struct replica *r, const char *reason)
{
    uint64_t wait = RESTART_MOST_MS;

    if (r->first_start) {
        give_up(r, reason);
    } else if (r->child) {
        /* Its end will be noticed in DOWN, and what comes then is died()'s to say. */
        child_end(r->child, r->fleet->times.grace_ms);
        replica_go_down(r, reason, -1);
    } else {
        /* Somebody else's: asked again, less and less often. */
        if (!restart_death(&r->restart, clock_ns() / 1000000, ready_ms(r), dice(), &wait))
            wait = RESTART_MOST_MS;
        r->ready_ns = 0;
        replica_go_down(r, reason, (int64_t)wait);
    }
}

/* How it ended, and what it said last. */
static char *obituary(const struct replica *r, const struct child_exit *e, pid_t pid)
{
    char words[LAST_WORDS_MAX] = "", how[160];

    /* Of an end that we asked for, nobody wants to know why. */
    if (!e->asked)
        log_file_last_words(r->log_path, LAST_WORDS, words, sizeof(words));
    if (!e->known)
        snprintf(how, sizeof(how),
                 "ended (an earlier manager's child: its exit status is unknown)");
    else if (e->signal)
        snprintf(
            how, sizeof(how), "was killed by signal %d (%s)%s", e->signal, strsignal(e->signal),
            e->signal == SIGKILL && !e->asked ? ", which we did not send: possibly out of memory"
                                              : "");
    else
        snprintf(how, sizeof(how), "ended with exit status %lld", (long long)e->status);
    return str_fmt("the engine (pid %d) %s after %llu.%03llu s%s%s", (int)pid, how,
                   (unsigned long long)e->life_ms / 1000, (unsigned long long)e->life_ms % 1000,
                   words[0]   ? "; its last words: "
                   : e->asked ? ""
                              : "; it wrote nothing",
                   words);
}

static void on_child_exit(const struct child_exit *e, void *arg)
{
    struct replica *r = arg;
    char *text = obituary(r, e, child_pid(r->child));

    log_line(e->asked ? LOG_INFO : LOG_WARN, "%s: %s", r->name, text);
    r->child = NULL;
    stop_looking(r);
    if (r->state == REPLICA_STOPPING) {
        finish(r);
    } else {
        keep_row(r, ""); /* keeps its slot */
        if (r->state == REPLICA_DOWN)
            died(r, e->asked ? r->reason : text);
        else if (r->state != REPLICA_FAILED)
            died(r, text);
    }
    free(text);
}

/* --- start --- */

bool replica_waits(const struct replica *r)
{
    return r->state == REPLICA_STARTING && replica_managed(r) && !r->child &&
           !uv_is_closing((const uv_handle_t *)&r->timer);
}

static void begin_life(struct replica *r, uint64_t first_look_ms)
{
    r->spawn_ns = r->good_ns = clock_ns();
    r->deadline_ns = r->spawn_ns + r->ready.start_timeout_ms * 1000000;
    r->ready_ns = 0;
    r->look_ms = r->fleet->times.first_look_ms;
    r->misses = r->goods = 0;
    uv_timer_start(&r->timer, replica_on_timer, first_look_ms, 0);
}

static int choose_address(struct replica *r, struct err *err)
{
    struct sockaddr_un sun;

    free(r->address);
    r->address = str_dup("");
    if (adapter_place(&r->version) == ADAPTER_PORT) {
        unsigned port = proc_free_port();

        if (port == 0)
            return err_set(err, 503, "%s: there is no free TCP port on 127.0.0.1", r->name);
        free(r->address);
        r->address = str_fmt("127.0.0.1:%u", port);
        return 0;
    }
    char *path = fleet_path(r->fleet, "e", r->name, ".sock");
    if (strlen(path) >= sizeof(sun.sun_path)) {
        err_set(err, 400,
                "the socket %s would have a path of %zu bytes, and the kernel takes %zu: set "
                "`state` (now %s) to a folder with a shorter path",
                path, strlen(path), sizeof(sun.sun_path) - 1, r->fleet->config->state);
        free(path);
        return -1;
    }
    /* What listens there is left of an engine that has ended; a client of this
     * name must not reach a stranger in the meantime. */
    unlink(path);
    free(r->address);
    r->address = str_fmt("unix:%s", path);
    free(path);
    return 0;
}

/* Programs and files in `run` are named from the configuration's folder. */
static char *folder_of(const struct config *config)
{
    const char *slash = config->file ? strrchr(config->file, '/') : NULL;

    if (!slash)
        return NULL;
    return slash == config->file ? str_dup("/")
                                 : span_dup(span_of(config->file, (size_t)(slash - config->file)));
}

static int spawn(struct replica *r, struct err *err)
{
    const struct fleet_events *events = &r->fleet->events;

    if (events->may_start && events->may_start(r, r->fleet->arg, err) != 0)
        return -1;
    if (choose_address(r, err) != 0)
        return -1;
    int log_fd = log_file_open(r->log_path, err);
    if (log_fd < 0)
        return -1;
    char **argv = adapter_argv(r->fleet->config, &r->version, r->address);
    char *command = words_join(argv), *folder = folder_of(r->fleet->config);
    struct child_options options = {.argv = argv, .folder = folder, .log_fd = log_fd};

    char *mark = str_fmt("starts %s: %s", r->name, command);
    log_file_mark(log_fd, mark);
    r->child = child_spawn(r->fleet->loop, &options, on_child_exit, r, err);
    if (r->child) {
        keep_row(r, command);
        replica_set_text(&r->detail, "");
        log_info("%s: started with pid %d: %s", r->name, (int)child_pid(r->child), command);
        if (r->spawn_ns)
            r->restarts++;
        begin_life(r, r->fleet->times.first_look_ms);
    }
    free(mark);
    free(folder);
    free(command);
    words_free(argv);
    close(log_fd);
    return r->child ? 0 : -1;
}

void replica_start_now(struct replica *r)
{
    struct err err;

    if (spawn(r, &err) != 0)
        died(r, err.text);
}

/* Is this the engine that would be started now? */
static bool same_command(struct replica *r, const struct orphan *o)
{
    char **argv = adapter_argv(r->fleet->config, &r->version, o->address);
    char *command = words_join(argv);
    bool same = strcmp(command, o->command) == 0;

    free(command);
    words_free(argv);
    return same;
}

static int begin_url(struct replica *r, struct err *err)
{
    char address[ADDRESS_TEXT_MAX], prefix[ADDRESS_TEXT_MAX];

    if (url_split(r->version.url, address, prefix, err) != 0)
        return -1;
    replica_set_text(&r->address, address);
    replica_set_text(&r->prefix, prefix);
    keep_row(r, "");
    begin_life(r, 0);
    return 0;
}

static int take_slot(struct replica *r, struct err *err)
{
    if (r->slot < 0)
        r->slot = fleet_slot_take(r->fleet, -1);
    if (r->slot < 0)
        return err_set(err, 503, "%s: all %d slots for replicas are in use", r->name, FLEET_SLOTS);
    return 0;
}

int replica_begin(struct replica *r, struct orphan *o, struct err *err)
{
    if (o && o->child && (!child_running(o->child) || !same_command(r, o))) {
        /* Another command line: the old one goes first. */
        if (child_running(o->child))
            log_info("%s: the engine that runs was started in another way; it is ended", r->name);
        orphan_end(o);
    } else if (o) {
        replica_set_text(&r->address, o->address);
        r->child = orphan_take(o, &r->slot);
    }
    if (take_slot(r, err) != 0)
        return -1;
    if (!replica_managed(r))
        return begin_url(r, err);
    if (r->child) {
        child_watch(r->child, on_child_exit, r);
        begin_life(r, 0);
        return 0;
    }
    if (fleet_may_start(r->fleet, r))
        return spawn(r, err);
    replica_set_text(&r->detail, "it waits until another replica of its version has started, or "
                                 "until a former process of its name has ended");
    return 0;
}

struct replica *replica_new(struct fleet *f, const struct config_model *m,
                            const struct config_version *v, char *name, bool first_start)
{
    struct replica *r = NEW(struct replica);

    r->fleet = f;
    r->state = REPLICA_STARTING;
    r->since_ms = clock_wall_ms();
    r->since_ns = clock_ns();
    config_version_copy(&r->version, v);
    r->ready = m->ready;
    r->ready.ask = str_dup(m->ready.ask);
    r->ready.expect = str_dup(m->ready.expect);
    r->name = name;
    r->model = str_dup(m->name);
    r->address = str_dup("");
    r->prefix = str_dup("");
    r->answer = str_dup("");
    r->reason = str_dup("");
    r->detail = str_dup("");
    if (replica_managed(r))
        r->log_path = fleet_path(f, "log", name, ".log");
    r->slot = -1;
    r->first_start = first_start;
    ALWAYS(uv_timer_init(f->loop, &r->timer) == 0);
    r->timer.data = r;
    list_append(&f->replicas, &r->link);
    f->members++;
    return r;
}

/* --- facts --- */

const char *replica_name(const struct replica *r)
{
    return r->name;
}

const char *replica_model(const struct replica *r)
{
    return r->model;
}

const char *replica_version(const struct replica *r)
{
    return r->version.name;
}

const char *replica_address(const struct replica *r)
{
    return r->address;
}

const char *replica_prefix(const struct replica *r)
{
    return r->prefix;
}

const char *replica_serve_as(const struct replica *r)
{
    return r->version.served_model_name;
}

enum replica_state replica_state(const struct replica *r)
{
    return r->state;
}

int replica_slot(const struct replica *r)
{
    return r->slot;
}

pid_t replica_pid(const struct replica *r)
{
    return r->child ? child_pid(r->child) : 0;
}

const char *replica_reason(const struct replica *r)
{
    return r->reason;
}

const char *replica_detail(const struct replica *r)
{
    return r->detail;
}

const char *replica_answer(const struct replica *r)
{
    return r->answer;
}

json_t *replica_json(const struct replica *r)
{
    char since[CLOCK_TEXT_MAX];
    pid_t pid = replica_pid(r);

    clock_text(r->since_ms, since);
    json_t *facts = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:i, s:I, s:I, s:I, s:s*, s:s, s:s, s:s}",
        "name", r->name, "model", r->model, "version", r->version.name, "state", names[r->state],
        "since", since, "pid", (int)pid, "address", r->address, "prefix", r->prefix, "serve_as",
        r->version.served_model_name, "slot", r->slot, "restarts", (json_int_t)r->restarts,
        "start_ms", (json_int_t)r->start_ms, "rss_bytes", (json_int_t)(pid ? proc_rss(pid) : 0),
        "log", r->log_path, "reason", r->reason, "detail", r->detail, "answer", r->answer);

    ALWAYS(facts);
    return facts;
}
