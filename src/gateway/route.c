/*
 * gateway/route - see route.h.
 *
 * "Power of two choices" (Mitzenmacher 1996): the less busy of two random
 * replicas is nearly as good as the least busy of all, and does not send every
 * worker to the same one.
 */
#include "gateway/route.h"

#include "gateway/internal.h"

enum { SLOW_START_MS = 10000, TRIAL_NS = 1000000000 };

const struct version_route *route_version(const struct model_route *m, uint64_t dice)
{
    if (m->total_weight == 0)
        return NULL;
    /* The newest version has the line's beginning, so that more weight for it
     * takes from the others and gives them nothing back. */
    uint64_t at = (uint64_t)((unsigned __int128)dice * m->total_weight >> 64);
    for (size_t i = m->nversions; i-- > 0;) {
        if (at < m->versions[i].weight)
            return &m->versions[i];
        at -= m->versions[i].weight;
    }
    ALWAYS(!"weights add up");
    return NULL;
}

/* Half open: after failures one exchange goes ahead, the others wait for its luck.  An engine
 * that has kept the request for TRIAL_NS lives, however long its answer takes. */
static bool on_trial(const struct pool *p, uint64_t now_ns)
{
    return p->trial &&
           (p->trial->state != EXCHANGE_WAITING || now_ns < p->trial->sent_ns + TRIAL_NS);
}

static bool usable(struct worker *w, const struct version_route *v, size_t i, uint64_t tried)
{
    const struct replica_route *r = &v->replicas[i];

    if (!r->ready || (tried >> i % 64 & 1))
        return false;
    struct pool *p = pool_of(w, r);
    if (p->avoid_until_ns > w->loop.now_ns && p->avoid_epoch == w->view->table->epoch)
        return false;
    return p->failures == 0 || !on_trial(p, w->loop.now_ns);
}

/* A replica that has just come takes up its part of the load over SLOW_START_MS: its
 * caches are cold.  In 1/1024 of its full part. */
static uint64_t ramp(const struct worker *w, const struct pool *p)
{
    uint64_t age_ms = (w->loop.now_ns - p->since_ns) / 1000000;

    if (age_ms >= SLOW_START_MS)
        return 1024;
    return 128 + 896 * age_ms / SLOW_START_MS;
}

/* Exchanges in flight there, over all workers; more for one that starts slowly. */
static uint64_t load_of(struct worker *w, const struct replica_route *r)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < w->gateway_workers; i++)
        sum += replica_row_in_flight(&w->counters->replicas[r->slot][i]);
    return (sum + 1) * 1024 / ramp(w, pool_of(w, r));
}

/* The n-th of those that can be asked. */
static const struct replica_route *nth_usable(struct worker *w, const struct version_route *v,
                                              uint64_t tried, size_t n)
{
    for (size_t i = 0; i < v->nreplicas; i++)
        if (usable(w, v, i, tried) && n-- == 0)
            return &v->replicas[i];
    ALWAYS(!"counted a moment ago");
    return NULL;
}

const struct replica_route *route_replica(struct worker *w, const struct version_route *v,
                                          uint64_t tried)
{
    size_t n = 0;

    for (size_t i = 0; i < v->nreplicas; i++)
        n += usable(w, v, i, tried);
    if (n == 0)
        return NULL;
    if (n == 1)
        return nth_usable(w, v, tried, 0);
    /* Any two, each pair as likely: the neighbour of one that is down gets no more. */
    uint64_t dice = worker_random(w);
    size_t first = (dice >> 32) % n, second = (first + 1 + (uint32_t)dice % (n - 1)) % n;
    const struct replica_route *a = nth_usable(w, v, tried, first);
    const struct replica_route *b = nth_usable(w, v, tried, second);
    return load_of(w, b) < load_of(w, a) ? b : a;
}

bool route_other_usable(struct worker *w, const struct version_route *v,
                        const struct replica_route *r)
{
    for (size_t i = 0; i < v->nreplicas; i++)
        if (&v->replicas[i] != r && usable(w, v, i, 0))
            return true;
    return false;
}

bool route_any_ready(const struct version_route *v)
{
    for (size_t i = 0; i < v->nreplicas; i++)
        if (v->replicas[i].ready)
            return true;
    return false;
}
