/*
 * fleet - the register: who is there, who may start, which slots are taken.
 *
 * Replicas of one version start one after the other (two engines that measure
 * free memory at once spoil each other), and none starts while a former
 * process of the same name still ends.
 */
#include "fleet/fleet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "fleet/adapter.h"
#include "fleet/internal.h"
#include "fleet/log_file.h"

static const struct fleet_times usual = {
    .first_look_ms = 10,
    .look_ms = 1000,
    .again_ms = 500,
    .silent_ms = 30000,
    .grace_ms = 10000,
    .log_ms = 500,
};

/* --- slots --- */

int fleet_slot_take(struct fleet *f, int wanted)
{
    for (int i = wanted < 0 ? 0 : wanted; i < FLEET_SLOTS; i++) {
        uint64_t bit = UINT64_C(1) << (i % 64);

        if (!(f->slots[i / 64] & bit)) {
            f->slots[i / 64] |= bit;
            return i;
        }
    }
    return wanted > 0 ? fleet_slot_take(f, -1) : -1;
}

void fleet_slot_put(struct fleet *f, int slot)
{
    if (slot < 0)
        return;
    uint64_t bit = UINT64_C(1) << (slot % 64);
    ALWAYS(slot < FLEET_SLOTS && (f->slots[slot / 64] & bit));
    f->slots[slot / 64] &= ~bit;
}

/* --- files --- */

char *fleet_path(const struct fleet *f, const char *folder, const char *name, const char *suffix)
{
    char *path = str_fmt("%s/%s/%s%s", f->config->state, folder, name, suffix);
    char *mark = strrchr(path, '#');

    if (mark)
        *mark = '-';
    return path;
}

static void make_folder(const struct fleet *f, const char *name)
{
    char *path = str_fmt("%s/%s", f->config->state, name);

    /* What goes wrong here is told when a file in it cannot be made. */
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        log_warn("cannot make the folder %s: %s", path, strerror(errno));
    free(path);
}

static void on_log_timer(uv_timer_t *timer)
{
    struct fleet *f = timer->data;

    LIST_FOR_EACH(it, &f->replicas)
    {
        const struct replica *r = CONTAINER_OF(it, struct replica, link);

        if (r->child && r->log_path && log_file_bound(r->log_path))
            log_info("%s: its log was longer than %d MiB and was cut to its end", r->name,
                     LOG_FILE_MOST >> 20);
    }
}

/* MODEL@VERSION#INDEX, so that nothing else becomes part of a path. */
static bool replica_name_ok(const char *name)
{
    const char *at = strchr(name, '@'), *mark = strrchr(name, '#');

    return at && mark && at < mark && mark[1] && !strchr(name, '/') && name[0] != '.' &&
           strspn(mark + 1, "0123456789") == strlen(mark + 1);
}

char *fleet_log_tail(struct fleet *f, const char *replica_name, unsigned lines, struct err *err)
{
    if (!replica_name_ok(replica_name)) {
        err_set(err, 400, "'%s' is not a replica's name (MODEL@VERSION#NUMBER)", replica_name);
        return NULL;
    }
    char *path = fleet_path(f, "log", replica_name, ".log");
    char *text = log_file_tail(path, lines, err);
    if (!text)
        err_set(err, 404,
                "there is no log of %s (%s); an endpoint that somebody else runs (openai) has "
                "none here",
                replica_name, path);
    free(path);
    return text;
}

/* --- turns --- */

static bool starts(const struct replica *r)
{
    return (r->state == REPLICA_STARTING && r->child) || r->state == REPLICA_ASKING;
}

static bool same_version(const struct replica *a, const struct replica *b)
{
    return strcmp(a->model, b->model) == 0 && strcmp(a->version.name, b->version.name) == 0;
}

bool fleet_may_start(struct fleet *f, const struct replica *r)
{
    if (orphan_find(f, r->name))
        return false;
    LIST_FOR_EACH(it, &f->replicas)
    {
        const struct replica *other = CONTAINER_OF(it, struct replica, link);

        if (other != r &&
            (strcmp(other->name, r->name) == 0 || (same_version(other, r) && starts(other))))
            return false;
    }
    return true;
}

/* One at a time: each start wakes us again by its change of state, and the
 * callbacks of one may drop another. */
static void on_starter(uv_timer_t *timer)
{
    struct fleet *f = timer->data;

    LIST_FOR_EACH(it, &f->replicas)
    {
        struct replica *r = CONTAINER_OF(it, struct replica, link);

        if (replica_waits(r) && fleet_may_start(f, r)) {
            fleet_wake(f);
            replica_start_now(r);
            return;
        }
    }
}

void fleet_wake(struct fleet *f)
{
    if (!f->closed)
        uv_timer_start(&f->starter, on_starter, 0, 0);
}

/* --- beginning and end --- */

static struct replica *find(struct fleet *f, const char *name)
{
    LIST_FOR_EACH(it, &f->replicas)
    {
        struct replica *r = CONTAINER_OF(it, struct replica, link);

        if (strcmp(r->name, name) == 0 && r->state != REPLICA_STOPPING)
            return r;
    }
    return NULL;
}

struct replica *fleet_add(struct fleet *f, const struct config_model *m,
                          const struct config_version *v, unsigned index, bool first_start,
                          struct err *err)
{
    char *name = str_fmt("%s@%s#%u", m->name, v->name, index);
    struct replica *r = NULL;

    if (f->closed)
        err_set(err, 503, "%s is not started: segue is ending", name);
    else if (find(f, name))
        err_set(err, 409, "%s is there already (%s)", name,
                replica_state_name(find(f, name)->state));
    else if (adapter_check(f->config, v, err) == 0)
        r = replica_new(f, m, v, name, first_start);
    if (!r) {
        free(name);
        return NULL;
    }
    if (replica_begin(r, orphan_find(f, name), err) != 0) {
        replica_discard(r);
        return NULL;
    }
    return r;
}

struct fleet *fleet_new(uv_loop_t *loop, const struct config *config, struct store *store,
                        const struct fleet_events *events, void *arg)
{
    struct fleet *f = NEW(struct fleet);

    f->loop = loop;
    f->config = config;
    f->store = store;
    f->events = *events;
    f->arg = arg;
    f->times = usual;
    list_init(&f->replicas);
    list_init(&f->orphans);
    ALWAYS(uv_timer_init(loop, &f->starter) == 0);
    ALWAYS(uv_timer_init(loop, &f->log_timer) == 0);
    f->starter.data = f->log_timer.data = f;
    f->handles = 2;
    uv_timer_start(&f->log_timer, on_log_timer, f->times.log_ms, f->times.log_ms);
    make_folder(f, "e");
    make_folder(f, "log");
    /* Workers whose engine died become ours, so that we can wait for them. */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        log_warn("cannot become the reaper of orphaned engine processes: %s", strerror(errno));
    return f;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct fleet *f = handle->data;

    if (--f->handles > 0)
        return;
    void (*closed)(void *) = f->closed;
    void *arg = f->closed_arg;
    free(f);
    closed(arg);
}

static void close_if_empty(struct fleet *f)
{
    if (!f->closed || f->members > 0 || uv_is_closing((uv_handle_t *)&f->starter))
        return;
    uv_close((uv_handle_t *)&f->starter, on_handle_closed);
    uv_close((uv_handle_t *)&f->log_timer, on_handle_closed);
}

void fleet_left(struct fleet *f)
{
    ALWAYS(f->members > 0);
    f->members--;
    close_if_empty(f);
}

void fleet_close(struct fleet *f, bool end_engines, void (*closed)(void *arg), void *arg)
{
    ALWAYS(!f->closed);
    f->closed = closed;
    f->closed_arg = arg;
    f->members++; /* ours, so that it does not end in the middle of this */
    LIST_FOR_EACH_SAFE(it, &f->orphans)
    {
        struct orphan *o = CONTAINER_OF(it, struct orphan, link);

        if (end_engines)
            orphan_end(o);
        else
            orphan_release(o);
    }
    /* A replica leaves the list later, never within these calls. */
    LIST_FOR_EACH(it, &f->replicas)
    {
        struct replica *r = CONTAINER_OF(it, struct replica, link);

        if (end_engines)
            fleet_drop(r);
        else
            replica_release(r);
    }
    fleet_left(f);
}

void fleet_hurry(struct fleet *f)
{
    LIST_FOR_EACH(it, &f->replicas)
    replica_hurry(CONTAINER_OF(it, struct replica, link));
    LIST_FOR_EACH(it, &f->orphans)
    {
        struct orphan *o = CONTAINER_OF(it, struct orphan, link);

        if (o->child && !child_running(o->child))
            child_kill(o->child);
    }
}
