/*
 * gateway/keyring - see keyring.h.
 *
 * The bucket is one number: the time at which it will be full again.  A request
 * moves it on by one interval, and is refused if that would be further away than
 * what the bucket holds (GCRA; a compare-and-swap, no lock, no timer that fills).
 */
#include "gateway/keyring.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { RATE_MAX = 1000000, SECOND_NS = 1000000000 };

/* --- reading ---------------------------------------------------------------- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_hash(const char *text, unsigned char out[KEY_HASH_BYTES])
{
    if (!text || strlen(text) != 2 * KEY_HASH_BYTES)
        return false;
    for (int i = 0; i < KEY_HASH_BYTES; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

static char **parse_models(const json_t *models)
{
    size_t n = json_array_size(models);

    if (n == 0)
        return NULL;
    char **out = mem_zero((n + 1) * sizeof(*out));
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(models, i));
        out[i] = str_dup(name ? name : "");
    }
    return out;
}

static void key_unref(struct api_key *key)
{
    if (atomic_fetch_sub_explicit(&key->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (atomic_fetch_sub_explicit(&key->meter->refs, 1, memory_order_acq_rel) == 1)
        free(key->meter);
    for (char **m = key->models; m && *m; m++)
        free(*m);
    free(key->models);
    free(key->name);
    free(key);
}

static struct api_key *parse_key(const json_t *j, struct err *err)
{
    const char *name = json_string_value(json_object_get(j, "name"));
    json_int_t concurrency = json_integer_value(json_object_get(j, "concurrency"));
    json_int_t rate = json_integer_value(json_object_get(j, "rate"));
    struct api_key *key = NEW(struct api_key);

    atomic_init(&key->refs, 1);
    key->meter = NEW(struct key_meter);
    atomic_init(&key->meter->refs, 1);
    key->name = str_dup(name ? name : "");
    key->models = parse_models(json_object_get(j, "models"));
    if (!name || !parse_hash(json_string_value(json_object_get(j, "sha256")), key->sha256) ||
        concurrency < 0 || concurrency > INT32_MAX || rate < 0 || rate > RATE_MAX) {
        err_set(err, 400, "table: the key '%.64s' is not one", key->name);
        key_unref(key);
        return NULL;
    }
    key->concurrency = (unsigned)concurrency;
    if (rate > 0) {
        key->rate = (unsigned)rate;
        key->interval_ns = SECOND_NS / (uint64_t)rate;
        key->depth_ns = key->interval_ns * (uint64_t)rate;
    }
    return key;
}

/* --- look-up ---------------------------------------------------------------- */

/* The hash of a good key cannot be chosen, so its own bytes spread well. */
static size_t place_of(const struct keyring *k, const unsigned char *sha256)
{
    uint64_t h;

    memcpy(&h, sha256, sizeof(h));
    return h & (k->nplaces - 1);
}

struct api_key *keyring_find(const struct keyring *k, const unsigned char sha256[KEY_HASH_BYTES])
{
    for (size_t i = place_of(k, sha256); k->places[i]; i = (i + 1) & (k->nplaces - 1))
        if (CRYPTO_memcmp(k->places[i]->sha256, sha256, KEY_HASH_BYTES) == 0)
            return k->places[i];
    return NULL;
}

static void index_keys(struct keyring *k)
{
    for (k->nplaces = 16; k->nplaces < k->nkeys * 2; k->nplaces *= 2)
        ;
    k->places = mem_zero(k->nplaces * sizeof(struct api_key *));
    for (size_t n = 0; n < k->nkeys; n++) {
        size_t i = place_of(k, k->keys[n]->sha256);
        while (k->places[i])
            i = (i + 1) & (k->nplaces - 1);
        k->places[i] = k->keys[n];
    }
}

/* --- life ------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct api_key *const *)a)->name, (*(struct api_key *const *)b)->name);
}

/* Takes the meters of keys with the same name over. */
static void inherit(struct keyring *to, const struct keyring *from)
{
    for (size_t i = 0, j = 0; i < to->nkeys && j < from->nkeys;) {
        struct api_key *new = to->keys[i];
        const struct api_key *old = from->keys[j];
        int order = strcmp(new->name, old->name);
        if (order == 0) {
            atomic_fetch_add_explicit(&old->meter->refs, 1, memory_order_relaxed);
            free(new->meter); /* nobody has seen it yet */
            new->meter = old->meter;
        }
        i += order <= 0;
        j += order >= 0;
    }
}

int keyring_parse(const json_t *keys, bool required, const struct keyring *old,
                  struct keyring **out, struct err *err)
{
    size_t n = json_array_size(keys);

    *out = NULL;
    if (n == 0 && !required)
        return 0;
    struct keyring *k = NEW(struct keyring);
    atomic_init(&k->refs, 1);
    k->required = required;
    k->keys = mem_zero((n + 1) * sizeof(struct api_key *));
    for (size_t i = 0; i < n; i++) {
        struct api_key *key = parse_key(json_array_get(keys, i), err);
        if (!key) {
            keyring_unref(k);
            return -1;
        }
        k->keys[k->nkeys++] = key;
    }
    qsort(k->keys, k->nkeys, sizeof(struct api_key *), by_name);
    if (old)
        inherit(k, old);
    index_keys(k);
    *out = k;
    return 0;
}

struct keyring *keyring_ref(struct keyring *k)
{
    atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
    return k;
}

void keyring_unref(struct keyring *k)
{
    if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < k->nkeys; i++)
        key_unref(k->keys[i]);
    free(k->keys);
    free(k->places);
    free(k);
}

/* --- requests --------------------------------------------------------------- */

/* One token out of the bucket. */
static bool take_token(struct api_key *key, uint64_t now, uint64_t *wait_ns)
{
    _Atomic uint64_t *full_ns = &key->meter->full_ns;
    uint64_t full = atomic_load_explicit(full_ns, memory_order_relaxed), next;

    do {
        next = (full > now ? full : now) + key->interval_ns;
        if (next - now > key->depth_ns) {
            *wait_ns = next - now - key->depth_ns;
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(full_ns, &full, next, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

enum key_verdict api_key_enter(struct api_key *key, uint64_t now_ns, uint64_t *wait_ns)
{
    atomic_uint *in_flight = &key->meter->in_flight;
    unsigned before = atomic_fetch_add_explicit(in_flight, 1, memory_order_relaxed);
    enum key_verdict verdict = key->concurrency && before >= key->concurrency   ? KEY_TOO_MANY
                               : key->rate && !take_token(key, now_ns, wait_ns) ? KEY_TOO_OFTEN
                                                                                : KEY_WELCOME;

    if (verdict == KEY_WELCOME)
        atomic_fetch_add_explicit(&key->refs, 1, memory_order_relaxed);
    else
        atomic_fetch_sub_explicit(in_flight, 1, memory_order_relaxed);
    return verdict;
}

void api_key_leave(struct api_key *key)
{
    atomic_fetch_sub_explicit(&key->meter->in_flight, 1, memory_order_relaxed);
    key_unref(key);
}

bool api_key_allows(const struct api_key *key, const char *model)
{
    if (!key->models)
        return true;
    for (char **m = key->models; *m; m++)
        if (strcmp(*m, model) == 0)
            return true;
    return false;
}
