/* histogram - see histogram.h. */
#include "histogram.h"

static unsigned bucket_of(uint64_t v)
{
    if (v >> HISTOGRAM_TOP_BITS)
        return HISTOGRAM_BUCKETS - 1;
    if (v < (1u << HISTOGRAM_SUB_BITS))
        return (unsigned)v;

    unsigned shift = 63 - (unsigned)__builtin_clzll(v) - HISTOGRAM_SUB_BITS;
    return (shift << HISTOGRAM_SUB_BITS) + (unsigned)(v >> shift);
}

/* The largest value that falls into bucket i. */
static uint64_t bucket_edge(unsigned i)
{
    if (i < (2u << HISTOGRAM_SUB_BITS))
        return i;

    unsigned shift = (i >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t top = (i & ((1u << HISTOGRAM_SUB_BITS) - 1)) + (1u << HISTOGRAM_SUB_BITS);
    return ((top + 1) << shift) - 1;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    h->count++;
    h->sum += ns;
    if (ns > h->max)
        h->max = ns;
    h->bucket[bucket_of(ns)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    into->count += from->count;
    into->sum += from->sum;
    if (from->max > into->max)
        into->max = from->max;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->bucket[i] += from->bucket[i];
}

uint64_t histogram_quantile(const struct histogram *h, double share)
{
    uint64_t want = (uint64_t)(share * (double)h->count + 0.999999);
    uint64_t seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen >= want && seen > 0)
            return bucket_edge(i) < h->max ? bucket_edge(i) : h->max;
    }
    return h->max;
}

void histogram_json(const struct histogram *h, struct buf *out)
{
    buf_addf(out, "{\"count\":%llu,\"mean\":%.1f", (unsigned long long)h->count,
             h->count ? (double)h->sum / (double)h->count / 1e3 : 0.0);
    buf_addf(out, ",\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}",
             (double)histogram_quantile(h, 0.50) / 1e3, (double)histogram_quantile(h, 0.90) / 1e3,
             (double)histogram_quantile(h, 0.99) / 1e3, (double)histogram_quantile(h, 0.999) / 1e3,
             (double)h->max / 1e3);
}
