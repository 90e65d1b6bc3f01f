/*
 * orphan - engines that an earlier manager left running, until somebody asks
 * for their replica or they are ended.
 *
 *   row in the store ─▶ same pid, same start time, same user? ─▶ orphan with its process
 *                            │ no
 *                            └▶ orphan with a slot only
 *
 *   process that writes into STATE/log, and no row knows it ─▶ ended
 *
 * The slot is kept in both cases: the gateway's counters of that name stand
 * there.  Processes without a row are workers whose engine died, an engine whose
 * manager died between its start and its row, or all of them after the store was
 * lost: none may run beside the engine that will be started in its place.
 */
#include <signal.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/log.h"
#include "fleet/internal.h"
#include "fleet/proc.h"

struct orphan *orphan_find(struct fleet *f, const char *name)
{
    LIST_FOR_EACH(it, &f->orphans)
    {
        struct orphan *o = CONTAINER_OF(it, struct orphan, link);

        if (strcmp(o->replica, name) == 0)
            return o;
    }
    return NULL;
}

static void orphan_free(struct orphan *o)
{
    struct fleet *f = o->fleet;

    list_remove(&o->link);
    free(o->replica);
    free(o->address);
    free(o->command);
    free(o);
    fleet_wake(f);
    fleet_left(f);
}

static void orphan_gone(struct orphan *o)
{
    struct err err;

    /* Without an address there was no row; one by this name would be another's. */
    if (o->address && store_engine_delete(o->fleet->store, o->replica, &err) != 0)
        log_error("%s: %s", o->replica, err.text);
    fleet_slot_put(o->fleet, o->slot);
    orphan_free(o);
}

/* Before anybody asked for it: its slot is kept, there is nothing to adopt. */
static void on_exit_kept(const struct child_exit *exit, void *arg)
{
    struct orphan *o = arg;

    log_warn("%s: process ended before it was adopted", o->replica);
    o->child = NULL;
}

static void on_exit_ended(const struct child_exit *exit, void *arg)
{
    struct orphan *o = arg;

    o->child = NULL;
    log_info("%s: the process of the earlier manager ended", o->replica);
    orphan_gone(o);
}

void orphan_end(struct orphan *o)
{
    if (!o->child) {
        orphan_gone(o);
        return;
    }
    child_watch(o->child, on_exit_ended, o);
    child_end(o->child, o->fleet->times.grace_ms);
}

struct child *orphan_take(struct orphan *o, int *slot)
{
    struct child *child = o->child;

    *slot = o->slot;
    orphan_free(o);
    return child;
}

void orphan_release(struct orphan *o)
{
    if (o->child)
        child_release(o->child);
    orphan_free(o);
}

static struct orphan *orphan_new(struct fleet *f, const char *replica)
{
    struct orphan *o = NEW(struct orphan);

    o->fleet = f;
    o->replica = str_dup(replica);
    o->slot = -1;
    list_append(&f->orphans, &o->link);
    f->members++;
    return o;
}

static void on_row(const struct store_engine *e, void *arg)
{
    struct fleet *f = arg;
    struct orphan *o = orphan_new(f, e->replica);

    o->address = str_dup(e->address);
    o->command = str_dup(e->command);
    o->slot = fleet_slot_take(f, e->slot);
    o->child = child_adopt(f->loop, (pid_t)e->pid, e->start_time);
    if (o->child) {
        child_watch(o->child, on_exit_kept, o);
        log_info("%s: engine found running with pid %d", e->replica, (int)e->pid);
    }
}

static bool leads_an_orphan(struct fleet *f, pid_t session)
{
    LIST_FOR_EACH(it, &f->orphans)
    {
        const struct orphan *o = CONTAINER_OF(it, struct orphan, link);

        if (o->child && child_pid(o->child) == session)
            return true;
    }
    return false;
}

/* "m@v1-0.log" is the log of m@v1#0. */
static bool replica_of_log(char *file)
{
    char *dot = strrchr(file, '.'), *dash = strrchr(file, '-');

    if (!dot || strcmp(dot, ".log") != 0 || !dash || !strchr(file, '@'))
        return false;
    *dot = '\0';
    *dash = '#';
    return true;
}

static void end_unknown(struct fleet *f, struct proc_writer *w)
{
    struct proc p;

    if (!replica_of_log(w->file) || leads_an_orphan(f, w->session) || !proc_read(w->pid, &p))
        return;
    log_warn("%s: process %d runs, and the store does not know it; it is ended", w->file,
             (int)w->pid);
    struct child *child = w->pid == w->session ? child_adopt(f->loop, w->pid, p.start_time) : NULL;
    if (!child) {
        /* Left of an engine that is gone; asking it politely was the engine's affair. */
        kill(w->pid, SIGKILL);
        return;
    }
    struct orphan *o = orphan_new(f, w->file);
    o->child = child;
    orphan_end(o);
}

static void end_all_unknown(struct fleet *f)
{
    struct proc_writer writers[256];
    char *folder = str_fmt("%s/log", f->config->state);
    size_t n = proc_writers(folder, writers, COUNT_OF(writers));

    free(folder);
    /* Leaders first, so that their workers are known as theirs. */
    for (size_t i = 0; i < n; i++)
        if (writers[i].pid == writers[i].session)
            end_unknown(f, &writers[i]);
    for (size_t i = 0; i < n; i++)
        if (writers[i].pid != writers[i].session)
            end_unknown(f, &writers[i]);
}

int fleet_adopt(struct fleet *f, struct err *err)
{
    if (store_engines(f->store, on_row, f, err) != 0)
        return -1;
    end_all_unknown(f);
    return 0;
}

void fleet_adopt_end(struct fleet *f)
{
    LIST_FOR_EACH_SAFE(it, &f->orphans)
    {
        struct orphan *o = CONTAINER_OF(it, struct orphan, link);

        if (o->child && child_running(o->child))
            log_info("%s: nobody asks for this engine any more; it is ended", o->replica);
        orphan_end(o);
    }
}
