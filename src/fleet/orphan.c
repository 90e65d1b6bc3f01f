/*
 * orphan - engines that an earlier manager left running, until somebody asks
 * for their replica or they are ended.
 *
 *   row in the store ─▶ same pid, same start time, same user? ─▶ orphan with its process
 *                            │ no
 *                            └▶ kill what is left of its group ─▶ orphan with a slot only
 *
 * The slot is kept in both cases: the gateway's counters of that name stand there.
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

    if (store_engine_delete(o->fleet->store, o->replica, &err) != 0)
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

/*
 * The leader died while no manager watched.  Its group's number cannot be a
 * new process's while a member lives; but the group may be another's that came
 * and lost its leader too, so only those that write to this engine's log go.
 */
static void kill_remains(const struct store_engine *e)
{
    struct proc p;
    pid_t pids[64];

    if (e->pid <= 1 || (proc_read((pid_t)e->pid, &p) && p.state != 'Z'))
        return;
    size_t n = proc_members((pid_t)e->pid, true, pids, COUNT_OF(pids));
    for (size_t i = 0; i < n; i++)
        if (proc_writes_to(pids[i], e->log_file)) {
            log_warn("%s: process %d is left of the engine with pid %d; it is killed", e->replica,
                     (int)pids[i], (int)e->pid);
            kill(pids[i], SIGKILL);
        }
}

static void on_row(const struct store_engine *e, void *arg)
{
    struct fleet *f = arg;
    struct orphan *o = NEW(struct orphan);

    o->fleet = f;
    o->replica = str_dup(e->replica);
    o->address = str_dup(e->address);
    o->command = str_dup(e->command);
    o->slot = fleet_slot_take(f, e->slot);
    o->child = child_adopt(f->loop, (pid_t)e->pid, e->start_time);
    if (o->child) {
        child_watch(o->child, on_exit_kept, o);
        log_info("%s: engine found running with pid %d", e->replica, (int)e->pid);
    } else {
        kill_remains(e);
    }
    list_append(&f->orphans, &o->link);
    f->members++;
}

int fleet_adopt(struct fleet *f, struct err *err)
{
    return store_engines(f->store, on_row, f, err);
}

void fleet_adopt_end(struct fleet *f)
{
    LIST_FOR_EACH_SAFE(it, &f->orphans)
    {
        struct orphan *o = CONTAINER_OF(it, struct orphan, link);

        if (o->child)
            log_info("%s: nobody asks for this engine any more; it is ended", o->replica);
        orphan_end(o);
    }
}
