/*
 * gateway/table - see table.h.
 *
 * All names lead through one hash table (FNV-1a, linear probing, at most half
 * full), so a look-up costs the same for one model and for a thousand.
 */
#include "gateway/table.h"

#include <arpa/inet.h>
#include <jansson.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "gateway/counters.h"

struct name_entry {
    struct span name; /* owned copy; p NULL: free entry */
    uint64_t hash;
    struct table_match match;
};

static uint64_t fnv1a(struct span s)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (unsigned char)s.p[i]) * UINT64_C(1099511628211);
    return h;
}

/* --- reading the message --------------------------------------------------- */

static const char *text(json_t *object, const char *key, struct err *err)
{
    const char *s = json_string_value(json_object_get(object, key));

    if (!s)
        err_set(err, 400, "table: '%s' must be a string", key);
    return s;
}

static int number(json_t *object, const char *key, uint64_t *out, struct err *err)
{
    json_t *v = json_object_get(object, key);

    *out = 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return err_set(err, 400, "table: '%s' must be a number that is not negative", key);
    *out = (uint64_t)json_integer_value(v);
    return 0;
}

/* The same for a limit that an older manager does not send: then there is none. */
static uint64_t limit(json_t *object, const char *key, uint64_t none)
{
    json_t *v = json_object_get(object, key);

    return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : none;
}

static int millis(json_t *object, const char *key, uint64_t *out_ns, struct err *err)
{
    if (number(object, key, out_ns, err) < 0)
        return -1;
    *out_ns *= 1000000;
    return 0;
}

static int parse_limits(struct table *t, json_t *root, struct err *err)
{
    json_t *l = json_object_get(root, "limits"), *o = json_object_get(root, "timeouts");
    uint64_t head, body, connections, buffer;
    struct timeouts *ns = &t->timeouts;

    if (number(l, "head_bytes", &head, err) < 0 || number(l, "body_bytes", &body, err) < 0 ||
        number(l, "connections", &connections, err) < 0 ||
        number(l, "client_buffer_bytes", &buffer, err) < 0)
        return -1;
    t->limits = (struct limits){
        .head_bytes = head,
        .body_bytes = body,
        .connections = (unsigned)connections,
        .client_buffer_bytes = buffer,
        .exchanges = (unsigned)limit(l, "exchanges", UINT32_MAX),
        .client_connections = (unsigned)limit(l, "client_connections", UINT32_MAX),
        .body_memory_bytes = limit(l, "body_memory_bytes", SIZE_MAX),
    };
    if (millis(o, "head", &ns->head, err) < 0 || millis(o, "body", &ns->body, err) < 0 ||
        millis(o, "idle", &ns->idle, err) < 0 || millis(o, "send", &ns->send, err) < 0 ||
        millis(o, "connect", &ns->connect, err) < 0 ||
        millis(o, "first_byte", &ns->first_byte, err) < 0 ||
        millis(o, "between_bytes", &ns->between_bytes, err) < 0 ||
        millis(o, "upstream_idle", &ns->upstream_idle, err) < 0)
        return -1;
    return 0;
}

/* "unix:PATH", "1.2.3.4:PORT" or "[::1]:PORT" into a socket address. */
static int parse_address(struct replica_route *r, const char *address, struct err *err)
{
    const char *colon = strrchr(address, ':');
    uint64_t port;

    if (strncmp(address, "unix:", 5) == 0) {
        size_t n = strlen(address + 5);
        if (n == 0 || n >= sizeof(r->sock.un.sun_path))
            return err_set(err, 400, "table: the socket path '%s' is empty or too long", address);
        r->sock.un.sun_family = AF_UNIX;
        memcpy(r->sock.un.sun_path, address + 5, n + 1);
        r->sock_len = sizeof(r->sock.un);
        return 0;
    }
    if (!colon || !span_u64(span_str(colon + 1), &port) || port == 0 || port > 65535)
        return err_set(err, 400, "table: '%s' is not HOST:PORT", address);
    char host[64];
    size_t n = (size_t)(colon - address);
    const char *from = address;
    if (n > 2 && from[0] == '[' && from[n - 1] == ']')
        from++, n -= 2;
    if (n == 0 || n >= sizeof(host))
        return err_set(err, 400, "table: '%s' has no numeric host", address);
    memcpy(host, from, n);
    host[n] = '\0';
    if (strcmp(host, "localhost") == 0)
        strcpy(host, "127.0.0.1");
    if (inet_pton(AF_INET, host, &r->sock.in.sin_addr) == 1) {
        r->sock.in.sin_family = AF_INET;
        r->sock.in.sin_port = htons((uint16_t)port);
        r->sock_len = sizeof(r->sock.in);
        return 0;
    }
    if (inet_pton(AF_INET6, host, &r->sock.in6.sin6_addr) == 1) {
        r->sock.in6.sin6_family = AF_INET6;
        r->sock.in6.sin6_port = htons((uint16_t)port);
        r->sock_len = sizeof(r->sock.in6);
        return 0;
    }
    return err_set(err, 400, "table: the host in '%s' must be an IP address", address);
}

static int parse_replica(struct replica_route *r, json_t *j, struct err *err)
{
    const char *address = text(j, "address", err);
    const char *prefix = address ? text(j, "prefix", err) : NULL;
    const char *serve_as = prefix ? text(j, "serve_as", err) : NULL;
    uint64_t slot;
    struct buf quoted = {0};

    if (!serve_as || number(j, "slot", &slot, err) < 0)
        return -1;
    if (slot >= COUNTERS_SLOTS)
        return err_set(err, 400, "table: slot %llu is not below %d", (unsigned long long)slot,
                       COUNTERS_SLOTS);
    r->slot = (unsigned)slot;
    r->ready = json_is_true(json_object_get(j, "ready"));
    r->address = str_dup(address);
    r->address_id = fnv1a(span_str(address));
    r->prefix = str_dup(prefix);
    buf_add_char(&quoted, '"');
    buf_add_json(&quoted, span_str(serve_as));
    buf_add_char(&quoted, '"');
    r->serve_as.n = buf_pending(&quoted);
    r->serve_as.p = buf_take(&quoted);
    return parse_address(r, address, err);
}

static int parse_version(struct model_route *m, struct version_route *v, json_t *j, struct err *err)
{
    const char *name = text(j, "name", err);
    json_t *replicas = json_object_get(j, "replicas");
    uint64_t weight;

    if (!name || number(j, "weight", &weight, err) < 0)
        return -1;
    v->name = str_dup(name);
    v->tag = str_fmt("%s@%s", m->name, name);
    v->weight = (unsigned)weight;
    m->total_weight += v->weight;
    v->replicas = mem_zero(json_array_size(replicas) * sizeof(*v->replicas));
    for (size_t i = 0; i < json_array_size(replicas); i++) {
        v->nreplicas++;
        if (parse_replica(&v->replicas[i], json_array_get(replicas, i), err) < 0)
            return err_prefix(err, "%s", v->tag);
    }
    return 0;
}

static int parse_model(struct model_route *m, json_t *j, bool *split, struct err *err)
{
    const char *name = text(j, "name", err);
    json_t *versions = json_object_get(j, "versions");
    uint64_t hold_max;

    if (!name || millis(j, "hold_ms", &m->hold_ns, err) < 0 ||
        number(j, "hold_max", &hold_max, err) < 0)
        return -1;
    m->name = str_dup(name);
    m->hold_max = (unsigned)hold_max;
    m->expected = json_is_true(json_object_get(j, "expected"));
    m->versions = mem_zero(json_array_size(versions) * sizeof(*m->versions));
    for (size_t i = 0; i < json_array_size(versions); i++) {
        m->nversions++;
        if (parse_version(m, &m->versions[i], json_array_get(versions, i), err) < 0)
            return -1;
        for (size_t k = 0; k < i; k++)
            *split |= m->versions[i].weight && m->versions[k].weight;
    }
    return 0;
}

/* --- names ------------------------------------------------------------------ */

static struct name_entry *probe(const struct table *t, struct span name, uint64_t hash)
{
    size_t i = hash & (t->nnames - 1);

    while (t->names[i].name.p && (t->names[i].hash != hash || !span_eq(t->names[i].name, name)))
        i = (i + 1) & (t->nnames - 1);
    return &t->names[i];
}

/* The first meaning of a name wins: public names go in before aliases, aliases
 * before the engines' own names. */
static void name_add(struct table *t, const char *name, struct table_match match)
{
    struct span s = span_str(name);
    uint64_t hash = fnv1a(s);
    struct name_entry *e = probe(t, s, hash);

    if (e->name.p)
        return;
    *e = (struct name_entry){{span_dup(s), s.n}, hash, match};
}

static void index_names(struct table *t, json_t *models)
{
    size_t need = 0, i;
    json_t *j, *alias;

    for (size_t k = 0; k < t->nmodels; k++) {
        need += 1 + json_array_size(json_object_get(json_array_get(models, k), "aliases"));
        for (size_t v = 0; v < t->models[k].nversions; v++) {
            const struct version_route *version = &t->models[k].versions[v];
            need += 1 + version->nreplicas;
            for (size_t r = 0; r < version->nreplicas; r++)
                if (version->replicas[r].slot >= t->nslots)
                    t->nslots = version->replicas[r].slot + 1;
        }
    }
    for (t->nnames = 16; t->nnames < need * 2; t->nnames *= 2)
        ;
    t->names = mem_zero(t->nnames * sizeof(*t->names));

    for (size_t k = 0; k < t->nmodels; k++) {
        struct model_route *m = &t->models[k];
        name_add(t, m->name, (struct table_match){m, NULL});
        for (size_t v = 0; v < m->nversions; v++)
            name_add(t, m->versions[v].tag, (struct table_match){m, &m->versions[v]});
    }
    json_array_foreach(models, i, j)
    {
        size_t a;
        json_array_foreach(json_object_get(j, "aliases"), a, alias)
        {
            if (json_is_string(alias))
                name_add(t, json_string_value(alias), (struct table_match){&t->models[i], NULL});
        }
    }
    /* An application that was set up for one engine goes on with that engine's
     * name for the model; the route decides all the same. */
    json_array_foreach(models, i, j)
    {
        size_t v, r;
        json_t *version, *replica;
        json_array_foreach(json_object_get(j, "versions"), v, version)
        {
            json_array_foreach(json_object_get(version, "replicas"), r, replica)
                name_add(t, json_string_value(json_object_get(replica, "serve_as")),
                         (struct table_match){&t->models[i], NULL});
        }
    }
}

bool table_find(const struct table *t, struct span name, struct table_match *match)
{
    struct name_entry *e = probe(t, name, fnv1a(name));

    if (!e->name.p)
        return false;
    *match = e->match;
    return true;
}

/* --- what is the same for every request is written once -------------------- */

static void write_model(struct buf *out, const struct model_route *m, json_t *j)
{
    buf_add_str(out, "{\"id\":\"");
    buf_add_json(out, span_str(m->name));
    buf_addf(out, "\",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"segue\",\"versions\":[",
             (long long)json_integer_value(json_object_get(j, "created")));
    for (size_t v = 0; v < m->nversions; v++) {
        const struct version_route *version = &m->versions[v];
        bool ready = false;
        for (size_t r = 0; r < version->nreplicas; r++)
            ready |= version->replicas[r].ready;
        buf_addf(out, "%s{\"id\":\"", v ? "," : "");
        buf_add_json(out, span_str(version->tag));
        buf_addf(out, "\",\"share\":%.4g,\"ready\":%s}",
                 m->total_weight ? (double)version->weight / m->total_weight : 0.0,
                 ready ? "true" : "false");
    }
    buf_add_str(out, "]}");
}

static void write_texts(struct table *t, json_t *models)
{
    struct buf json = {0}, names = {0};

    buf_add_str(&json, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < t->nmodels; i++) {
        if (i) {
            buf_add_char(&json, ',');
            buf_add_str(&names, ", ");
        }
        write_model(&json, &t->models[i], json_array_get(models, i));
        buf_add_str(&names, t->models[i].name);
    }
    buf_add_str(&json, "]}\n");
    t->models_json_len = buf_pending(&json);
    t->models_json = buf_take(&json);
    t->names_text = buf_take(&names);
}

/* --- life ------------------------------------------------------------------- */

static void table_free(struct table *t)
{
    for (size_t i = 0; i < t->nmodels; i++) {
        struct model_route *m = &t->models[i];
        for (size_t v = 0; v < m->nversions; v++) {
            for (size_t r = 0; r < m->versions[v].nreplicas; r++) {
                free(m->versions[v].replicas[r].address);
                free(m->versions[v].replicas[r].prefix);
                free((char *)m->versions[v].replicas[r].serve_as.p);
            }
            free(m->versions[v].replicas);
            free(m->versions[v].name);
            free(m->versions[v].tag);
        }
        free(m->versions);
        free(m->name);
    }
    for (size_t i = 0; i < t->nnames; i++)
        free((char *)t->names[i].name.p);
    free(t->names);
    free(t->sticky_header);
    free(t->models);
    free(t->models_json);
    free(t->names_text);
    free(t);
}

struct table *table_parse(struct span message, struct err *err)
{
    json_error_t at;
    json_t *root = json_loadb(message.p, message.n, JSON_REJECT_DUPLICATES, &at);
    struct table *t = NEW(struct table);
    int rc = -1;

    atomic_init(&t->refs, 1);
    if (!root) {
        err_set(err, 400, "table: not JSON: %s (byte %d)", at.text, at.position);
        goto out;
    }
    json_t *models = json_object_get(root, "models");
    if (number(root, "epoch", &t->epoch, err) < 0 || parse_limits(t, root, err) < 0)
        goto out;
    t->models = mem_zero(json_array_size(models) * sizeof(*t->models));
    for (size_t i = 0; i < json_array_size(models); i++) {
        t->nmodels++;
        t->models[i].index = (unsigned)i;
        if (parse_model(&t->models[i], json_array_get(models, i), &t->split, err) < 0)
            goto out;
    }
    const char *header = json_string_value(json_object_get(root, "sticky_header"));
    t->sticky_header = str_dup(header ? header : "");
    index_names(t, models);
    write_texts(t, models);
    rc = 0;
out:
    json_decref(root);
    if (rc < 0) {
        table_free(t);
        return NULL;
    }
    return t;
}

struct table *table_ref(struct table *t)
{
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void table_unref(struct table *t)
{
    if (t && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1)
        table_free(t);
}
