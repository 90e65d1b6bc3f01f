#include "app/routes.h"

#include "base/always.h"

static json_t *limits_json(const struct config_limits *l)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "head_bytes", (json_int_t)l->head_bytes, "body_bytes",
                     (json_int_t)l->body_bytes, "connections", (json_int_t)l->connections,
                     "client_buffer_bytes", (json_int_t)l->client_buffer_bytes);
}

static json_t *timeouts_json(const struct config_timeouts *t)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "head", (json_int_t)t->head,
                     "body", (json_int_t)t->body, "idle", (json_int_t)t->idle, "send",
                     (json_int_t)t->send, "connect", (json_int_t)t->connect, "first_byte",
                     (json_int_t)t->first_byte, "between_bytes", (json_int_t)t->between_bytes,
                     "upstream_idle", (json_int_t)t->upstream_idle);
}

static json_t *replica_json_of(const struct route_replica *r)
{
    return json_pack("{s:i, s:s, s:s, s:s, s:b}", "slot", r->slot, "address", r->address, "prefix",
                     r->prefix, "serve_as", r->serve_as, "ready", r->ready);
}

static json_t *version_json(const struct route_version *v)
{
    json_t *replicas = json_array();

    for (size_t i = 0; i < v->nreplicas; i++)
        json_array_append_new(replicas, replica_json_of(&v->replicas[i]));
    return json_pack("{s:s, s:i, s:o}", "name", v->name, "weight", (int)v->weight, "replicas",
                     replicas);
}

static json_t *model_json(const struct route_model *m)
{
    json_t *aliases = json_array(), *versions = json_array();

    for (char **alias = m->config->aliases; alias && *alias; alias++)
        json_array_append_new(aliases, json_string(*alias));
    for (size_t i = 0; i < m->nversions; i++)
        json_array_append_new(versions, version_json(&m->versions[i]));
    return json_pack("{s:s, s:o, s:I, s:I, s:b, s:I, s:o}", "name", m->config->name, "aliases",
                     aliases, "hold_ms", (json_int_t)m->config->hold_ms, "hold_max",
                     (json_int_t)m->config->hold_max, "expected", m->expected, "created",
                     (json_int_t)m->created, "versions", versions);
}

json_t *routes_table(const struct config *config, const struct route_model *models, size_t nmodels,
                     uint64_t epoch)
{
    json_t *list = json_array();

    for (size_t i = 0; i < nmodels; i++)
        json_array_append_new(list, model_json(&models[i]));
    json_t *table = json_pack("{s:s, s:I, s:o, s:o, s:o}", "type", "table", "epoch",
                              (json_int_t)epoch, "limits", limits_json(&config->limits), "timeouts",
                              timeouts_json(&config->timeouts), "models", list);
    ALWAYS(table);
    return table;
}

bool routes_same(json_t *a, json_t *b)
{
    static const char *const parts[] = {"models", "limits", "timeouts"};

    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (!json_equal(json_object_get(a, parts[i]), json_object_get(b, parts[i])))
            return false;
    return true;
}
