/* app/apikeys - see apikeys.h. */
#include "app/apikeys.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/random.h>

#include "app/internal.h"
#include "base/alloc.h"
#include "base/clock.h"

enum {
    SECRET_BYTES = 32,
    KEYS_MAX = 10000, /* the table must stay a message of bearable size */
    CONCURRENCY_MAX = 1000000,
    RATE_MAX = 1000000
};

#define KEY_BEGIN "sk-segue-"

/* Who waits until the gateway acts by what was changed. */
struct waiter {
    struct list link;        /* in manager.key_waiters */
    struct admin_call *call; /* owned until it is answered */
    json_t *answer;          /* owned */
    uint64_t epoch;
};

/* --- the list --------------------------------------------------------------- */

static void on_key(const struct store_key *k, void *arg)
{
    char added[CLOCK_TEXT_MAX];

    clock_text(k->added_ms, added);
    json_array_append_new(arg, json_pack("{s:s, s:s, s:O, s:I, s:I, s:s}", "name", k->name,
                                         "sha256", k->sha256, "models", k->models, "concurrency",
                                         (json_int_t)k->concurrency, "rate", (json_int_t)k->rate,
                                         "added", added));
}

int apikeys_load(struct manager *m, struct err *err)
{
    json_t *keys = json_array();

    if (store_keys(m->store, on_key, keys, err) != 0) {
        json_decref(keys);
        return -1;
    }
    json_decref(m->keys);
    m->keys = keys;
    m->keys_changed = true;
    return 0;
}

void apikeys_free(struct manager *m)
{
    json_decref(m->keys);
}

static json_t *find(const struct manager *m, const char *name)
{
    json_t *key;
    size_t i;

    json_array_foreach(m->keys, i, key)
    {
        if (strcmp(json_string_value(json_object_get(key, "name")), name) == 0)
            return key;
    }
    return NULL;
}

/* The list without one member of each key. */
static json_t *list_without(const struct manager *m, const char *member)
{
    json_t *list = json_array(), *key;
    size_t i;

    json_array_foreach(m->keys, i, key)
    {
        json_t *copy = json_copy(key);
        json_object_del(copy, member);
        json_array_append_new(list, copy);
    }
    return list;
}

json_t *apikeys_table(const struct manager *m)
{
    return list_without(m, "added");
}

json_t *apikeys_list(void *arg)
{
    const struct manager *m = arg;

    return json_pack("{s:b, s:o}", "required", m->config->keys_required, "keys",
                     list_without(m, "sha256"));
}

/* --- waiting for the gateway ------------------------------------------------ */

/* The store has the change: the gateway is told, then the caller. */
static void publish(struct manager *m, struct admin_call *call, json_t *answer)
{
    struct waiter *w = NEW(struct waiter);

    fleetwork_publish(m);
    w->call = call;
    w->answer = answer;
    w->epoch = m->epoch;
    list_append(&m->key_waiters, &w->link);
}

static void waiter_free(struct waiter *w)
{
    list_remove(&w->link);
    json_decref(w->answer);
    free(w);
}

void apikeys_acked(struct manager *m, uint64_t epoch)
{
    LIST_FOR_EACH_SAFE(it, &m->key_waiters)
    {
        struct waiter *w = CONTAINER_OF(it, struct waiter, link);

        if (w->epoch > epoch)
            continue;
        admin_reply(w->call, 200, json_incref(w->answer));
        waiter_free(w);
    }
}

void apikeys_abandon(struct manager *m)
{
    struct err err;

    err_set(&err, 503,
            "the manager is stopping; the change is stored, but the gateway has not "
            "said that it acts by it");
    LIST_FOR_EACH_SAFE(it, &m->key_waiters)
    {
        struct waiter *w = CONTAINER_OF(it, struct waiter, link);

        admin_fail(w->call, &err);
        waiter_free(w);
    }
}

/* --- add -------------------------------------------------------------------- */

static int check_models(const struct manager *m, const json_t *models, struct err *err)
{
    struct buf names = {0};
    json_t *model;
    size_t i;
    int result = 0;

    for (size_t k = 0; k < m->nmodels; k++)
        buf_addf(&names, "%s%s", k ? ", " : "", m->models[k]->config->name);
    json_array_foreach(models, i, model)
    {
        if (result == 0 && !manager_model(m, json_string_value(model)))
            result = err_set(err, 404, "there is no model '%.64s'; there is: %s",
                             json_string_value(model), buf_cstr(&names));
    }
    buf_fini(&names);
    return result;
}

static int check_add(const struct manager *m, const struct store_key *k, struct err *err)
{
    if (m->state != MANAGER_RUNNING)
        return err_set(err, 503, "the manager is stopping");
    if (!config_name_ok(k->name))
        return err_set(err, 400,
                       "'%.64s' cannot be a key's name: letters, digits, '.', '_' and '-' "
                       "(64 at most), the first a letter or digit",
                       k->name);
    if (k->concurrency > CONCURRENCY_MAX || k->rate > RATE_MAX)
        return err_set(err, 400, "'%s' is at most %d", k->rate > RATE_MAX ? "rate" : "concurrency",
                       k->rate > RATE_MAX ? RATE_MAX : CONCURRENCY_MAX);
    if (find(m, k->name))
        return err_set(err, 409, "there is a key '%s' already; `segue key revoke %s` ends it",
                       k->name, k->name);
    if (json_array_size(m->keys) >= KEYS_MAX)
        return err_set(err, 409, "there are %d keys already, and no more are kept", KEYS_MAX);
    return check_models(m, k->models, err);
}

static void add_hex(struct buf *out, const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_addf(out, "%02x", p[i]);
}

/* A new secret into `text`, its SHA-256 into `sha256`, both empty before. */
static int make_key(struct buf *text, struct buf *sha256, struct err *err)
{
    unsigned char secret[SECRET_BYTES], hash[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    if (getrandom(secret, sizeof(secret), 0) != sizeof(secret))
        return err_set(err, 500, "the kernel gives no random bytes: %s", strerror(errno));
    buf_add_str(text, KEY_BEGIN);
    add_hex(text, secret, sizeof(secret));
    ALWAYS(EVP_Digest(buf_head(text), buf_pending(text), hash, &n, EVP_sha256(), NULL) == 1);
    add_hex(sha256, hash, n);
    return 0;
}

void apikeys_add(struct admin_call *call, const char *name, const json_t *models,
                 int64_t concurrency, int64_t rate, void *arg)
{
    struct manager *m = arg;
    struct buf text = {0}, sha256 = {0};
    struct err err;
    json_t *list = models ? json_deep_copy(models) : json_array();
    struct store_key k = {.name = name, .models = list, .concurrency = concurrency, .rate = rate};

    if (check_add(m, &k, &err) == 0 && make_key(&text, &sha256, &err) == 0 &&
        (k.sha256 = buf_cstr(&sha256), store_key_add(m->store, &k, &err)) == 0 &&
        apikeys_load(m, &err) == 0)
        publish(m, call,
                json_pack("{s:s, s:s, s:O, s:I, s:I, s:b}", "name", name, "key", buf_cstr(&text),
                          "models", list, "concurrency", (json_int_t)concurrency, "rate",
                          (json_int_t)rate, "required", m->config->keys_required));
    else
        admin_fail(call, &err);
    json_decref(list);
    buf_fini(&text);
    buf_fini(&sha256);
}

/* --- revoke ----------------------------------------------------------------- */

void apikeys_revoke(struct admin_call *call, const char *name, void *arg)
{
    struct manager *m = arg;
    struct err err;
    int result = 0;

    if (m->state != MANAGER_RUNNING)
        result = err_set(&err, 503, "the manager is stopping");
    else if (!find(m, name))
        result = err_set(&err, 404, "there is no key '%.64s'; `segue key list` shows them", name);
    if (result == 0 && store_key_delete(m->store, name, &err) == 0 && apikeys_load(m, &err) == 0)
        publish(m, call, json_pack("{s:s, s:b}", "name", name, "revoked", 1));
    else
        admin_fail(call, &err);
}
