#include "app/routes.h"

#include "base/always.h"

static json_t *limits_json(const struct config_limits *l)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "head_bytes", (json_int_t)l->head_bytes,
                     "body_bytes", (json_int_t)l->body_bytes, "connections",
                     (json_int_t)l->connections, "client_buffer_bytes",
                     (json_int_t)l->client_buffer_bytes, "exchanges", (json_int_t)l->exchanges,
                     "client_connections", (json_int_t)l->client_connections, "body_memory_bytes",
                     (json_int_t)l->body_memory_bytes);
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
    return json_pack("{s:i, s:s*, s:s, s:s, s:s, s:b}", "slot", r->slot, "name", r->name, "address",
                     r->address, "prefix", r->prefix, "serve_as", r->serve_as, "ready", r->ready);
}

static json_t *version_json(const struct route_version *v)
{
    json_t *replicas = json_array();

    for (size_t i = 0; i < v->nreplicas; i++)
        json_array_append_new(replicas, replica_json_of(&v->replicas[i]));
    return json_pack("{s:s, s:i, s:o}", "name", v->name, "weight", (int)v->weight, "replicas",
                     replicas);
}

json_t *routes_model(const struct route_model *m)
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

json_t *routes_table(const struct config *config, json_t *models, uint64_t epoch)
{
    json_t *table = json_pack("{s:s, s:I, s:o, s:o, s:o}", "type", "table", "epoch",
                              (json_int_t)epoch, "limits", limits_json(&config->limits), "timeouts",
                              timeouts_json(&config->timeouts), "models", models);
    ALWAYS(table);
    for (char **origin = config->cors; origin && *origin; origin++) {
        if (origin == config->cors)
            json_object_set_new(table, "cors", json_array());
        json_array_append_new(json_object_get(table, "cors"), json_string(*origin));
    }
    if (config->sticky_header)
        json_object_set_new(table, "sticky_header", json_string(config->sticky_header));
    if (config->keys_required)
        json_object_set_new(table, "keys_required", json_true());
    return table;
}

void routes_text(const struct route_model *m, struct buf *out)
{
    buf_add_str(out, m->expected ? "expected" : "-");
    for (size_t i = 0; i < m->nversions; i++) {
        const struct route_version *v = &m->versions[i];
        buf_add_char(out, '\n');
        buf_add_str(out, v->name);
        buf_add_char(out, ' ');
        buf_add_u64(out, v->weight);
        for (size_t k = 0; k < v->nreplicas; k++) {
            const struct route_replica *r = &v->replicas[k];
            const char *const words[] = {r->address, r->prefix, r->serve_as, r->ready ? "+" : "-"};
            buf_add_char(out, '\t');
            buf_add_u64(out, (uint64_t)r->slot);
            for (size_t w = 0; w < COUNT_OF(words); w++) {
                buf_add_char(out, ' ');
                buf_add_str(out, words[w]);
            }
        }
    }
}
