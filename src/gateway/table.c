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
#include "gateway/keyring.h"

struct name_entry {
    struct span name; /* owned copy; p NULL: free entry */
    uint64_t hash;
    unsigned model; /* index in table->models */
    int version;    /* index in that model's versions, or one of these: */
};

enum {
    VERSION_BY_ROUTE = -1,
    VERSION_CHAMPION = -2,  /* NAME@champion, NAME@stable: the one with most of the requests */
    VERSION_CHALLENGER = -3 /* NAME@challenger, NAME@canary: the newest other one that is ready */
};

struct names {
    atomic_uint refs;
    size_t n; /* a power of two */
    struct name_entry entries[];
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
    const char *name = json_string_value(json_object_get(j, "name"));
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
    r->name = str_dup(name ? name : "");
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

/* What the names index is made from: unchanged, the index can be shared. */
static char *signature_of(const struct model_route *m, json_t *j)
{
    struct buf b = {0};
    size_t i, k;
    json_t *item, *replica;

    buf_addf(&b, "%s\n", m->name);
    json_array_foreach(json_object_get(j, "aliases"), i, item)
    {
        if (json_is_string(item))
            buf_addf(&b, "a %s\n", json_string_value(item));
    }
    json_array_foreach(json_object_get(j, "versions"), i, item)
    {
        buf_addf(&b, "v %s\n", m->versions[i].name);
        json_array_foreach(json_object_get(item, "replicas"), k, replica)
            buf_addf(&b, "s %s\n", json_string_value(json_object_get(replica, "serve_as")));
    }
    return buf_take(&b);
}

static void model_free(struct model_route *m)
{
    for (size_t v = 0; v < m->nversions; v++) {
        for (size_t r = 0; r < m->versions[v].nreplicas; r++) {
            free(m->versions[v].replicas[r].address);
            free(m->versions[v].replicas[r].prefix);
            free(m->versions[v].replicas[r].name);
            free((char *)m->versions[v].replicas[r].serve_as.p);
        }
        free(m->versions[v].replicas);
        free(m->versions[v].name);
        free(m->versions[v].tag);
    }
    free(m->versions);
    free(m->signature);
    free(m->name);
    free(m);
}

static void model_unref(struct model_route *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
        model_free(m);
}

static int fill_model(struct model_route *m, json_t *j, struct err *err)
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
    m->created = json_integer_value(json_object_get(j, "created"));
    m->versions = mem_zero(json_array_size(versions) * sizeof(*m->versions));
    for (size_t i = 0; i < json_array_size(versions); i++) {
        struct version_route *v = &m->versions[i];
        m->nversions++;
        if (parse_version(m, v, json_array_get(versions, i), err) < 0)
            return -1;
        m->split |= v->weight && m->total_weight > v->weight;
        for (size_t r = 0; r < v->nreplicas; r++)
            if (v->replicas[r].slot >= m->nslots)
                m->nslots = v->replicas[r].slot + 1;
    }
    m->signature = signature_of(m, j);
    return 0;
}

static struct model_route *model_parse(json_t *j, struct err *err)
{
    struct model_route *m = NEW(struct model_route);

    atomic_init(&m->refs, 1);
    if (fill_model(m, j, err) == 0)
        return m;
    model_free(m);
    return NULL;
}

/* --- names ------------------------------------------------------------------ */

static const struct name_entry *probe(const struct names *names, struct span name, uint64_t hash)
{
    size_t i = hash & (names->n - 1);

    while (names->entries[i].name.p &&
           (names->entries[i].hash != hash || !span_eq(names->entries[i].name, name)))
        i = (i + 1) & (names->n - 1);
    return &names->entries[i];
}

/* The first meaning of a name wins: public names go in before aliases, aliases
 * before the engines' own names. */
static void name_add(struct names *names, struct span name, unsigned model, int version)
{
    uint64_t hash = fnv1a(name);
    struct name_entry *e = (struct name_entry *)probe(names, name, hash);

    if (!e->name.p)
        *e = (struct name_entry){{span_dup(name), name.n}, hash, model, version};
}

/* Adds the lines of a model's signature that begin with `kind`. */
static void names_add_kind(struct names *names, const struct model_route *m, char kind)
{
    for (const char *line = m->signature; *line; line = strchr(line, '\n') + 1)
        if (line[0] == kind && line[1] == ' ')
            name_add(names, span_of(line + 2, strcspn(line + 2, "\n")), m->index, VERSION_BY_ROUTE);
}

/* The words of model registries for "what serves" and "what may serve next". */
static void names_add_roles(struct names *names, const struct model_route *m)
{
    static const struct {
        const char *word;
        int version;
    } roles[] = {
        {"champion", VERSION_CHAMPION},
        {"stable", VERSION_CHAMPION},
        {"challenger", VERSION_CHALLENGER},
        {"canary", VERSION_CHALLENGER},
    };

    for (size_t i = 0; i < COUNT_OF(roles); i++) {
        char *name = str_fmt("%s@%s", m->name, roles[i].word);
        name_add(names, span_str(name), m->index, roles[i].version);
        free(name);
    }
}

static struct names *names_new(const struct table *t)
{
    size_t need = 0, n = 16;

    for (size_t i = 0; i < t->nmodels; i++) {
        need += 4; /* roles */
        for (const char *p = t->models[i]->signature; *p; p++)
            need += *p == '\n';
    }
    while (n < need * 2)
        n *= 2;
    struct names *names = mem_zero(sizeof(*names) + n * sizeof(names->entries[0]));
    atomic_init(&names->refs, 1);
    names->n = n;
    for (size_t i = 0; i < t->nmodels; i++) {
        const struct model_route *m = t->models[i];
        name_add(names, span_str(m->name), m->index, VERSION_BY_ROUTE);
        for (size_t v = 0; v < m->nversions; v++)
            name_add(names, span_str(m->versions[v].tag), m->index, (int)v);
    }
    for (size_t i = 0; i < t->nmodels; i++) {
        names_add_roles(names, t->models[i]);
        names_add_kind(names, t->models[i], 'a');
    }
    /* An application that was set up for one engine goes on with that engine's
     * name for the model; the route decides all the same. */
    for (size_t i = 0; i < t->nmodels; i++)
        names_add_kind(names, t->models[i], 's');
    return names;
}

static void names_unref(struct names *names)
{
    if (!names || atomic_fetch_sub_explicit(&names->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < names->n; i++)
        free((char *)names->entries[i].name.p);
    free(names);
}

static const struct version_route *champion(const struct model_route *m)
{
    const struct version_route *best = NULL;

    for (size_t i = 0; i < m->nversions; i++)
        if (m->versions[i].weight > (best ? best->weight : 0))
            best = &m->versions[i];
    return best;
}

static const struct version_route *challenger(const struct model_route *m)
{
    const struct version_route *first = champion(m);

    for (size_t i = m->nversions; i-- > 0;) {
        const struct version_route *v = &m->versions[i];
        for (size_t r = 0; v != first && r < v->nreplicas; r++)
            if (v->replicas[r].ready)
                return v;
    }
    return NULL;
}

bool table_find(const struct table *t, struct span name, struct table_match *match)
{
    const struct name_entry *e = probe(t->names, name, fnv1a(name));

    if (!e->name.p)
        return false;
    const struct model_route *m = t->models[e->model];
    match->model = m;
    match->version = e->version >= 0                    ? &m->versions[e->version]
                     : e->version == VERSION_CHAMPION   ? champion(m)
                     : e->version == VERSION_CHALLENGER ? challenger(m)
                                                        : NULL;
    return e->version == VERSION_BY_ROUTE || match->version;
}

/* --- for people -------------------------------------------------------------- */

void table_models_json(const struct table *t, struct buf *out)
{
    buf_add_str(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < t->nmodels; i++) {
        const struct model_route *m = t->models[i];
        buf_add_str(out, i ? ",{\"id\":\"" : "{\"id\":\"");
        buf_add_json(out, span_str(m->name));
        buf_addf(out,
                 "\",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"segue\","
                 "\"versions\":[",
                 (long long)m->created);
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
    buf_add_str(out, "]}\n");
}

void table_names_text(const struct table *t, struct buf *out)
{
    enum { SHOWN = 20 };

    for (size_t i = 0; i < t->nmodels && i < SHOWN; i++)
        buf_addf(out, "%s%s", i ? ", " : "", t->models[i]->name);
    if (t->nmodels > SHOWN)
        buf_addf(out, " and %zu more (GET /v1/models)", t->nmodels - SHOWN);
}

/* --- life ------------------------------------------------------------------- */

static void table_free(struct table *t)
{
    for (size_t i = 0; i < t->nmodels; i++)
        model_unref(t->models[i]);
    names_unref(t->names);
    keyring_unref(t->keyring);
    free(t->models);
    for (char **origin = t->cors; origin && *origin; origin++)
        free(*origin);
    free(t->cors);
    free(t->sticky_header);
    free(t);
}

static ssize_t model_index(const struct table *t, const char *name)
{
    struct table_match match;

    if (!name || !table_find(t, span_str(name), &match) || strcmp(match.model->name, name) != 0)
        return -1;
    return match.model->index;
}

/* Shares all of base's models and puts the changed ones in their places. */
static int patch_models(struct table *t, json_t *models, const struct table *base, struct err *err)
{
    bool same_names = true;
    size_t i;
    json_t *j;

    t->models = mem_zero((base->nmodels + json_array_size(models)) * sizeof(*t->models));
    for (; t->nmodels < base->nmodels; t->nmodels++) {
        t->models[t->nmodels] = base->models[t->nmodels];
        atomic_fetch_add_explicit(&t->models[t->nmodels]->refs, 1, memory_order_relaxed);
    }
    json_array_foreach(models, i, j)
    {
        struct model_route *m = model_parse(j, err);
        if (!m)
            return -1;
        ssize_t at = model_index(base, m->name);
        if (at < 0) {
            at = (ssize_t)t->nmodels++;
            same_names = false;
        } else {
            same_names &= strcmp(m->signature, t->models[at]->signature) == 0;
            model_unref(t->models[at]);
        }
        m->index = (unsigned)at;
        t->models[at] = m;
    }
    if (same_names) {
        t->names = base->names;
        atomic_fetch_add_explicit(&t->names->refs, 1, memory_order_relaxed);
    }
    return 0;
}

static int parse_models(struct table *t, json_t *models, struct err *err)
{
    size_t i;
    json_t *j;

    t->models = mem_zero(json_array_size(models) * sizeof(*t->models));
    json_array_foreach(models, i, j)
    {
        t->models[i] = model_parse(j, err);
        if (!t->models[i])
            return -1;
        t->models[i]->index = (unsigned)i;
        t->nmodels++;
    }
    return 0;
}

/* A change that does not name the keys leaves them as they are. */
static int parse_keys(struct table *t, json_t *root, const struct table *base, struct err *err)
{
    json_t *keys = json_object_get(root, "keys");
    bool required = json_is_true(json_object_get(root, "keys_required"));
    struct keyring *old = base ? base->keyring : NULL;

    if (keys || !json_object_get(root, "base"))
        return keyring_parse(keys, required, old, &t->keyring, err);
    t->keyring = old ? keyring_ref(old) : NULL;
    return 0;
}

static char **parse_cors(json_t *list)
{
    size_t n = json_array_size(list);
    char **origins = n ? mem_zero((n + 1) * sizeof(*origins)) : NULL;

    for (size_t i = 0; i < n; i++) {
        const char *origin = json_string_value(json_array_get(list, i));
        origins[i] = str_dup(origin ? origin : "");
    }
    return origins;
}

static int fill_table(struct table *t, json_t *root, const struct table *base, struct err *err)
{
    json_t *models = json_object_get(root, "models");
    json_t *since = json_object_get(root, "base");
    const char *header = json_string_value(json_object_get(root, "sticky_header"));

    if (number(root, "epoch", &t->epoch, err) < 0 || parse_limits(t, root, err) < 0)
        return -1;
    if (since && (!base || (uint64_t)json_integer_value(since) != base->epoch))
        return err_set(err, 409, "table: it is a change of epoch %lld, but the table here is %llu",
                       (long long)json_integer_value(since),
                       base ? (unsigned long long)base->epoch : 0);
    if ((since ? patch_models(t, models, base, err) : parse_models(t, models, err)) < 0 ||
        parse_keys(t, root, base, err) < 0)
        return -1;
    t->sticky_header = str_dup(header ? header : "");
    t->cors = parse_cors(json_object_get(root, "cors"));
    if (!t->names)
        t->names = names_new(t);
    for (size_t i = 0; i < t->nmodels; i++) {
        t->split |= t->models[i]->split;
        if (t->models[i]->nslots > t->nslots)
            t->nslots = t->models[i]->nslots;
    }
    return 0;
}

struct table *table_parse(struct span message, const struct table *base, struct err *err)
{
    json_error_t at;
    json_t *root = json_loadb(message.p, message.n, JSON_REJECT_DUPLICATES, &at);
    struct table *t = NEW(struct table);
    int rc;

    atomic_init(&t->refs, 1);
    if (root)
        rc = fill_table(t, root, base, err);
    else
        rc = err_set(err, 400, "table: not JSON: %s (byte %d)", at.text, at.position);
    json_decref(root);
    if (rc == 0)
        return t;
    table_free(t);
    return NULL;
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
