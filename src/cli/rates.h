/*
 * rates - what happened between two readings of GET /admin/v1/counters.
 *
 * Counters that are smaller in the second one (another manager answers by now)
 * count as nothing.
 */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* Two readings; both borrowed. */
struct span_of_time {
    const json_t *before, *now;
};

double rates_seconds(const struct span_of_time *s);

/* By how much a counter of the gateway has grown. */
int64_t rates_gateway(const struct span_of_time *s, const char *counter);
/* The same for one of a version. */
int64_t rates_version(const struct span_of_time *s, const char *model, const char *version,
                      const char *counter);
/* The q-quantile (0.5, 0.99) in microseconds of what a version's histogram got; -1: nothing. */
double rates_quantile(const struct span_of_time *s, const char *model, const char *version,
                      const char *histogram, double q);

/* Share of one core that a process has used; -1: not known, or another process by now. */
double rates_cpu(const struct span_of_time *s, const char *process, const char *replica);

/*
 * The quantile of counts by bucket: bucket i ends at bounds[i], the last of n has no
 * end.  Within a bucket values are taken to be spread evenly.  -1 when all are empty.
 */
double quantile_of(const uint64_t *counts, size_t n, const double *bounds, double q);
