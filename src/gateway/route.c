/*
 * gateway/route - see route.h.
 *
 * "Power of two choices" (Mitzenmacher 1996): the less busy of two random
 * replicas is nearly as good as the least busy of all, and does not send every
 * worker to the same one.
 */
#include "gateway/route.h"

#include "gateway/internal.h"

const struct version_route *route_version(const struct model_route *m, uint64_t dice)
{
    if (m->total_weight == 0)
        return NULL;
    uint64_t at = dice % m->total_weight;
    for (size_t i = 0; i < m->nversions; i++) {
        if (at < m->versions[i].weight)
            return &m->versions[i];
        at -= m->versions[i].weight;
    }
    ALWAYS(!"weights add up");
    return NULL;
}

static bool usable(struct worker *w, const struct version_route *v, size_t i, uint64_t tried)
{
    const struct replica_route *r = &v->replicas[i];

    if (!r->ready || (tried >> i % 64 & 1))
        return false;
    struct pool *p = pool_of(w, r);
    return p->avoid_until_ns <= w->loop.now_ns || p->avoid_epoch != w->view->table->epoch;
}

static uint64_t in_flight(const struct worker *w, const struct replica_route *r)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < w->gateway_workers; i++)
        sum += replica_row_in_flight(&w->counters->replicas[r->slot][i]);
    return sum;
}

const struct replica_route *route_replica(struct worker *w, const struct version_route *v,
                                          uint64_t tried)
{
    const struct replica_route *best = NULL;
    size_t n = v->nreplicas, seen = 0;

    if (n == 1)
        return usable(w, v, 0, tried) ? &v->replicas[0] : NULL;
    size_t start = n ? worker_random(w) % n : 0;
    for (size_t i = 0; i < n && seen < 2; i++) {
        size_t at = (start + i) % n;
        if (!usable(w, v, at, tried))
            continue;
        seen++;
        if (!best || in_flight(w, &v->replicas[at]) < in_flight(w, best))
            best = &v->replicas[at];
    }
    return best;
}

bool route_any_ready(const struct version_route *v)
{
    for (size_t i = 0; i < v->nreplicas; i++)
        if (v->replicas[i].ready)
            return true;
    return false;
}
