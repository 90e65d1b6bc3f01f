/*
 * gateway/keyring - the API keys of a table: who may come in, and how often.
 *
 * A keyring knows keys by the SHA-256 of their text; it never sees the text.  It
 * belongs to a table, or to several, and is as immutable.  What changes is in the meters: one for
 * each name, shared by all workers and handed on from table to table, so that a
 * switch gives nobody a fresh allowance.
 *
 *   table ──counts──▶ keyring ──counts──▶ api_key ──counts──▶ key_meter (atomics)
 *                                           ▲
 *   exchange ──counts, while it lives───────┘
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct json_t; /* of jansson, whose header does not go with json/scan.h */

enum { KEY_HASH_BYTES = 32 };

struct key_meter {
    atomic_uint refs;
    atomic_uint in_flight;
    _Atomic uint64_t full_ns; /* when the bucket is full again; in the past: it is full */
};

struct api_key {
    atomic_uint refs;
    char *name; /* owned, as all pointers here unless it says otherwise */
    unsigned char sha256[KEY_HASH_BYTES];
    char **models;           /* NULL-terminated; NULL: all */
    unsigned concurrency;    /* requests at a time; 0: any */
    unsigned rate;           /* requests that may begin in a second; 0: any */
    uint64_t interval_ns;    /* between two requests at that rate */
    uint64_t depth_ns;       /* what the bucket holds, in time: one second of requests */
    struct key_meter *meter; /* counted */
};

struct keyring {
    atomic_uint refs;
    bool required;         /* requests without a key are refused */
    struct api_key **keys; /* counted each; sorted by name */
    size_t nkeys;
    struct api_key **places; /* borrowed; open addressing by the hash's first bytes */
    size_t nplaces;          /* a power of two */
};

/*
 * From the members `keys` (may be NULL) and `keys_required` of a table message.  With no key
 * and none required *out is NULL: nothing has to be looked at.  Meters are those of `old`
 * (borrowed, may be NULL) where it has a key of the same name.  -1 with a sentence.
 */
int keyring_parse(const struct json_t *keys, bool required, const struct keyring *old,
                  struct keyring **out, struct err *err) MUST_CHECK;
struct keyring *keyring_ref(struct keyring *k);
void keyring_unref(struct keyring *k); /* NULL is fine */

/* The key with this hash, borrowed from the keyring, or NULL. */
struct api_key *keyring_find(const struct keyring *k, const unsigned char sha256[KEY_HASH_BYTES]);

enum key_verdict {
    KEY_WELCOME,
    KEY_TOO_MANY, /* as many requests as it may have are being answered */
    KEY_TOO_OFTEN /* its rate is used up; *wait_ns says for how long */
};

/* A request begins; if it is welcome it counts, and holds the key, until api_key_leave(). */
enum key_verdict api_key_enter(struct api_key *key, uint64_t now_ns, uint64_t *wait_ns);
void api_key_leave(struct api_key *key);

bool api_key_allows(const struct api_key *key, const char *model);
