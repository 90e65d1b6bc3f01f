/*
 * app/account - what the exchanges of each version came to, as sums that never go
 * backwards while the manager lives.
 *
 * The gateway's rows belong to slots, and a slot is given to one replica after the
 * other.  The account knows whose each slot is: what a row has grown by since the
 * last look is added to the version that has the slot.  A slot stays with its
 * former owner until it is given away, so that nothing which ends late is lost.
 *
 *    row of slot 3:   0 ──── 40 ──┬─ 55 ──── 90        v1: 40 + 15
 *                         v1      └ assign v2          v2: 35
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gateway/counters.h"

struct durations {
    uint64_t sum_us;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

// clang-format off
#define REPLICA_HISTOGRAMS(X)                                                         \
    X(first_byte, "Request sent to the first byte of the answer's body.")             \
    X(token,      "Streamed answers: mean time of one event after the first.")        \
    X(whole,      "Request received to the end of its answer, for whole answers.")
// clang-format on

struct sums {
#define X(name) uint64_t name;
    REPLICA_COUNTERS(X)
#undef X
#define X(name, help) struct durations name;
    REPLICA_HISTOGRAMS(X)
#undef X
};

/* A version that has, or had, a slot. */
struct account_entry {
    char *model, *version; /* owned */
    struct sums sums;
};

struct account;

struct account *account_new(void);
void account_free(struct account *a);

/*
 * A slot goes to a replica of model@version.  `goes_on`: it had the slot before this
 * manager came, so what its row holds already is its own.  Rows of `workers` workers
 * are looked at.
 */
void account_assign(struct account *a, const struct counters *rows, unsigned workers, unsigned slot,
                    const char *model, const char *version, bool goes_on);

/* Brings all sums up to date. */
void account_read(struct account *a, const struct counters *rows, unsigned workers);

/* All versions in order of their first slot; valid until the next account_assign(). */
const struct account_entry *account_entries(const struct account *a, size_t *n);
/* The sums of one version; all zero if it never had a slot. */
const struct sums *account_of(const struct account *a, const char *model, const char *version);
