/*
 * updates - deploy, switch, rollback: is what is asked for possible, and what
 * kind of rollout follows from it.
 *
 * Everything that can be known at once is refused at once, with a sentence;
 * nothing is changed before that.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "app/internal.h"
#include "base/alloc.h"
#include "base/log.h"

static struct model *find_model(const struct manager *m, const char *name, struct err *err)
{
    struct model *model = manager_model(m, name);
    struct buf names = {0};

    if (model)
        return model;
    for (size_t i = 0; i < m->nmodels; i++)
        buf_addf(&names, "%s%s", i ? ", " : "", m->models[i]->config->name);
    err_set(err, 404, "there is no model '%.64s'; there is: %s", name, buf_cstr(&names));
    buf_fini(&names);
    return NULL;
}

static int takes_changes(const struct manager *m, struct err *err)
{
    return m->state == MANAGER_RUNNING ? 0 : err_set(err, 503, "the manager is stopping");
}

static int busy(const struct model *model, struct err *err)
{
    const struct rollout *r = model->rollout;

    return err_set(err, 409,
                   "a %s of %s from %s to %s is %s (operation %lld); one update at a time",
                   rollout_kind_name(rollout_kind(r)), model->config->name, rollout_from(r),
                   rollout_to(r), rollout_state_name(rollout_state(r)), (long long)rollout_id(r));
}

static struct rollout_want want_of(const struct model *model, enum rollout_kind kind,
                                   const struct version *to, const struct admin_call *call)
{
    return (struct rollout_want){
        .kind = kind,
        .model = model->config->name,
        .from = model->serving->spec.name,
        .to = to->spec.name,
        .from_previous = model->previous ? model->previous->spec.name : NULL,
        .limits = owner_limits(model),
        .asked_ns = admin_call_received_ns(call),
    };
}

static json_t *accepted(const struct model *model)
{
    const struct rollout *r = model->rollout;

    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:s}", "operation", (json_int_t)rollout_id(r),
                     "kind", rollout_kind_name(rollout_kind(r)), "model", model->config->name,
                     "version", rollout_to(r), "from", rollout_from(r), "state",
                     rollout_state_name(rollout_state(r)));
}

/* Begins what is answered with an operation. */
static void begin_long(struct manager *m, struct model *model, const struct rollout_want *want,
                       enum rollout_state first, struct admin_call *call)
{
    struct err err;

    if (owner_begin(m, model, want, first, &err) != 0) {
        admin_fail(call, &err);
    } else if (model->rollout) {
        admin_reply(call, 202, accepted(model));
    } else { /* it has failed already, for example because no process could be made */
        const struct ended *e = CONTAINER_OF(m->ended.prev, struct ended, link);

        err_set(&err, 500, "%s", rollout_reason(e->rollout));
        admin_fail(call, &err);
    }
}

/* --- deploy ------------------------------------------------------------------------------- */

/* The engine for a model file: as asked, or that of the version that serves, or our own. */
static int engine_for(const struct model *model, const char *name, struct err *err)
{
    int engine = name                        ? config_engine_by_name(name)
                 : model->serving->spec.path ? (int)model->serving->spec.engine
                                             : CONFIG_ENGINE_BUILTIN;

    if (engine == CONFIG_ENGINE_BUILTIN || engine == CONFIG_ENGINE_LLAMA_SERVER)
        return engine;
    return err_set(
        err, 400,
        "engine '%.64s' cannot be deployed by path; builtin and llama-server can, others "
        "are declared in segue.yaml",
        name);
}

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;

    return strcmp(a, b) == 0 ||
           (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

/* A version of this name is there already: may it be deployed (again)? */
static int check_again(const struct version *v, const char *path, int engine, struct err *err)
{
    const char *model = v->model->config->name, *name = v->spec.name;

    if (v->doomed)
        return err_set(err, 409, "%s@%s is being removed; try again in a moment", model, name);
    if (v == v->model->serving)
        return err_set(err, 409, "%s@%s serves already", model, name);
    if (!v->spec.path || !same_file(v->spec.path, path))
        return err_set(err, 409,
                       "%s@%s is another file already: %s; choose another name, or none (then the "
                       "next free one is taken)",
                       model, name, v->spec.path ? v->spec.path : v->spec.url);
    if ((int)v->spec.engine != engine)
        return err_set(err, 409, "%s@%s runs on engine %s", model, name,
                       config_engine_name(v->spec.engine));
    return 0;
}

/* Settings are those of a version that runs on the same engine, else the defaults. */
static void spec_for(const struct model *model, const char *name, const char *path, int engine,
                     struct config_version *spec)
{
    const struct config_version *like = NULL;

    for (size_t i = 0; i < model->nversions; i++)
        if ((int)model->versions[i]->spec.engine == engine &&
            (!like || model->versions[i] == model->serving))
            like = &model->versions[i]->spec;
    if (like)
        config_version_copy(spec, like);
    else
        config_version_init(spec, name);
    free(spec->name);
    free(spec->path);
    free(spec->served_model_name);
    spec->engine = (enum config_engine)engine;
    spec->name = str_dup(name);
    spec->path = str_dup(path);
    spec->served_model_name = str_fmt("%s@%s", model->config->name, name);
}

static struct version *add_fresh(struct model *model, const char *name, const char *path,
                                 int engine)
{
    struct config_version spec;

    spec_for(model, name, path, engine, &spec);
    struct version *v = model_add(model, &spec);
    v->stored = v->fresh = true;
    config_version_fini(&spec);
    return v;
}

/* The version to deploy, new or again; NULL with err. */
static struct version *version_for(struct model *model, const char *name, const char *path,
                                   int engine, struct err *err)
{
    struct version *v = model_version(model, name);

    if (!v)
        return add_fresh(model, name, path, engine);
    return check_again(v, path, engine, err) == 0 ? v : NULL;
}

static struct version *prepare_deploy(const struct manager *m, const char *model_name,
                                      const char *path, const char *name, const char *engine_name,
                                      struct err *err)
{
    struct model *model;
    int engine;

    if (takes_changes(m, err) != 0)
        return NULL;
    model = find_model(m, model_name, err);
    if (!model)
        return NULL;
    if (name && !config_name_ok(name)) {
        err_set(err, 400,
                "'%.64s' cannot be a version's name: letters, digits, '.', '_' and '-' "
                "(64 at most), the first a letter or digit",
                name);
        return NULL;
    }
    engine = engine_for(model, engine_name, err);
    if (engine < 0 || fingerprint_model_file(path, err) != 0)
        return NULL;
    if (model->rollout) {
        busy(model, err);
        return NULL;
    }
    char *chosen = name ? str_dup(name) : model_next_name(model);
    struct version *v = version_for(model, chosen, path, engine, err);
    free(chosen);
    return v;
}

void updates_deploy(struct admin_call *call, const char *model, const char *path,
                    const char *version, const char *engine, void *arg)
{
    struct manager *m = arg;
    struct err err;
    struct version *v = prepare_deploy(m, model, path, version, engine, &err);

    if (!v) {
        admin_fail(call, &err);
        return;
    }
    struct rollout_want want = want_of(v->model, ROLLOUT_DEPLOY, v, call);
    begin_long(m, v->model, &want, ROLLOUT_CHECKING, call);
    if (v->fresh && !v->model->rollout) /* it could not even be begun */
        v->doomed = true;
    manager_soon(m);
}

/* --- switch and rollback ------------------------------------------------------------------ */

/* The rollout under way makes room if it has switched already. */
static int make_room(struct model *model, const struct version *to, enum rollout_kind kind,
                     struct err *err)
{
    struct rollout *r = model->rollout;

    if (!r)
        return 0;
    /* A rollback takes it back; a switch, even to the old version, comes after it. */
    bool back = kind == ROLLOUT_ROLLBACK && strcmp(rollout_from(r), to->spec.name) == 0;
    char *reason = str_fmt("a %s to %s was asked for while it was %s", rollout_kind_name(kind),
                           to->spec.name, rollout_state_name(rollout_state(r)));
    bool made = rollout_replace(r, back, reason);
    free(reason);
    return made ? 0 : busy(model, err);
}

/* Nothing to switch: it serves already. What was given up of it gets a new start. */
static void answer_unchanged(struct manager *m, const struct model *model, struct admin_call *call)
{
    const char *name = model->serving->spec.name;
    bool revived = fleetwork_revive(m, model->serving, true);

    admin_reply(call, 200,
                json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:b, s:b}", "model", model->config->name,
                          "from", name, "to", name, "epoch", (json_int_t)model->epoch, "switch_us",
                          0, "receipt", 0, "unchanged", 1, "started_again", revived));
}

/* Its replicas must be asked for first: with which state does that begin? -1 with err. */
static int first_state(struct version *v, struct err *err)
{
    if (!config_engine_managed(v->spec.engine) &&
        version_count(v, IN_STATE(DOWN) | IN_STATE(FAILED)) > 0)
        return err_set(err, 409, "%s@%s is not ready: %s", v->model->config->name, v->spec.name,
                       version_reason(v));
    if (!v->stored || !v->checked)
        return ROLLOUT_STARTING;

    int same = fingerprint_same_file(v->spec.path, &v->file, err);
    return same < 0 ? -1 : same ? ROLLOUT_STARTING : ROLLOUT_CHECKING;
}

static void move_to(struct manager *m, struct version *v, enum rollout_kind kind,
                    struct admin_call *call)
{
    struct model *model = v->model;
    bool ready =
        version_ready(v) || (kind == ROLLOUT_ROLLBACK && version_count(v, IN_STATE(READY)) > 0);
    int first = ROLLOUT_SWITCHING;
    struct err err;

    if (!ready && model->rollout) {
        busy(model, &err);
        admin_fail(call, &err);
        return;
    }
    if (!ready)
        first = first_state(v, &err);
    if (first < 0 || make_room(model, v, kind, &err) != 0) {
        admin_fail(call, &err);
        return;
    }
    struct rollout_want want = want_of(model, kind, v, call);
    if (!ready) {
        begin_long(m, model, &want, (enum rollout_state)first, call);
        return;
    }
    model->waiting = call;
    if (owner_begin(m, model, &want, ROLLOUT_SWITCHING, &err) != 0) {
        model->waiting = NULL;
        admin_fail(call, &err);
    }
}

void updates_switch(struct admin_call *call, const char *model_name, const char *version, void *arg)
{
    struct manager *m = arg;
    struct err err;
    struct model *model = NULL;
    struct version *v = NULL;

    if (takes_changes(m, &err) == 0)
        model = find_model(m, model_name, &err);
    if (model) {
        v = model_version(model, version);
        if (!v || v->doomed || v->fresh) {
            char *names = model_version_names(model);
            err_set(&err, 404, "%s has no version '%.64s'; it has: %s", model_name, version, names);
            free(names);
            v = NULL;
        }
    }
    if (!v)
        admin_fail(call, &err);
    else if (v == model->serving && !model->rollout)
        answer_unchanged(m, model, call);
    else if (v == model->serving && model_target(model) == v &&
             rollout_state(model->rollout) != ROLLOUT_SWITCHING)
        answer_unchanged(m, model, call);
    else if (v == model->serving) {
        busy(model, &err);
        admin_fail(call, &err);
    } else
        move_to(m, v, ROLLOUT_SWITCH, call);
}

void updates_rollback(struct admin_call *call, const char *model_name, void *arg)
{
    struct manager *m = arg;
    struct err err;
    struct model *model = NULL;

    if (takes_changes(m, &err) == 0)
        model = find_model(m, model_name, &err);
    if (model && !model->previous) {
        err_set(&err, 409, "%s has no version that served before %s", model_name,
                model->serving->spec.name);
        model = NULL;
    }
    if (model)
        move_to(m, model->previous, ROLLOUT_ROLLBACK, call);
    else
        admin_fail(call, &err);
}
