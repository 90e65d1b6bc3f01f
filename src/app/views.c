/*
 * views - what runs and what was, as JSON for the admin interface.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "rollout/text.h"

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static json_t *time_text(int64_t wall_ms)
{
    char text[CLOCK_TEXT_MAX];

    clock_text(wall_ms, text);
    return json_string(text);
}

static json_t *tally_json(const struct tally *t)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "started",
                     (json_int_t)t->started, "pinned", (json_int_t)t->pinned, "finished",
                     (json_int_t)t->finished, "failed", (json_int_t)t->failed, "truncated",
                     (json_int_t)t->truncated, "cancelled", (json_int_t)t->cancelled, "retried",
                     (json_int_t)t->retried, "in_flight", (json_int_t)t->in_flight, "tokens",
                     (json_int_t)t->tokens);
}

static uint64_t own_rss(void)
{
    unsigned long long size, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static json_t *gateway_counters_json(const struct manager *m)
{
    struct gateway_counters c = {0};

    if (m->link)
        gateway_link_counters(m->link, &c);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "requests",
                     (json_int_t)c.requests, "rejected", (json_int_t)c.rejected, "answered",
                     (json_int_t)c.answered, "unanswered", (json_int_t)c.unanswered, "errors_4xx",
                     (json_int_t)c.errors_4xx, "errors_5xx", (json_int_t)c.errors_5xx, "refused",
                     (json_int_t)c.refused, "connections", (json_int_t)c.connections, "held",
                     (json_int_t)c.held, "held_total", (json_int_t)c.held_total, "hold_expired",
                     (json_int_t)c.hold_expired);
}

/* --- status ------------------------------------------------------------------------------- */

static json_t *rollout_json(const struct rollout *r)
{
    if (!r)
        return json_null();
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:I, s:o}", "id", (json_int_t)rollout_id(r), "kind",
                     rollout_kind_name(rollout_kind(r)), "state",
                     rollout_state_name(rollout_state(r)), "from", rollout_from(r), "to",
                     rollout_to(r), "state_ms",
                     (json_int_t)((clock_ns() - rollout_since_ns(r)) / 1000000), "reason",
                     text_json(rollout_reason(r)));
}

static json_t *replicas_json(const struct manager *m, const struct version *v)
{
    json_t *list = json_array();

    for (size_t i = 0; i < v->nmembers; i++) {
        struct tally t = fleetwork_slot_tally(m, replica_slot(v->members[i].replica));
        struct tally since = tally_since(&v->members[i].base, &t);
        json_t *replica = replica_json(v->members[i].replica);

        json_object_set_new(replica, "counters", tally_json(&since));
        json_array_append_new(list, replica);
    }
    return list;
}

static json_t *version_status(const struct manager *m, const struct version *v)
{
    struct tally t = fleetwork_version_tally(m, v);

    return json_pack("{s:s, s:s, s:o, s:s, s:f, s:o, s:o, s:o}", "name", v->spec.name, "engine",
                     config_engine_name(v->spec.engine), "source",
                     text_json(v->spec.path ? v->spec.path : v->spec.url), "state",
                     version_state(v), "share", v == v->model->serving ? 1.0 : 0.0, "reason",
                     text_json(version_reason(v)), "replicas", replicas_json(m, v), "counters",
                     tally_json(&t));
}

static json_t *model_status(const struct manager *m, const struct model *model)
{
    json_t *versions = json_array();
    struct tally t = fleetwork_model_tally(m, model);

    for (size_t i = 0; i < model->nversions; i++)
        json_array_append_new(versions, version_status(m, model->versions[i]));
    return json_pack(
        "{s:s, s:s, s:s?, s:I, s:b, s:o, s:o, s:o}", "name", model->config->name, "serving",
        model->serving->spec.name, "previous", model->previous ? model->previous->spec.name : NULL,
        "epoch", (json_int_t)model->epoch, "ready",
        version_count(model->serving, IN_STATE(READY)) > 0, "rollout", rollout_json(model->rollout),
        "counters", tally_json(&t), "versions", versions);
}

static const char *state_name(enum manager_state s)
{
    static const char *const names[] = {
#define X(id, name, note) name,
        MANAGER_STATES(X)
#undef X
    };

    return names[s];
}

json_t *views_status(void *arg)
{
    const struct manager *m = arg;
    json_t *models = json_array();

    for (size_t i = 0; i < m->nmodels; i++)
        json_array_append_new(models, model_status(m, m->models[i]));
    return json_pack("{s:s, s:i, s:s, s:o, s:o, s:o, s:I, s:I, s:s, s:o, s:o, s:o}", "version",
                     SEGUE_VERSION, "pid", (int)getpid(), "state", state_name(m->state), "since",
                     time_text(m->since_ms), "at", time_text(clock_wall_ms()), "rss_bytes",
                     number(own_rss()), "epoch", (json_int_t)m->epoch, "acknowledged",
                     (json_int_t)m->acked, "config", m->config->file, "gateway",
                     m->link ? gateway_link_json(m->link) : json_null(), "counters",
                     gateway_counters_json(m), "models", models);
}

json_t *views_health(void *arg)
{
    const struct manager *m = arg;
    json_t *models = json_object();

    for (size_t i = 0; i < m->nmodels; i++)
        json_object_set_new(models, m->models[i]->config->name,
                            json_string(version_state(m->models[i]->serving)));
    return json_pack("{s:s, s:o}", "status",
                     m->state == MANAGER_RUNNING ? "ok" : state_name(m->state), "models", models);
}

/* --- lists -------------------------------------------------------------------------------- */

static int known_model(const struct manager *m, const char *name, struct err *err)
{
    if (!name || manager_model(m, name))
        return 0;
    return err_set(err, 404, "there is no model '%.64s'", name);
}

static json_t *version_row(const struct version *v)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:s, s:f, s:b}", "model",
                     v->model->config->name, "name", v->spec.name, "engine",
                     config_engine_name(v->spec.engine), v->spec.url ? "url" : "path",
                     v->spec.url ? v->spec.url : "", "sha256",
                     v->checked ? json_string(v->file.sha256) : json_null(), "size",
                     v->checked ? number(v->file.size) : json_null(), "state", version_state(v),
                     "share", v == v->model->serving ? 1.0 : 0.0, "deployed", v->stored);
}

json_t *views_versions(const char *model, void *arg, struct err *err)
{
    const struct manager *m = arg;
    json_t *list = json_array();

    if (known_model(m, model, err) != 0) {
        json_decref(list);
        return NULL;
    }
    for (size_t i = 0; i < m->nmodels; i++)
        for (size_t k = 0; k < m->models[i]->nversions; k++) {
            const struct version *v = m->models[i]->versions[k];

            if (model && strcmp(model, m->models[i]->config->name) != 0)
                continue;
            json_t *row = version_row(v);
            if (v->spec.path) /* a path need not be UTF-8 */
                json_object_set_new(row, "path", text_json(v->spec.path));
            json_array_append_new(list, row);
        }
    return json_pack("{s:o}", "versions", list);
}

/* The receipt of an update that has switched but is not over: with the counts of this moment. */
static json_t *receipt_under_way(struct manager *m, const char *model, int64_t wanted)
{
    int64_t next = owner_next_receipt(m);

    for (size_t i = 0; i < m->nmodels; i++) {
        const struct rollout *r = m->models[i]->rollout;

        if (!r || (model && strcmp(model, rollout_model(r)) != 0) ||
            !rollout_receipt(r)->switched || (wanted && wanted != next))
            continue;
        json_t *receipt = rollout_receipt_now(r);
        json_t *gateway = m->link ? gateway_link_json(m->link) : NULL;

        json_object_set_new(receipt, "number", json_integer(next));
        json_object_set(receipt, "workers", json_object_get(gateway, "workers"));
        json_object_set_new(receipt, "under_way", json_true());
        json_decref(gateway);
        return receipt;
    }
    return NULL;
}

json_t *views_receipt(const char *model, int64_t wanted, void *arg, struct err *err)
{
    struct manager *m = arg;

    if (known_model(m, model, err) != 0)
        return NULL;
    owner_finish(m);
    json_t *receipt = receipt_under_way(m, model, wanted);
    return receipt ? receipt : store_receipt_get(m->store, model, wanted, err);
}

json_t *views_rollouts(const char *model, int limit, void *arg, struct err *err)
{
    const struct manager *m = arg;
    json_t *list = store_rollouts_json(m->store, model, limit, err);

    return list ? json_pack("{s:o}", "rollouts", list) : NULL;
}

json_t *views_logs(const char *replica, unsigned lines, void *arg, struct err *err)
{
    const struct manager *m = arg;
    char *text = m->fleet ? fleet_log_tail(m->fleet, replica, lines, err) : NULL;

    if (!text) {
        if (!m->fleet)
            err_set(err, 503, "the manager is stopping");
        return NULL;
    }
    json_t *json = json_pack("{s:s, s:o}", "replica", replica, "text", text_json(text));
    free(text);
    return json;
}
