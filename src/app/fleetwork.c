/*
 * fleetwork - makes the engines and the gateway's table follow the models.
 *
 *   a replica's state changes ─┐
 *   a rollout moves            ├─▶ manager_soon ─▶ reconcile (add, drop) ─▶ table, if new
 *   a route changes            ┘
 */
#include <stdlib.h>
#include <string.h>

#include "app/internal.h"
#include "app/routes.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

/* How long we wait until something that could not be started at all is tried again, and until
 * an engine that serves and was given up is. */
enum { TRY_AGAIN_S = 10, REVIVE_S = 30 };

/* --- counters ----------------------------------------------------------------------------- */

struct tally fleetwork_slot_tally(const struct manager *m, int slot)
{
    struct replica_counters c = {0};

    if (m->link && slot >= 0)
        gateway_link_replica(m->link, slot, &c);
    return (struct tally){
        .started = c.started,
        .pinned = c.pinned,
        .finished = c.finished,
        .failed = c.failed,
        .truncated = c.truncated,
        .cancelled = c.cancelled,
        .retried = c.retried,
        .tokens = c.tokens,
        .in_flight = c.in_flight,
        .last_start_ns = c.last_start_ns,
    };
}

static struct tally member_tally(const struct manager *m, const struct member *member)
{
    struct tally now = fleetwork_slot_tally(m, replica_slot(member->replica));

    return tally_since(&member->base, &now);
}

struct tally fleetwork_version_tally(const struct manager *m, const struct version *v)
{
    struct tally sum = v->gone;

    for (size_t i = 0; i < v->nmembers; i++) {
        struct tally t = member_tally(m, &v->members[i]);
        tally_add(&sum, &t);
    }
    return sum;
}

struct tally fleetwork_model_tally(const struct manager *m, const struct model *model)
{
    struct tally sum = model->gone;

    for (size_t i = 0; i < model->nversions; i++) {
        struct tally t = fleetwork_version_tally(m, model->versions[i]);
        tally_add(&sum, &t);
    }
    return sum;
}

/* --- replicas ----------------------------------------------------------------------------- */

static struct version *owner_of(struct manager *m, const struct replica *r, struct member **member)
{
    for (size_t i = 0; i < m->nmodels; i++)
        for (size_t k = 0; k < m->models[i]->nversions; k++) {
            struct version *v = m->models[i]->versions[k];

            *member = version_member(v, r);
            if (*member)
                return v;
        }
    return NULL;
}

static void on_state(struct replica *r, bool gone, void *arg)
{
    struct manager *m = arg;
    struct member *member;
    struct version *v = owner_of(m, r, &member);

    if (!v)
        return;
    if (gone) {
        struct tally last = member_tally(m, member);

        last.in_flight = 0; /* what was open ended with the process */
        tally_add(&v->gone, &last);
        version_remove_member(v, member);
    } else {
        member->trusted &= member_serves(member) && replica_state(r) != REPLICA_READY;
        if (replica_state(r) == REPLICA_FAILED)
            member->failed_ns = clock_ns();
        if (replica_state(r) == REPLICA_READY)
            version_trouble(v, NULL, 0);
    }
    manager_soon(m);
}

/* A restart takes the file that is there now: is it still the one that was deployed? */
static int may_start(struct replica *r, void *arg, struct err *err)
{
    struct member *member;
    struct version *v = owner_of(arg, r, &member);

    return v ? version_check_file(v, err) : 0; /* no owner yet: add_missing() has looked */
}

const struct fleet_events *fleetwork_events(void)
{
    static const struct fleet_events events = {.on_state = on_state, .may_start = may_start};

    return &events;
}

/* A start that a rollout waits for is tried once; one that the route needs, again and again. */
static bool is_trial(const struct version *v)
{
    return v == model_target(v->model) && v != v->model->serving;
}

static void add_missing(struct manager *m, struct version *v)
{
    for (unsigned i = 0; i < v->spec.replicas; i++) {
        struct err err;

        if (version_member_at(v, i))
            continue; /* there, or being ended: then it is added when that is over */
        struct replica *r = NULL;
        if (v->found || version_check_file(v, &err) == 0)
            r = fleet_add(m->fleet, v->model->config, &v->spec, i, is_trial(v), &err);
        if (!r) {
            log_error("%s@%s#%u cannot be started: %s", v->model->config->name, v->spec.name, i,
                      err.text);
            version_trouble(v, err.text, clock_ns());
            manager_again(m, TRY_AGAIN_S * 1000);
            return;
        }
        /* One that was adopted goes on counting where it was. */
        struct tally base = {0};
        if (!m->adopting)
            base = fleetwork_slot_tally(m, replica_slot(r));
        if (m->link)
            account_assign(m->account, gateway_link_rows(m->link), gateway_link_workers(m->link),
                           (unsigned)replica_slot(r), v->model->config->name, v->spec.name,
                           m->adopting);
        struct member *member = version_add_member(v, r, i, &base);
        member->trusted =
            v->found && m->gateway_adopted && (v == v->model->serving || v == v->model->previous);
    }
}

void fleetwork_adopt(struct manager *m)
{
    m->adopting = true;
    for (size_t i = 0; i < m->nmodels; i++)
        for (size_t k = 0; k < m->models[i]->nversions; k++) {
            struct version *v = m->models[i]->versions[k];

            if (v->found || version_should_run(v))
                add_missing(m, v);
            v->found = false;
        }
    m->adopting = false;
}

static void drop_all(struct version *v)
{
    for (size_t i = v->nmembers; i-- > 0;)
        fleet_drop(v->members[i].replica);
}

/* A version that nothing wants ends when its exchanges have, or the time for that is over.
 * True if it has to be waited for. */
static bool retire(struct manager *m, struct version *v)
{
    uint64_t now = clock_ns(), drain_ns = v->model->config->update.drain_ms * 1000000;
    struct tally t = fleetwork_version_tally(m, v);

    if (!v->nmembers)
        return false;
    if (!v->retired_ns)
        v->retired_ns = now;
    if (t.in_flight && now - v->retired_ns < drain_ns)
        return true;
    drop_all(v);
    return false;
}

static bool may_try(const struct version *v)
{
    return !v->trouble || (!is_trial(v) && clock_ns() - v->trouble_ns >=
                                               (uint64_t)TRY_AGAIN_S * 1000000000 - 1000000);
}

bool fleetwork_revive(struct manager *m, struct version *v, bool now)
{
    bool any = false;

    for (size_t i = v->nmembers; i-- > 0;) {
        const struct member *member = &v->members[i];
        uint64_t passed_ms = (clock_ns() - member->failed_ns) / 1000000;

        if (replica_state(member->replica) != REPLICA_FAILED)
            continue;
        if (now || passed_ms >= REVIVE_S * 1000) {
            any = true;
            fleet_drop(member->replica); /* when it is gone, it is missing, and added */
        } else {
            manager_again(m, REVIVE_S * 1000 - passed_ms);
        }
    }
    return any;
}

bool fleetwork_reconcile(struct manager *m)
{
    bool waits = false;

    for (size_t i = 0; i < m->nmodels; i++) {
        struct model *model = m->models[i];

        for (size_t k = model->nversions; k-- > 0;) {
            struct version *v = model->versions[k];

            if (version_may_stay(v))
                v->retired_ns = 0;
            else
                waits |= retire(m, v);
            if (v == model->serving)
                fleetwork_revive(m, v, false);
            if (version_should_run(v) && may_try(v)) {
                version_trouble(v, NULL, 0);
                add_missing(m, v);
            }
            if (v->doomed && !v->nmembers)
                model_forget(model, v);
        }
    }
    return waits;
}

/* --- the table ---------------------------------------------------------------------------- */

/* A replica is ready, or may be soon. */
static bool expected(const struct version *v)
{
    return version_count(v, IN_STATE(READY) | IN_STATE(STARTING) | IN_STATE(ASKING) |
                                IN_STATE(DOWN)) > 0;
}

/* Those that have an address: one that waits for its start has none yet. */
static struct route_replica *route_replicas(const struct version *v, size_t *n)
{
    struct route_replica *out = mem_zero((v->nmembers + 1) * sizeof(*out));

    *n = 0;
    for (size_t i = 0; i < v->nmembers; i++) {
        const struct replica *r = v->members[i].replica;

        if (!*replica_address(r))
            continue;
        out[(*n)++] = (struct route_replica){
            .slot = replica_slot(r),
            .name = replica_name(r),
            .address = replica_address(r),
            .prefix = replica_prefix(r),
            .serve_as = replica_serve_as(r),
            .ready = member_serves(&v->members[i]),
        };
    }
    return out;
}

static void route_model_fill(const struct manager *m, const struct model *model,
                             struct route_model *out)
{
    struct route_version *versions = mem_zero((model->nversions + 1) * sizeof(*versions));

    for (size_t i = 0; i < model->nversions; i++) {
        const struct version *v = model->versions[i];

        versions[i] = (struct route_version){
            .name = v->spec.name,
            .weight = v == model->serving,
        };
        versions[i].replicas = route_replicas(v, &versions[i].nreplicas);
    }
    *out = (struct route_model){
        .config = model->config,
        .expected = expected(model->serving),
        .created = m->since_ms / 1000,
        .versions = versions,
        .nversions = model->nversions,
    };
}

static void route_model_free(struct route_model *r)
{
    for (size_t k = 0; k < r->nversions; k++)
        free((void *)r->versions[k].replicas);
    free((void *)r->versions);
}

/* Appends the model's part of the table if it says anything new. */
static void add_changed(const struct manager *m, struct model *model, json_t *changed)
{
    struct route_model route;
    struct buf text = {0};

    route_model_fill(m, model, &route);
    routes_text(&route, &text);
    if (!model->told || strcmp(model->told, buf_cstr(&text)) != 0) {
        json_array_append_new(changed, routes_model(&route));
        free(model->told);
        model->told = buf_take(&text);
    }
    buf_fini(&text);
    route_model_free(&route);
}

static void on_acked(const struct gateway_ack *ack, void *arg)
{
    owner_acked(arg, ack);
    apikeys_acked(arg, ack->epoch);
}

uint64_t fleetwork_next_epoch(struct manager *m)
{
    return ++m->epoch;
}

static void publish(struct manager *m, json_t *changed, uint64_t epoch)
{
    if (!m->link) {
        json_decref(changed);
        return;
    }
    json_t *table = routes_table(m->config, changed, epoch);
    if (m->keys_changed)
        json_object_set_new(table, "keys", apikeys_table(m));
    m->keys_changed = false;
    gateway_link_publish(m->link, table, on_acked, m);
}

void fleetwork_publish_route(struct manager *m, struct model *model, uint64_t epoch)
{
    json_t *changed = json_array();

    add_changed(m, model, changed);
    publish(m, changed, epoch);
}

void fleetwork_publish(struct manager *m)
{
    json_t *changed = json_array();

    for (size_t i = 0; i < m->nmodels; i++)
        add_changed(m, m->models[i], changed);
    if (json_array_size(changed) == 0 && !m->keys_changed)
        json_decref(changed);
    else
        publish(m, changed, ++m->epoch);
}
