#include "app/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"

struct model *model_new(const struct config_model *config)
{
    struct model *m = NEW(struct model);

    m->config = config;
    return m;
}

static void version_free(struct version *v)
{
    config_version_fini(&v->spec);
    free(v->members);
    free(v->trouble);
    free(v);
}

void model_free(struct model *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->nversions; i++)
        version_free(m->versions[i]);
    rollout_free(m->rollout);
    free(m->told);
    free(m->versions);
    free(m);
}

struct version *model_add(struct model *m, const struct config_version *spec)
{
    struct version *v = NEW(struct version);

    ALWAYS(!model_version(m, spec->name));
    v->model = m;
    config_version_copy(&v->spec, spec);
    m->versions = mem_grow(m->versions, (m->nversions + 1) * sizeof(struct version *));
    m->versions[m->nversions++] = v;
    return v;
}

void model_forget(struct model *m, struct version *v)
{
    size_t i = 0;

    ALWAYS(v != m->serving && v != m->previous && v != model_target(m) && !v->nmembers);
    while (m->versions[i] != v)
        i++;
    tally_add(&m->gone, &v->gone);
    m->nversions--;
    memmove(&m->versions[i], &m->versions[i + 1], (m->nversions - i) * sizeof(struct version *));
    version_free(v);
}

struct version *model_version(const struct model *m, const char *name)
{
    for (size_t i = 0; i < m->nversions; i++)
        if (strcmp(m->versions[i]->spec.name, name) == 0)
            return m->versions[i];
    return NULL;
}

char *model_version_names(const struct model *m)
{
    struct buf names = {0};

    for (size_t i = 0; i < m->nversions; i++)
        buf_addf(&names, "%s%s", i ? ", " : "", m->versions[i]->spec.name);
    return buf_take(&names);
}

char *model_next_name(const struct model *m)
{
    uint64_t highest = 0, n;

    for (size_t i = 0; i < m->nversions; i++) {
        const char *name = m->versions[i]->spec.name;

        if (name[0] == 'v' && span_u64(span_str(name + 1), &n) && n > highest && n < UINT32_MAX)
            highest = n;
    }
    return str_fmt("v%llu", (unsigned long long)highest + 1);
}

/* --- loading ------------------------------------------------------------------------------ */

static void on_stored_version(const struct config_version *spec, const char *sha256, void *arg)
{
    struct model *m = arg;

    if (model_version(m, spec->name)) {
        log_warn("%s@%s: segue.yaml has a version of this name; the one that was deployed is not "
                 "used",
                 m->config->name, spec->name);
        return;
    }
    struct version *v = model_add(m, spec);
    v->stored = true;
    v->checked = fingerprint_parse(sha256, &v->file);
}

int model_load(struct model *m, struct store *store, char **notice, struct err *err)
{
    char *serving = NULL, *previous = NULL;

    *notice = NULL;
    for (size_t i = 0; i < m->config->nversions; i++)
        model_add(m, &m->config->versions[i]);
    if (store_versions(store, m->config->name, on_stored_version, m, err) != 0)
        return -1;
    int found = store_route_get(store, m->config->name, &serving, &previous, err);
    if (found < 0)
        return -1;
    m->moved = found > 0;
    if (found > 0) {
        m->serving = model_version(m, serving);
        if (!m->serving)
            *notice = str_fmt("%s: version %s served last but is not known any more; %s serves, as "
                              "segue.yaml says",
                              m->config->name, serving, m->config->serve);
        else if (previous)
            m->previous = model_version(m, previous);
    }
    if (!m->serving)
        m->serving = model_version(m, m->config->serve);
    ALWAYS(m->serving); /* the configuration was checked for it */
    free(serving);
    free(previous);
    return 0;
}

/* --- what should run ---------------------------------------------------------------------- */

struct version *model_target(const struct model *m)
{
    return m->rollout ? model_version(m, rollout_to(m->rollout)) : NULL;
}

static bool is_somebody_elses(const struct version *v)
{
    return !config_engine_managed(v->spec.engine);
}

bool version_should_run(const struct version *v)
{
    const struct model *m = v->model;

    if (v->doomed)
        return false;
    if (is_somebody_elses(v) || v == m->serving || (v == m->previous && m->keep_spare))
        return true;
    return v == model_target(m) && rollout_state(m->rollout) != ROLLOUT_NEW &&
           rollout_state(m->rollout) != ROLLOUT_CHECKING && !rollout_ended(m->rollout);
}

bool version_may_stay(const struct version *v)
{
    const struct model *m = v->model;

    if (version_should_run(v))
        return true;
    if (!m->rollout || rollout_ended(m->rollout) || v->doomed)
        return false;
    /* Until it is decided, the versions that it may go back to stay as they are. */
    const char *before = rollout_from_previous(m->rollout);
    return strcmp(rollout_from(m->rollout), v->spec.name) == 0 ||
           strcmp(rollout_to(m->rollout), v->spec.name) == 0 ||
           (before && strcmp(before, v->spec.name) == 0);
}

/* --- members ------------------------------------------------------------------------------ */

struct member *version_member(const struct version *v, const struct replica *r)
{
    for (size_t i = 0; i < v->nmembers; i++)
        if (v->members[i].replica == r)
            return &v->members[i];
    return NULL;
}

struct member *version_member_at(const struct version *v, unsigned index)
{
    for (size_t i = 0; i < v->nmembers; i++)
        if (v->members[i].index == index)
            return &v->members[i];
    return NULL;
}

struct member *version_add_member(struct version *v, struct replica *r, unsigned index,
                                  const struct tally *base)
{
    v->members = mem_grow(v->members, (v->nmembers + 1) * sizeof(struct member));
    v->members[v->nmembers] = (struct member){.replica = r, .index = index, .base = *base};
    return &v->members[v->nmembers++];
}

void version_remove_member(struct version *v, struct member *member)
{
    size_t i = (size_t)(member - v->members);

    ALWAYS(i < v->nmembers);
    v->nmembers--;
    memmove(member, member + 1, (v->nmembers - i) * sizeof(struct member));
}

unsigned version_count(const struct version *v, unsigned states)
{
    unsigned n = 0;

    for (size_t i = 0; i < v->nmembers; i++)
        n += (states >> replica_state(v->members[i].replica)) & 1;
    return n;
}

bool member_serves(const struct member *m)
{
    enum replica_state s = replica_state(m->replica);

    return s == REPLICA_READY || (m->trusted && (s == REPLICA_STARTING || s == REPLICA_ASKING));
}

bool version_ready(const struct version *v)
{
    return version_count(v, IN_STATE(READY)) >= v->spec.replicas;
}

const char *version_reason(const struct version *v)
{
    if (v->trouble)
        return v->trouble;
    for (size_t i = 0; i < v->nmembers; i++) {
        enum replica_state s = replica_state(v->members[i].replica);

        if (s == REPLICA_FAILED || s == REPLICA_DOWN)
            return replica_reason(v->members[i].replica);
    }
    return "";
}

const char *version_state(const struct version *v)
{
    bool ready = version_count(v, IN_STATE(READY)) > 0;

    if (v == v->model->serving)
        return ready                                                     ? "serving"
               : version_count(v, IN_STATE(STARTING) | IN_STATE(ASKING)) ? "starting"
               : version_count(v, IN_STATE(DOWN))                        ? "down"
                                                                         : "failed";
    if (v == v->model->previous && ready)
        return "spare";
    if (ready)
        return "ready";
    for (size_t i = 0; i < v->nmembers; i++)
        return replica_state_name(replica_state(v->members[i].replica));
    return v->trouble ? "failed" : "stopped";
}

static int changed(const struct version *v, struct err *err)
{
    return err_set(err, 409,
                   "%s is not the file any more that was deployed as %s@%s (sha256 %.12s..., now "
                   "%.12s...); deploy it as a new version",
                   v->spec.path, v->model->config->name, v->spec.name, v->file.sha256,
                   v->other.sha256);
}

int version_check_file(struct version *v, struct err *err)
{
    struct fingerprint now;

    if (!v->stored || !v->checked || !v->spec.path)
        return 0;
    int same = fingerprint_same_file(v->spec.path, &v->file, err);
    if (same)
        return same > 0 ? 0 : -1;
    /* Rare: the file was touched or exchanged. It is read once for each change. */
    if (v->other.size && fingerprint_same_file(v->spec.path, &v->other, err) > 0)
        return changed(v, err);
    if (fingerprint_read(v->spec.path, &now, NULL, err) != 0)
        return -1;
    if (strcmp(now.sha256, v->file.sha256) == 0) {
        v->file = now;
        return 0;
    }
    v->other = now;
    return changed(v, err);
}

void version_trouble(struct version *v, const char *why, uint64_t now_ns)
{
    free(v->trouble);
    v->trouble = str_dup(why);
    v->trouble_ns = now_ns;
}
