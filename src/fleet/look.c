/*
 * look - how the fleet finds out whether an engine can be used.
 *
 *   timer ─▶ probe that fits the state ─▶ verdict ─▶ move, or look again later
 *
 *   STARTING  /health, soon again, until it is good or the start has taken too long
 *   ASKING    /v1/models where the engine has a list, then the known question
 *   READY     /health each second; three misses in a row are too many
 *   DOWN      the same; two good ones in a row lead back to the known question
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "fleet/adapter.h"
#include "fleet/internal.h"
#include "fleet/proc.h"

enum {
    LOOK_MOST_MS = 250, /* STARTING: longest wait between two looks */
    LIST_LOOKS = 5      /* /v1/models may take so many times as long as /health */
};

static void look_again(struct replica *r, uint64_t after_ms)
{
    uv_timer_start(&r->timer, replica_on_timer, after_ms, 0);
}

/* One interval after the last look began, so that an engine that is silent until
 * the time is up is found out no later than one that refuses at once. */
static void look_in_step(struct replica *r)
{
    uint64_t took_ms = (clock_ns() - r->look_ns) / 1000000, every_ms = r->fleet->times.look_ms;

    look_again(r, took_ms < every_ms ? every_ms - took_ms : 0);
}

static void begin_asking(struct replica *r)
{
    r->asking = adapter_of(&r->version)->lists_models ? PROBE_MODELS : PROBE_QUESTION;
    r->misses = 0;
    if (r->state == REPLICA_DOWN)
        r->deadline_ns = clock_ns() + r->ready.start_timeout_ms * 1000000;
    look_again(r, 0);
    replica_move(r, REPLICA_ASKING);
}

static void missed_deadline(struct replica *r, const char *detail)
{
    char *text = str_fmt("it was not ready within %llu ms (`ready.start_timeout`); last: %s",
                         (unsigned long long)r->ready.start_timeout_ms, detail);

    replica_unfit(r, text);
    free(text);
}

/* Ours not: a port may have been taken between our choice and its bind (FAULTS A10). */
static bool port_is_its_own(struct replica *r, char *why, size_t room)
{
    char who[96];
    const char *port = strrchr(r->address, ':') + 1;

    if (proc_listener((unsigned)atoi(port), child_pid(r->child), who, sizeof(who)) !=
        PROC_LISTENER_STRANGER)
        return true;
    snprintf(why, room, "port %s belongs to %s, not to the engine that was started for it (pid %d)",
             port, who, (int)child_pid(r->child));
    return false;
}

static void on_look_starting(struct replica *r, bool good, const char *text)
{
    char why[256];

    if (good && r->child && adapter_place(&r->version) == ADAPTER_PORT &&
        !port_is_its_own(r, why, sizeof(why))) {
        replica_unfit(r, why);
    } else if (good) {
        begin_asking(r);
    } else if (clock_ns() > r->deadline_ns) {
        missed_deadline(r, text);
    } else if (!replica_managed(r) && !r->first_start && ++r->misses >= LOOK_FALL) {
        replica_go_down(r, text, (int64_t)r->fleet->times.look_ms);
    } else {
        if (!replica_managed(r))
            r->look_ms = r->fleet->times.look_ms;
        look_again(r, r->look_ms);
        r->look_ms += r->look_ms / 2;
        if (r->look_ms > LOOK_MOST_MS)
            r->look_ms = LOOK_MOST_MS;
    }
}

static void become_ready(struct replica *r, const char *answer)
{
    replica_set_text(&r->answer, answer);
    r->ready_ns = r->good_ns = clock_ns();
    r->start_ms = (r->ready_ns - r->spawn_ns) / 1000000;
    r->first_start = false;
    r->misses = 0;
    look_again(r, r->fleet->times.look_ms);
    replica_move(r, REPLICA_READY);
}

static void on_answer(struct replica *r, enum probe_verdict verdict, const char *text)
{
    if (verdict == PROBE_WRONG) {
        replica_unfit(r, text);
    } else if (verdict == PROBE_GOOD && r->asking == PROBE_MODELS) {
        r->asking = PROBE_QUESTION;
        look_again(r, 0);
    } else if (verdict == PROBE_GOOD) {
        become_ready(r, text);
    } else if (clock_ns() > r->deadline_ns) {
        missed_deadline(r, text);
    } else if (!replica_managed(r) && !r->first_start && ++r->misses >= LOOK_FALL) {
        replica_go_down(r, text, (int64_t)r->fleet->times.look_ms);
    } else {
        look_again(r, r->fleet->times.again_ms);
    }
}

static void on_look_ready(struct replica *r, bool good, const char *text)
{
    if (good) {
        r->misses = 0;
    } else if (++r->misses >= LOOK_FALL) {
        char *why =
            str_fmt("%u health checks in a row were not answered well; last: %s", r->misses, text);

        replica_go_down(r, why, (int64_t)r->fleet->times.look_ms);
        free(why);
        return;
    }
    look_in_step(r);
}

static void on_look_down(struct replica *r, bool good)
{
    uint64_t silent_ms = (clock_ns() - r->good_ns) / 1000000;

    r->goods = good ? r->goods + 1 : 0;
    if (r->goods >= LOOK_RISE) {
        begin_asking(r);
    } else if (r->child && silent_ms > r->fleet->times.silent_ms) {
        log_warn("%s: its process (pid %d) lives but has not answered well for %llu ms; it is "
                 "killed and started again",
                 r->name, (int)child_pid(r->child), (unsigned long long)silent_ms);
        child_kill(r->child);
    } else {
        look_in_step(r);
    }
}

static void on_probe(enum probe_verdict verdict, const char *text, void *arg)
{
    struct replica *r = arg;
    bool good = verdict == PROBE_GOOD;

    r->probe = NULL;
    replica_set_text(&r->detail, good ? "" : text);
    if (good)
        r->good_ns = clock_ns();
    switch (r->state) {
    case REPLICA_STARTING:
        on_look_starting(r, good, text);
        break;
    case REPLICA_ASKING:
        on_answer(r, verdict, text);
        break;
    case REPLICA_READY:
        on_look_ready(r, good, text);
        break;
    case REPLICA_DOWN:
        on_look_down(r, good);
        break;
    default:
        ALWAYS(!"a probe of a replica that is not looked at");
    }
}

static void look(struct replica *r)
{
    enum probe_kind kind = r->state == REPLICA_ASKING ? r->asking : PROBE_HEALTH;
    uint64_t timeout = r->fleet->times.look_ms;

    if (kind == PROBE_MODELS)
        timeout *= LIST_LOOKS;
    if (kind == PROBE_QUESTION)
        timeout = r->ready.timeout_ms;
    struct probe_target target = {
        .address = r->address,
        .prefix = r->prefix,
        .serve_as = r->version.served_model_name,
        .health_may_lack = adapter_of(&r->version)->health_may_lack,
        .ready = &r->ready,
        .timeout_ms = timeout,
    };
    r->look_ns = clock_ns();
    r->probe = probe_start(r->fleet->loop, kind, &target, on_probe, r);
}

void replica_on_timer(uv_timer_t *timer)
{
    struct replica *r = timer->data;

    ALWAYS(!r->probe);
    if (r->state == REPLICA_DOWN && replica_managed(r) && !r->child)
        replica_move(r, REPLICA_STARTING); /* and waits for its turn */
    else
        look(r);
}
