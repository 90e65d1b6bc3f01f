/*
 * histogram - durations in nanoseconds, counted in log-linear buckets.
 *
 * Each power of two is split into 128 buckets, so that a quantile is off by
 * less than one percent.  Everything above 2^40 ns (18 minutes) falls into the
 * last bucket; the maximum is kept exactly.
 */
#pragma once
#include <stdint.h>

#include "base/buf.h"

enum {
    HISTOGRAM_SUB_BITS = 7,
    HISTOGRAM_TOP_BITS = 40,
    HISTOGRAM_BUCKETS = (HISTOGRAM_TOP_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS
};

struct histogram {
    uint64_t count, sum, max;
    uint32_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The smallest bucket edge that at least `share` (0..1) of the values do not
 * exceed; 0 when there are none. */
uint64_t histogram_quantile(const struct histogram *h, double share);

/* {"count":…,"mean":…,"p50":…,"p90":…,"p99":…,"p999":…,"max":…} in microseconds. */
void histogram_json(const struct histogram *h, struct buf *out);
