/* API keys: look-up by hash, the bucket, how many at a time, and what a new table takes over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/alloc.h"
#include "gateway/keyring.h"

#define SECOND UINT64_C(1000000000)

static json_t *key_json(const char *name, unsigned hash, int concurrency, int rate)
{
    char hex[2 * KEY_HASH_BYTES + 1];

    snprintf(hex, sizeof(hex), "%08x%056x", hash, 1);
    return json_pack("{s:s, s:s, s:[], s:i, s:i}", "name", name, "sha256", hex, "models",
                     "concurrency", concurrency, "rate", rate);
}

/* Steals the list. */
static struct keyring *ring(json_t *list, const struct keyring *old)
{
    struct keyring *k = NULL;
    struct err err;

    assert_int_equal(keyring_parse(list, true, old, &k, &err), 0);
    json_decref(list);
    return k;
}

static struct keyring *ring_of_one(int concurrency, int rate, const struct keyring *old)
{
    return ring(json_pack("[o]", key_json("ci", 7, concurrency, rate)), old);
}

static void hash_of(unsigned hash, unsigned char out[KEY_HASH_BYTES])
{
    memset(out, 0, KEY_HASH_BYTES);
    for (int i = 0; i < 4; i++)
        out[i] = (unsigned char)(hash >> (24 - 8 * i));
    out[KEY_HASH_BYTES - 1] = 1;
}

static struct api_key *find(const struct keyring *k, unsigned hash)
{
    unsigned char sha256[KEY_HASH_BYTES];

    hash_of(hash, sha256);
    return keyring_find(k, sha256);
}

static void nothing_to_look_at(void **state)
{
    json_t *none = json_array();
    struct keyring *k = (struct keyring *)&none;
    struct err err;

    assert_int_equal(keyring_parse(NULL, false, NULL, &k, &err), 0);
    assert_null(k);
    assert_int_equal(keyring_parse(none, false, NULL, &k, &err), 0);
    assert_null(k);
    assert_int_equal(keyring_parse(none, true, NULL, &k, &err), 0);
    assert_non_null(k);
    assert_null(find(k, 7));
    keyring_unref(k);
    json_decref(none);
}

/* The look-up's place comes from the first eight bytes, little end first: the low byte is
 * that of hash >> 24, so that all of these begin at few places and must probe on. */
static void every_key_is_found(void **state)
{
    enum { N = 100 };
    json_t *list = json_array();
    char name[16];

    for (unsigned i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "k%u", i);
        json_array_append_new(list, key_json(name, i, 0, 0));
    }
    struct keyring *k = ring(list, NULL);
    for (unsigned i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "k%u", i);
        assert_non_null(find(k, i));
        assert_string_equal(find(k, i)->name, name);
    }
    assert_null(find(k, N));
    unsigned char sha256[KEY_HASH_BYTES];
    for (int i = 0; i < KEY_HASH_BYTES; i++) { /* each byte counts */
        hash_of(3, sha256);
        sha256[i] ^= 0x80;
        assert_null(keyring_find(k, sha256));
    }
    keyring_unref(k);
}

static enum key_verdict enter(struct api_key *key, uint64_t now)
{
    uint64_t wait;

    return api_key_enter(key, now, &wait);
}

/* How many of `tries` requests at `now` are welcome; each ends at once. */
static int welcome(struct api_key *key, uint64_t now, int tries)
{
    int n = 0;

    while (tries--) {
        if (enter(key, now) != KEY_WELCOME)
            continue;
        api_key_leave(key);
        n++;
    }
    return n;
}

static void the_bucket_holds_one_second(void **state)
{
    static const struct {
        int rate;
        uint64_t after; /* since a bucket was emptied */
        int welcome;    /* of 1000 */
    } cases[] = {
        {1, 0, 0},        {1, SECOND - 1, 0},       {1, SECOND, 1},       {1, 100 * SECOND, 1},
        {10, 0, 0},       {10, SECOND / 10 - 1, 0}, {10, SECOND / 10, 1}, {10, SECOND / 2, 5},
        {10, SECOND, 10}, {10, 3600 * SECOND, 10},  {3, SECOND, 3},       {999, SECOND, 999},
    };

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct keyring *k = ring_of_one(0, cases[i].rate, NULL);
        struct api_key *key = find(k, 7);
        uint64_t now = 5 * SECOND;
        assert_int_equal(welcome(key, now, 1000), cases[i].rate);
        assert_int_equal(welcome(key, now + cases[i].after, 1000), cases[i].welcome);
        keyring_unref(k);
    }
}

static void who_is_refused_learns_for_how_long(void **state)
{
    struct keyring *k = ring_of_one(0, 2, NULL);
    struct api_key *key = find(k, 7);
    uint64_t now = 9 * SECOND, wait = 0;

    assert_int_equal(welcome(key, now, 2), 2);
    assert_int_equal(api_key_enter(key, now, &wait), KEY_TOO_OFTEN);
    assert_int_equal(wait, SECOND / 2);
    assert_int_equal(api_key_enter(key, now + wait - 1, &wait), KEY_TOO_OFTEN);
    assert_int_equal(wait, 1);
    assert_int_equal(welcome(key, now + SECOND / 2, 2), 1);
    /* Another worker's clock may be a moment behind. */
    assert_int_equal(enter(key, now - SECOND / 100), KEY_TOO_OFTEN);
    keyring_unref(k);
}

static void so_many_at_a_time(void **state)
{
    struct keyring *k = ring_of_one(2, 0, NULL);
    struct api_key *key = find(k, 7);

    assert_int_equal(enter(key, 1), KEY_WELCOME);
    assert_int_equal(enter(key, 1), KEY_WELCOME);
    assert_int_equal(enter(key, 1), KEY_TOO_MANY);
    assert_int_equal(enter(key, 1), KEY_TOO_MANY);
    api_key_leave(key);
    assert_int_equal(enter(key, 1), KEY_WELCOME);
    api_key_leave(key);
    api_key_leave(key);
    assert_int_equal(atomic_load(&key->meter->in_flight), 0);
    keyring_unref(k);
}

static void who_is_over_one_limit_uses_nothing_of_the_other(void **state)
{
    struct keyring *k = ring_of_one(1, 2, NULL);
    struct api_key *key = find(k, 7);

    assert_int_equal(enter(key, SECOND), KEY_WELCOME);
    for (int i = 0; i < 10; i++)
        assert_int_equal(enter(key, SECOND), KEY_TOO_MANY);
    api_key_leave(key);
    assert_int_equal(welcome(key, SECOND, 10), 1);
    assert_int_equal(enter(key, SECOND), KEY_TOO_OFTEN);
    assert_int_equal(atomic_load(&key->meter->in_flight), 0);
    keyring_unref(k);
}

static void a_new_table_goes_on_counting(void **state)
{
    struct keyring *k = ring_of_one(2, 2, NULL), *next;
    struct api_key *old = find(k, 7);

    assert_int_equal(enter(old, SECOND), KEY_WELCOME);
    assert_int_equal(enter(old, SECOND), KEY_WELCOME);
    next = ring(json_pack("[o, o, o]", key_json("zz", 9, 0, 1), key_json("ci", 8, 2, 2),
                          key_json("aa", 10, 0, 1)),
                k);
    keyring_unref(k); /* the two requests hold their key */
    struct api_key *new = find(next, 8);
    assert_null(find(next, 7));
    assert_int_equal(enter(new, SECOND), KEY_TOO_MANY);
    api_key_leave(old);
    assert_int_equal(enter(new, SECOND), KEY_TOO_OFTEN);
    api_key_leave(old); /* the last that held it */
    assert_int_equal(welcome(new, 2 * SECOND, 10), 2);
    assert_int_equal(welcome(find(next, 9), SECOND, 10), 1);
    keyring_unref(next);
}

static void models(void **state)
{
    struct err err;
    struct keyring *k;
    json_t *one = key_json("ci", 7, 0, 0), *list;

    json_object_set_new(one, "models", json_pack("[s, s]", "hy-mt", "tiny"));
    list = json_pack("[o, o]", one, key_json("all", 8, 0, 0));
    assert_int_equal(keyring_parse(list, true, NULL, &k, &err), 0);
    json_decref(list);
    assert_true(api_key_allows(find(k, 7), "hy-mt"));
    assert_true(api_key_allows(find(k, 7), "tiny"));
    assert_false(api_key_allows(find(k, 7), "hy"));
    assert_false(api_key_allows(find(k, 7), "hy-mt2"));
    assert_true(api_key_allows(find(k, 8), "hy-mt2"));
    keyring_unref(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_to_look_at),
        cmocka_unit_test(every_key_is_found),
        cmocka_unit_test(the_bucket_holds_one_second),
        cmocka_unit_test(who_is_refused_learns_for_how_long),
        cmocka_unit_test(so_many_at_a_time),
        cmocka_unit_test(who_is_over_one_limit_uses_nothing_of_the_other),
        cmocka_unit_test(a_new_table_goes_on_counting),
        cmocka_unit_test(models),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
