/* app/account - see account.h. */
#include "app/account.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct slot {
    size_t owner; /* index in entries */
    struct sums seen;
};

struct account {
    struct account_entry *entries; /* owned */
    size_t n;
    struct slot *slots[COUNTERS_SLOTS]; /* owned; NULL: nobody had it yet */
};

struct account *account_new(void)
{
    return NEW(struct account);
}

void account_free(struct account *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->n; i++) {
        free(a->entries[i].model);
        free(a->entries[i].version);
    }
    for (size_t i = 0; i < COUNTERS_SLOTS; i++)
        free(a->slots[i]);
    free(a->entries);
    free(a);
}

/* --- reading ---------------------------------------------------------------- */

static void read_histogram(const struct histogram *h, struct durations *out)
{
    out->sum_us += counter_read(&h->sum_us);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        out->buckets[i] += counter_read(&h->buckets[i]);
}

static void read_slot(const struct counters *rows, unsigned workers, unsigned slot,
                      struct sums *out)
{
    memset(out, 0, sizeof(*out));
    for (unsigned w = 0; w < workers; w++) {
        const struct replica_row *r = &rows->replicas[slot][w];
#define X(name) out->name += counter_read(&r->name);
        REPLICA_COUNTERS(X)
#undef X
#define X(name, help) read_histogram(&r->name, &out->name);
        REPLICA_HISTOGRAMS(X)
#undef X
    }
}

/* All members are sums of 64 bits, so two of them are added member by member. */
_Static_assert(sizeof(struct sums) % sizeof(uint64_t) == 0, "sums has numbers only");

/* Adds to `sum` what a row has grown by, and remembers it. */
static void grow(struct sums *sum, struct sums *seen, const struct sums *now)
{
    uint64_t *to = (uint64_t *)sum, *old = (uint64_t *)seen;
    const uint64_t *new = (const uint64_t *)now;

    for (size_t i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++) {
        to[i] += new[i] > old[i] ? new[i] - old[i] : 0;
        old[i] = new[i];
    }
}

static void look(struct account *a, const struct counters *rows, unsigned workers, unsigned slot)
{
    struct sums now;

    read_slot(rows, workers, slot, &now);
    grow(&a->entries[a->slots[slot]->owner].sums, &a->slots[slot]->seen, &now);
}

void account_read(struct account *a, const struct counters *rows, unsigned workers)
{
    for (unsigned i = 0; i < COUNTERS_SLOTS; i++)
        if (a->slots[i])
            look(a, rows, workers, i);
}

/* --- owners ----------------------------------------------------------------- */

static struct account_entry *find(const struct account *a, const char *model, const char *version)
{
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->entries[i].model, model) == 0 && strcmp(a->entries[i].version, version) == 0)
            return &a->entries[i];
    return NULL;
}

static size_t entry_of(struct account *a, const char *model, const char *version)
{
    struct account_entry *e = find(a, model, version);

    if (e)
        return (size_t)(e - a->entries);
    a->entries = mem_grow(a->entries, (a->n + 1) * sizeof(*a->entries));
    a->entries[a->n] = (struct account_entry){.model = str_dup(model), .version = str_dup(version)};
    return a->n++;
}

void account_assign(struct account *a, const struct counters *rows, unsigned workers, unsigned slot,
                    const char *model, const char *version, bool goes_on)
{
    ALWAYS(slot < COUNTERS_SLOTS);
    size_t owner = entry_of(a, model, version);

    if (a->slots[slot]) {
        look(a, rows, workers, slot);
    } else {
        a->slots[slot] = NEW(struct slot);
        if (!goes_on)
            read_slot(rows, workers, slot, &a->slots[slot]->seen);
    }
    a->slots[slot]->owner = owner;
}

const struct account_entry *account_entries(const struct account *a, size_t *n)
{
    *n = a->n;
    return a->entries;
}

const struct sums *account_of(const struct account *a, const char *model, const char *version)
{
    static const struct sums none;
    const struct account_entry *e = find(a, model, version);

    return e ? &e->sums : &none;
}
