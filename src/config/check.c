/*
 * check - what can be seen only when the whole file is read: keys that need or
 * exclude each other, names that must be there, names that must be there once.
 *
 * Array entries and the tree's pairs have the same order and number.
 */
#include <sched.h>
#include <stdlib.h>
#include <sys/un.h>

#include "base/alloc.h"
#include "config/internal.h"
#include "config/nearest.h"

#define AT(node) (node)->line, (node)->column

/* Position for a message about a missing thing: the entry's name. */
static const struct node *or_else(const struct node *node, const struct node *fallback)
{
    return node ? node : fallback;
}

/* --- versions --------------------------------------------------------- */

static void check_engine_keys(struct reader *r, const struct node *name, const struct node *map,
                              const struct config_version *v)
{
    const char *engine = config_engine_name(v->engine);
    uint32_t bit = UINT32_C(1) << v->engine;

    KEYS_OF(key, SCOPE_VERSION)
    {
        const struct node *at = tree_get_key(map, key->name);
        if (at && key->engines && !(key->engines & bit)) {
            struct buf list = {0};
            keys_list(&list, SCOPE_VERSION, (int)v->engine);
            diag_error(r->diags, AT(at), "'%s' does not belong to engine '%s'; it takes %s",
                       key->name, engine, buf_cstr(&list));
            buf_fini(&list);
        }
        if (!at && key->required & bit)
            diag_error(r->diags, AT(name), "version '%s' needs '%s' (%s)", name->text, key->name,
                       key_type_text(key->type));
    }
}

/* A program that is not told where to listen cannot be reached. */
static void check_run(struct reader *r, const struct node *map, const struct config_version *v)
{
    const struct node *at = tree_get(map, "run");

    if (v->engine != CONFIG_ENGINE_COMMAND || !at || at->kind != NODE_LIST || !v->run)
        return;
    for (char **list = v->run; list; list = list == v->run ? v->args : NULL)
        for (char **word = list; *word; word++)
            if (strstr(*word, "{port}") || strstr(*word, "{socket}"))
                return;
    diag_error(r->diags, AT(at),
               "'run' has neither {port} nor {socket}; the program must be told where to listen");
}

static void check_version(struct reader *r, const struct config_model *m, struct config_version *v,
                          const struct node *name, const struct node *map)
{
    const struct node *engine = tree_get(map, "engine");

    if (!map || map->kind != NODE_MAP)
        return;
    if (!engine) {
        struct buf list = {0};
        for (size_t i = 0; config_engine_name((enum config_engine)i); i++)
            buf_addf(&list, "%s%s", i ? ", " : "", config_engine_name((enum config_engine)i));
        diag_error(r->diags, AT(name), "version '%s' needs 'engine' (%s)", name->text,
                   buf_cstr(&list));
        buf_fini(&list);
    } else if (engine->kind == NODE_SCALAR && config_engine_by_name(engine->text) >= 0) {
        check_engine_keys(r, name, map, v);
        check_run(r, map, v);
    }
    if (!v->served_model_name)
        v->served_model_name = v->engine == CONFIG_ENGINE_OPENAI
                                   ? str_dup(m->name)
                                   : str_fmt("%s@%s", m->name, v->name);
}

/* --- models ----------------------------------------------------------- */

static void check_serve(struct reader *r, struct config_model *m, const struct node *name,
                        const struct node *map)
{
    const struct node *at = tree_get(map, "serve");
    struct buf list = {0};

    if (m->nversions == 0)
        return; /* said already */
    const char **names = mem_zero(m->nversions * sizeof(*names));
    for (size_t i = 0; i < m->nversions; i++) {
        names[i] = m->versions[i].name;
        buf_addf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    if (!at && m->nversions == 1) {
        m->serve = str_dup(m->versions[0].name);
    } else if (!at) {
        diag_error(r->diags, AT(name), "model '%s' needs 'serve': one of its versions %s",
                   name->text, buf_cstr(&list));
    } else if (m->serve && !config_version_find(m, m->serve)) {
        const char *near = nearest_word(m->serve, names, m->nversions);
        diag_error(r->diags, AT(at), "'serve' names version '%s', which is not there; %s%s%s",
                   m->serve, near ? "did you mean '" : "there is ", near ? near : buf_cstr(&list),
                   near ? "'?" : "");
    }
    free(names);
    buf_fini(&list);
}

/* Whether an earlier model, or an earlier alias, has the name already. */
static const struct config_model *taken(const struct config *c, size_t model, size_t alias)
{
    const char *name = c->models[model].aliases[alias];

    for (size_t i = 0; i < c->nmodels; i++) {
        if (strcmp(c->models[i].name, name) == 0)
            return &c->models[i];
        if (i >= model)
            continue;
        for (char **a = c->models[i].aliases; a && *a; a++)
            if (strcmp(*a, name) == 0)
                return &c->models[i];
    }
    return NULL;
}

static void check_aliases(struct reader *r, const struct config *c, size_t model,
                          const struct node *map)
{
    const struct node *at = tree_get(map, "aliases");

    for (size_t i = 0; at && c->models[model].aliases && c->models[model].aliases[i]; i++) {
        const struct config_model *other = taken(c, model, i);
        if (other)
            diag_error(r->diags, AT(at->kind == NODE_LIST && i < at->n ? at->items[i] : at),
                       "alias '%s' is taken already by model '%s'", c->models[model].aliases[i],
                       other->name);
    }
}

static void check_model(struct reader *r, struct config *c, size_t i, const struct node *name,
                        const struct node *map)
{
    struct config_model *m = &c->models[i];
    const struct node *versions = tree_get(map, "versions");

    if (map->kind != NODE_MAP)
        return;
    if (!versions)
        diag_error(r->diags, AT(name), "model '%s' needs 'versions'", name->text);
    for (size_t j = 0; j < m->nversions; j++)
        check_version(r, m, &m->versions[j], versions->keys[j], versions->items[j]);
    check_serve(r, m, name, map);
    check_aliases(r, c, i, map);
}

/* --- the file --------------------------------------------------------- */

static unsigned cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n < 1 ? 1 : n > 16 ? 16 : (unsigned)n;
}

/* The kernel's limit for the path of a unix socket, with its final zero. */
static void check_socket(struct reader *r, const struct node *at, const char *what,
                         const char *path)
{
    size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

    if (strlen(path) > max)
        diag_error(r->diags, AT(at),
                   "%s: the path of a unix socket has at most %zu bytes, %s has %zu", what, max,
                   path, strlen(path));
}

static void check_sockets(struct reader *r, const struct node *root, struct config *c)
{
    const struct node *state = or_else(tree_get(root, "state"), root);
    const struct node *admin = tree_get(tree_get(root, "admin"), "socket");
    char *gateway = str_fmt("%s/gateway.sock", c->state);

    check_socket(r, state, "'state'", gateway);
    if (!c->admin_socket)
        c->admin_socket = str_fmt("%s/admin.sock", c->state);
    if (admin)
        check_socket(r, admin, "'socket'", c->admin_socket);
    if (admin && strcmp(c->admin_socket, gateway) == 0)
        diag_error(r->diags, AT(admin),
                   "'socket' is the gateway's own socket; choose another name");
    free(gateway);
}

/* The first address of a list that speaks TLS, and its node; NULL if there is none. */
static const struct node *first_tls(const struct node *list, char *const *addresses)
{
    for (size_t i = 0; addresses && addresses[i]; i++)
        if (address_is_tls(addresses[i]))
            return list && list->kind == NODE_LIST && i < list->n ? list->items[i] : list;
    return NULL;
}

static void check_tls(struct reader *r, const struct node *root, const struct config *c)
{
    const struct node *tls = tree_get(root, "tls");
    const struct node *metrics = tree_get(tree_get(root, "metrics"), "listen");
    const struct node *https = first_tls(tree_get(root, "listen"), c->listen);

    if (https && !(c->tls_certificate && c->tls_key))
        diag_error(r->diags, AT(https), "an address with https:// needs 'tls' with %s",
                   c->tls_certificate ? "'key'"
                   : c->tls_key       ? "'certificate'"
                                      : "'certificate' and 'key'");
    if (tls && tls->kind == NODE_MAP && !https)
        diag_error(r->diags, AT(tls),
                   "'tls' is not used: no address in 'listen' begins with "
                   "https://");
    metrics = first_tls(metrics, c->metrics_listen);
    if (metrics)
        diag_error(r->diags, AT(metrics), "the metrics are not served over TLS");
}

/* The same address for clients and for Prometheus: one of the two could not listen. */
static void check_metrics(struct reader *r, const struct node *root, const struct config *c)
{
    const struct node *metrics = tree_get(tree_get(root, "metrics"), "listen");

    for (size_t i = 0; metrics && c->metrics_listen && c->metrics_listen[i]; i++)
        for (size_t k = 0; c->listen && c->listen[k]; k++)
            if (strcmp(c->metrics_listen[i], c->listen[k]) == 0 &&
                strcmp(strrchr(c->listen[k], ':'), ":0") != 0)
                diag_error(r->diags, AT(metrics),
                           "%s is an address of the top level's 'listen' too", c->listen[k]);
}

void check_config(struct reader *r, const struct node *root, struct config *c)
{
    const struct node *models = tree_get(root, "models");

    if (!models)
        diag_error(r->diags, AT(root), "'models' is missing; at least one model is needed");
    for (size_t i = 0; i < c->nmodels; i++)
        check_model(r, c, i, models->keys[i], models->items[i]);
    if (c->workers == 0)
        c->workers = cores();
    check_sockets(r, root, c);
    check_tls(r, root, c);
    check_metrics(r, root, c);
}
