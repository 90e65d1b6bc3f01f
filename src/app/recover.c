/*
 * recover - rollouts that a former manager left open.
 *
 *   before switching            the new version is stopped, the rollout has failed
 *   switching, not promised     the same
 *   switching and later         the route in the store is the promise: it goes on
 */
#include <stdlib.h>
#include <string.h>

#include "app/internal.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

/* So many of the newest rollouts are looked through for one that was open. */
enum { RECENT = 20 };

struct recovery {
    struct manager *manager;
    struct list found; /* of struct left_open */
};

struct left_open {
    struct list link;
    int64_t id;
    char *model, *from, *to, *kind, *state; /* owned */
};

static void on_open(int64_t id, const char *model, const char *from, const char *to,
                    const char *kind, const char *state, void *arg)
{
    struct recovery *recovery = arg;
    struct left_open *o = NEW(struct left_open);

    *o = (struct left_open){.id = id,
                            .model = str_dup(model),
                            .from = str_dup(from ? from : ""),
                            .to = str_dup(to),
                            .kind = str_dup(kind),
                            .state = str_dup(state ? state : "")};
    list_append(&recovery->found, &o->link);
}

static void left_open_free(struct left_open *o)
{
    list_remove(&o->link);
    free(o->model);
    free(o->from);
    free(o->to);
    free(o->kind);
    free(o->state);
    free(o);
}

/* What was recorded with the rollout's last step `state`; new reference, NULL: nothing. */
static json_t *facts_of(const struct manager *m, const struct left_open *o,
                        enum rollout_state state)
{
    struct err err;
    json_t *list = store_rollouts_json(m->store, o->model, RECENT, &err), *row, *step,
           *found = NULL;
    size_t i, k;

    json_array_foreach(list, i, row)
    {
        if (json_integer_value(json_object_get(row, "id")) != o->id)
            continue;
        json_array_foreach(json_object_get(row, "steps"), k, step)
        {
            const char *name = json_string_value(json_object_get(step, "state"));

            if (strcmp(name, rollout_state_name(state)) == 0)
                found = json_object_get(step, "facts");
        }
    }
    json_incref(found);
    json_decref(list);
    return found;
}

/* A deploy that failed leaves no version behind. */
static void forget_new_version(struct manager *m, const struct left_open *o)
{
    struct model *model = manager_model(m, o->model);
    struct version *v = model ? model_version(model, o->to) : NULL;
    json_t *facts = facts_of(m, o, ROLLOUT_STARTING);
    struct err err;

    if (v && v->stored && v != model->serving && v != model->previous &&
        json_is_true(json_object_get(facts, "new_version"))) {
        v->doomed = true;
        if (store_version_delete(m->store, o->model, o->to, &err) != 0)
            log_error("%s", err.text);
    }
    json_decref(facts);
}

/* Writes its end and a receipt that says so; nothing was counted. */
static int give_up(struct manager *m, const struct left_open *o, const char *why, struct err *err)
{
    char *reason = str_fmt("the manager was restarted while it was %s%s%s",
                           *o->state ? o->state : "beginning", *why ? ": " : "", why);
    json_t *facts = json_pack("{s:s}", "reason", reason);
    struct receipt receipt = {
        .rollout = o->id,
        .model = o->model,
        .kind = o->kind,
        .from = o->from,
        .to = o->to,
        .result = rollout_state_name(ROLLOUT_FAILED),
        .reason = reason,
        .recovered = true,
        .began_wall_ms = clock_wall_ms(),
        .ended_wall_ms = clock_wall_ms(),
    };
    json_t *json = receipt_json(&receipt);
    int result = store_rollout_step(m->store, o->id, receipt.result, facts, err);

    if (result == 0)
        result = store_receipt_put(m->store, o->model, json, &m->receipts, err);
    forget_new_version(m, o);
    log_warn("%s: %s %s -> %s has failed: %s", o->model, o->kind, o->from, o->to, reason);
    json_decref(json);
    json_decref(facts);
    free(reason);
    return result;
}

static void go_on(struct manager *m, struct model *model, const struct left_open *o,
                  enum rollout_state state)
{
    int kind = rollout_kind_by_name(o->kind);
    bool back = state == ROLLOUT_ROLLING_BACK;
    struct rollout_want want = {
        .kind = kind < 0 ? ROLLOUT_SWITCH : (enum rollout_kind)kind,
        .model = o->model,
        .from = o->from,
        .to = o->to,
        .from_previous = back && model->previous ? model->previous->spec.name : NULL,
        .limits = owner_limits(model),
        .asked_ns = clock_ns(),
    };

    json_t *facts = facts_of(m, o, ROLLOUT_DRAINING);
    model->rollout = owner_rollout(m, &want);
    operation_begin(admin_operations(m->admin), o->id, o->kind, o->model, o->to);
    /* The first table of this manager carries the promise. */
    rollout_resume(model->rollout, o->id, state, m->epoch + 1,
                   (uint64_t)json_integer_value(json_object_get(facts, "switch_us")));
    json_decref(facts);
}

static int recover_one(struct manager *m, const struct left_open *o, struct err *err)
{
    struct model *model = manager_model(m, o->model);
    int state = rollout_state_by_name(o->state);

    if (!model)
        return give_up(m, o, "the model is not in segue.yaml any more", err);
    if (state < 0 || !rollout_state_switched((enum rollout_state)state))
        return give_up(m, o, "", err);
    if (model->rollout || !model_version(model, o->from) || !model_version(model, o->to))
        return give_up(m, o, "its versions are not known any more", err);

    const char *serving = model->serving->spec.name;
    if (state == ROLLOUT_ROLLING_BACK && strcmp(serving, o->from) == 0)
        go_on(m, model, o, ROLLOUT_ROLLING_BACK);
    else if (strcmp(serving, o->to) == 0)
        go_on(m, model, o, ROLLOUT_DRAINING);
    else
        return give_up(m, o, "before the switch was promised", err);
    return 0;
}

int recover_rollouts(struct manager *m, struct err *err)
{
    struct recovery recovery = {.manager = m};
    int result;

    list_init(&recovery.found);
    result = store_rollouts_open(m->store, on_open, &recovery, err);
    LIST_FOR_EACH_SAFE(it, &recovery.found)
    {
        struct left_open *o = CONTAINER_OF(it, struct left_open, link);

        if (result == 0)
            result = recover_one(m, o, err);
        left_open_free(o);
    }
    return result;
}
