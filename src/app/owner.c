/*
 * owner - does what rollouts decide: records, reads files, asks for replicas,
 * publishes routes; tells those who wait; writes the receipt at the end.
 *
 * A rollout that has ended is taken off its model at once and freed in the next
 * round of the loop (owner_finish), when nobody stands in its functions.
 */
#include <stdlib.h>
#include <string.h>

#include "app/internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "rollout/text.h"

/* Details (how many requests are left) are told this often at most. */
static const uint64_t SAY_EVERY_NS = 200 * 1000 * 1000;

struct rollout_limits owner_limits(const struct model *model)
{
    const struct config_update *u = &model->config->update;

    return (struct rollout_limits){
        .drain_ns = u->drain_ms * 1000000,
        .settle_requests = u->settle_requests,
        .settle_ns = u->settle_ms * 1000000,
        .settle_failures = u->settle_failures,
    };
}

static struct model *model_of(const struct manager *m, const struct rollout *r)
{
    struct model *model = manager_model(m, rollout_model(r));

    ALWAYS(model);
    return model;
}

/* --- ops: recording ----------------------------------------------------------------------- */

static json_t *step_facts(const struct rollout *r, const struct version *target,
                          enum rollout_state next, const char *reason)
{
    json_t *facts = json_object();

    if (reason && *reason)
        json_object_set_new(facts, "reason", text_json(reason));
    if (next == ROLLOUT_STARTING && target && target->fresh)
        json_object_set_new(facts, "new_version", json_true());
    if (next == ROLLOUT_DRAINING) {
        const struct receipt *receipt = rollout_receipt(r);

        json_object_set_new(facts, "epoch", json_integer((json_int_t)receipt->epoch));
        json_object_set_new(facts, "switch_us",
                            json_integer((json_int_t)receipt_switch_us(receipt)));
    }
    return facts;
}

static int record_begin(struct manager *m, struct rollout *r, struct err *err)
{
    int64_t id;

    if (store_rollout_begin(m->store, rollout_model(r), rollout_from(r), rollout_to(r),
                            rollout_kind_name(rollout_kind(r)), &id, err) != 0)
        return -1;
    rollout_set_id(r, id);
    return 0;
}

static int record_step(struct manager *m, const struct rollout *r, enum rollout_state next,
                       const char *reason, struct err *err)
{
    json_t *facts = step_facts(r, model_target(model_of(m, r)), next, reason);
    int result = store_rollout_step(m->store, rollout_id(r), rollout_state_name(next),
                                    json_object_size(facts) ? facts : NULL, err);

    json_decref(facts);
    return result;
}

/* Which versions serve and stand by when `next` is entered. */
static void route_after(const struct rollout *r, enum rollout_state next, const char **serving,
                        const char **previous)
{
    bool back = next == ROLLOUT_ROLLING_BACK;

    *serving = back ? rollout_from(r) : rollout_to(r);
    *previous = back ? rollout_from_previous(r) : rollout_from(r);
}

static int record_route(struct manager *m, const struct rollout *r, enum rollout_state next,
                        struct err *err)
{
    struct model *model = model_of(m, r);
    const char *serving, *previous;

    route_after(r, next, &serving, &previous);
    model->next_epoch = fleetwork_next_epoch(m);
    return store_route_put(m->store, rollout_model(r), serving, previous, model->next_epoch, err);
}

/* One transaction, since a switch waits for it. */
static int on_record(struct rollout *r, enum rollout_state next, const char *reason, void *arg,
                     struct err *err)
{
    struct manager *m = arg;
    bool first = !rollout_id(r);

    model_of(m, r)->next_epoch = 0;
    if (store_group_begin(m->store, err) != 0)
        return -1;
    int result = 0;
    if (first)
        result = record_begin(m, r, err);
    if (result == 0)
        result = record_step(m, r, next, reason, err);
    if (result == 0 && (next == ROLLOUT_SWITCHING || next == ROLLOUT_ROLLING_BACK))
        result = record_route(m, r, next, err);
    result = store_group_end(m->store, result, err);
    if (result == 0 && first)
        operation_begin(admin_operations(m->admin), rollout_id(r),
                        rollout_kind_name(rollout_kind(r)), rollout_model(r), rollout_to(r));
    return result;
}

/* --- ops: the file ------------------------------------------------------------------------ */

static void check_run(uv_work_t *work)
{
    struct check_job *job = work->data;

    job->failed = fingerprint_read(job->path, &job->result, &job->stop, &job->err);
}

/* What was read, against what was deployed under this name before. */
static const char *check_verdict(struct check_job *job, struct version *v)
{
    if (job->failed)
        return job->err.text;
    if (v->checked && strcmp(v->file.sha256, job->result.sha256) != 0) {
        err_set(&job->err, 409,
                "%s is not the file that was deployed as %s@%s before (sha256 %.12s..., now "
                "%.12s...); deploy it as a new version",
                job->path, job->model, v->spec.name, v->file.sha256, job->result.sha256);
        return job->err.text;
    }
    v->file = job->result;
    v->checked = true;
    return NULL;
}

static void check_free(struct check_job *job)
{
    list_remove(&job->link);
    free(job->model);
    free(job->version);
    free(job->path);
    free(job);
}

static void check_done(uv_work_t *work, int status)
{
    struct check_job *job = work->data;
    struct manager *m = job->manager;
    struct model *model = manager_model(m, job->model);
    struct version *v = model_version(model, job->version);

    if (v && job->rollout && model->rollout && rollout_id(model->rollout) == job->rollout) {
        rollout_checked(model->rollout, check_verdict(job, v));
    } else if (v && !job->rollout && !v->checked && !job->failed) {
        v->file = job->result;
        v->checked = true;
    }
    check_free(job);
    if (m->state == MANAGER_RUNNING) {
        owner_read_files(m);
        manager_soon(m);
    }
}

static void check_start(struct manager *m, const struct version *v, int64_t rollout)
{
    struct check_job *job = NEW(struct check_job);

    job->manager = m;
    job->work.data = job;
    job->model = str_dup(v->model->config->name);
    job->version = str_dup(v->spec.name);
    job->rollout = rollout;
    job->path = str_dup(v->spec.path);
    list_append(&m->checks, &job->link);
    ALWAYS(uv_queue_work(&m->loop, &job->work, check_run, check_done) == 0);
}

static int on_check(struct rollout *r, void *arg, struct err *err)
{
    struct manager *m = arg;

    check_start(m, model_target(model_of(m, r)), rollout_id(r));
    return 0;
}

void owner_read_files(struct manager *m)
{
    for (size_t i = 0; i < m->nmodels && list_empty(&m->checks); i++)
        for (size_t k = 0; k < m->models[i]->nversions && list_empty(&m->checks); k++) {
            struct version *v = m->models[i]->versions[k];

            if (v->looked_at || v->checked || !v->spec.path || v->fresh)
                continue;
            v->looked_at = true;
            check_start(m, v, 0);
        }
}

/* --- ops: replicas and routes ------------------------------------------------------------- */

/* Written down before the first process is there, so that the next manager knows it. */
static int store_target(struct manager *m, struct version *v, struct err *err)
{
    char text[FINGERPRINT_TEXT_MAX];

    if (!v->stored)
        return 0;
    fingerprint_text(&v->file, text);
    return store_version_put(m->store, v->model->config->name, &v->spec, v->checked ? text : NULL,
                             err);
}

static int on_start(struct rollout *r, void *arg, struct err *err)
{
    struct manager *m = arg;
    struct version *v = model_target(model_of(m, r));

    if (store_target(m, v, err) != 0)
        return -1;
    version_trouble(v, NULL, 0);
    /* Replicas that have given up begin anew. */
    for (size_t i = v->nmembers; config_engine_managed(v->spec.engine) && i-- > 0;) {
        enum replica_state s = replica_state(v->members[i].replica);

        if (s == REPLICA_FAILED || s == REPLICA_DOWN)
            fleet_drop(v->members[i].replica);
    }
    manager_soon(m);
    return 0;
}

static void on_route(struct rollout *r, const char *version, uint64_t *epoch, void *arg)
{
    struct manager *m = arg;
    struct model *model = model_of(m, r);
    const char *serving, *previous;

    route_after(r, rollout_state(r), &serving, &previous);
    /* That of the record; a way back is published even if it could not be recorded. */
    *epoch = model->next_epoch ? model->next_epoch : fleetwork_next_epoch(m);
    model->serving = model_version(model, serving);
    model->previous = previous ? model_version(model, previous) : NULL;
    model->keep_spare =
        model->config->update.spare_running && model->previous && model->previous->nmembers > 0;
    model->epoch = *epoch;
    fleetwork_publish_route(m, model, *epoch);
}

/* --- ops: looking ------------------------------------------------------------------------- */

static void on_read(const struct rollout *r, struct receipt_reading *out, void *arg)
{
    struct manager *m = arg;
    const struct model *model = model_of(m, r);
    const struct version *from = model_version(model, rollout_from(r));
    const struct version *to = model_version(model, rollout_to(r));
    struct gateway_counters gateway = {0};

    *out = (struct receipt_reading){.model = fleetwork_model_tally(m, model)};
    if (from)
        out->from = fleetwork_version_tally(m, from);
    if (to)
        out->to = fleetwork_version_tally(m, to);
    if (m->link)
        gateway_link_counters(m->link, &gateway);
    out->held = gateway.held_total;
    out->hold_expired = gateway.hold_expired;
}

static uint64_t on_now(void *arg)
{
    return clock_ns();
}

static struct rollout_facts facts_of(const struct manager *m, const struct model *model)
{
    const struct version *to = model_target(model);
    const struct version *from = model_version(model, rollout_from(model->rollout));
    struct rollout_facts f = {.dead_reason = ""};

    if (to) {
        f.wanted = to->spec.replicas;
        f.healthy = version_count(to, IN_STATE(ASKING) | IN_STATE(READY));
        f.ready = version_count(to, IN_STATE(READY));
        f.dead = version_count(to, IN_STATE(DOWN) | IN_STATE(FAILED)) + (to->trouble != NULL);
        f.dead_reason = version_reason(to);
    }
    f.old_ready = from && version_count(from, IN_STATE(READY)) > 0;
    on_read(model->rollout, &f.reading, (void *)m);
    return f;
}

/* What a person wants to know besides the state. */
static char *detail_of(const struct rollout *r, const struct rollout_facts *f)
{
    struct tally since = tally_since(&rollout_receipt(r)->ack.to, &f->reading.to);

    switch (rollout_state(r)) {
    case ROLLOUT_STARTING:
        return str_fmt("%u of %u replicas healthy", f->healthy, f->wanted);
    case ROLLOUT_WARMING:
        return str_fmt("%u of %u replicas answered the known question", f->ready, f->wanted);
    case ROLLOUT_DRAINING:
        return str_fmt("%llu requests left on %s", (unsigned long long)f->reading.from.in_flight,
                       rollout_from(r));
    case ROLLOUT_SETTLING:
        return str_fmt("%llu answers of %s, %llu failed", (unsigned long long)tally_ended(&since),
                       rollout_to(r), (unsigned long long)(since.failed + since.truncated));
    default:
        return str_dup(rollout_reason(r));
    }
}

static void say_progress(struct manager *m, struct model *model, const struct rollout_facts *f)
{
    char *detail = detail_of(model->rollout, f);

    operation_progress(admin_operations(m->admin), rollout_id(model->rollout),
                       rollout_state_name(rollout_state(model->rollout)), detail);
    model->said_ns = clock_ns();
    free(detail);
}

bool owner_look(struct manager *m)
{
    bool any = false;

    for (size_t i = 0; i < m->nmodels; i++) {
        struct model *model = m->models[i];

        if (!model->rollout)
            continue;
        struct rollout_facts f = facts_of(m, model);
        rollout_look(model->rollout, &f);
        if (!model->rollout)
            continue;
        any = true;
        if (clock_ns() - model->said_ns >= SAY_EVERY_NS) {
            f = facts_of(m, model);
            say_progress(m, model, &f);
        }
    }
    return any;
}

void owner_acked(struct manager *m, const struct gateway_ack *ack)
{
    if (ack->epoch > m->acked)
        m->acked = ack->epoch;
    for (size_t i = 0; i < m->nmodels; i++)
        if (m->models[i]->rollout)
            rollout_acked(m->models[i]->rollout, ack->epoch, ack->acked_ns);
    manager_after_answers(m);
}

/* --- ops: moved --------------------------------------------------------------------------- */

int64_t owner_next_receipt(const struct manager *m)
{
    size_t under_way = 0;
    int64_t number = m->receipts + 1;

    for (size_t i = 0; i < m->nmodels; i++)
        under_way += m->models[i]->rollout != NULL;
    LIST_FOR_EACH(it, &m->ended)
    number++;
    return under_way <= 1 ? number : 0;
}

/* The answer to `switch` or `rollback`, when it has happened or cannot. */
static void answer_waiting(struct manager *m, struct model *model, const struct rollout *r)
{
    struct admin_call *call = model->waiting;
    const struct receipt *receipt = rollout_receipt(r);
    struct err err;

    model->waiting = NULL;
    if (rollout_state(r) == ROLLOUT_DRAINING) {
        admin_reply(
            call, 200,
            json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "model", rollout_model(r), "from",
                      rollout_from(r), "to", rollout_to(r), "epoch", (json_int_t)receipt->epoch,
                      "switch_us", (json_int_t)receipt_switch_us(receipt), "receipt",
                      (json_int_t)owner_next_receipt(m), "rollout", (json_int_t)rollout_id(r)));
        return;
    }
    err_set(&err, 500, "the %s of %s to %s is %s: %s", rollout_kind_name(rollout_kind(r)),
            rollout_model(r), rollout_to(r), rollout_state_name(rollout_state(r)),
            rollout_reason(r));
    admin_fail(call, &err);
}

static void forget_fresh(struct manager *m, struct version *v)
{
    struct err err;

    v->fresh = false;
    v->doomed = true;
    if (store_version_delete(m->store, v->model->config->name, v->spec.name, &err) != 0)
        log_error("%s", err.text);
}

static const char *sha256_of(const struct version *v)
{
    return v && v->checked ? v->file.sha256 : NULL;
}

static void take_off(struct manager *m, struct model *model, struct rollout *r)
{
    struct version *to = model_version(model, rollout_to(r));
    struct ended *e = NEW(struct ended);
    json_t *gateway = m->link ? gateway_link_json(m->link) : NULL;

    rollout_receipt_facts(r, (unsigned)json_integer_value(json_object_get(gateway, "workers")),
                          sha256_of(model_version(model, rollout_from(r))), sha256_of(to));
    json_decref(gateway);
    if (to && to->fresh && rollout_state(r) == ROLLOUT_FAILED)
        forget_fresh(m, to);
    else if (to)
        to->fresh = false;
    model->results[rollout_kind(r)][rollout_state(r)]++;
    e->rollout = r;
    list_append(&m->ended, &e->link);
    model->rollout = NULL;
}

static void log_move(const struct rollout *r)
{
    const char *reason = rollout_reason(r);
    bool bad = rollout_state(r) == ROLLOUT_FAILED || rollout_state(r) == ROLLOUT_ROLLING_BACK;

    log_line(bad ? LOG_WARN : LOG_INFO, "%s: %s %s -> %s is %s%s%s", rollout_model(r),
             rollout_kind_name(rollout_kind(r)), rollout_from(r), rollout_to(r),
             rollout_state_name(rollout_state(r)), *reason ? ": " : "", reason);
}

static void on_moved(struct rollout *r, void *arg)
{
    struct manager *m = arg;
    struct model *model = model_of(m, r);
    enum rollout_state s = rollout_state(r);

    if (model->waiting && (s == ROLLOUT_DRAINING || s == ROLLOUT_ROLLING_BACK || rollout_ended(r)))
        answer_waiting(m, model, r);
    log_move(r);
    if (rollout_ended(r)) {
        take_off(m, model, r);
    } else {
        struct rollout_facts f = facts_of(m, model);
        say_progress(m, model, &f);
    }
    if (s == ROLLOUT_DRAINING)
        manager_after_answers(m);
    else
        manager_soon(m);
}

static const struct rollout_ops ops = {
    .record = on_record,
    .check = on_check,
    .start = on_start,
    .route = on_route,
    .read = on_read,
    .now = on_now,
    .moved = on_moved,
};

/* --- beginning and ending ----------------------------------------------------------------- */

struct rollout *owner_rollout(struct manager *m, const struct rollout_want *want)
{
    return rollout_new(want, &ops, m);
}

int owner_begin(struct manager *m, struct model *model, const struct rollout_want *want,
                enum rollout_state first, struct err *err)
{
    ALWAYS(!model->rollout);
    struct rollout *r = owner_rollout(m, want);

    model->rollout = r;
    if (rollout_begin(r, first, err) == 0)
        return 0;
    model->rollout = NULL;
    rollout_free(r);
    return -1;
}

static void finish_one(struct manager *m, const struct rollout *r)
{
    json_t *receipt = receipt_json(rollout_receipt(r));
    const char *error = rollout_state(r) == ROLLOUT_DONE ? NULL : rollout_reason(r);
    int64_t number;
    struct err err;

    if (store_receipt_put(m->store, rollout_model(r), receipt, &number, &err) == 0) {
        m->receipts = number;
        json_t *kept = store_receipt_get(m->store, rollout_model(r), number, &err);
        if (kept) {
            json_decref(receipt);
            receipt = kept;
        }
    } else {
        log_error("%s", err.text);
    }
    operation_end(admin_operations(m->admin), rollout_id(r), rollout_state_name(rollout_state(r)),
                  error, receipt);
    json_decref(receipt);
}

void owner_finish(struct manager *m)
{
    LIST_FOR_EACH_SAFE(it, &m->ended)
    {
        struct ended *e = CONTAINER_OF(it, struct ended, link);

        finish_one(m, e->rollout);
        list_remove(&e->link);
        rollout_free(e->rollout);
        free(e);
    }
}

void owner_abandon(struct manager *m)
{
    struct err err;

    owner_finish(m);
    LIST_FOR_EACH(it, &m->checks)
    atomic_store(&CONTAINER_OF(it, struct check_job, link)->stop, true);
    err_set(&err, 503, "the manager is stopping");
    for (size_t i = 0; i < m->nmodels; i++) {
        struct model *model = m->models[i];

        if (model->waiting)
            admin_fail(model->waiting, &err);
        model->waiting = NULL;
    }
    operations_end_all(admin_operations(m->admin), err.text);
}
