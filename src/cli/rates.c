/* rates - see rates.h. */
#include "cli/rates.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cli/ask.h"

static int64_t grown(const json_t *before, const json_t *now, const char *name)
{
    int64_t d = json_int(now, name) - json_int(before, name);

    return d > 0 ? d : 0;
}

double rates_seconds(const struct span_of_time *s)
{
    return (double)grown(s->before, s->now, "at_ns") / 1e9;
}

int64_t rates_gateway(const struct span_of_time *s, const char *counter)
{
    return grown(json_object_get(s->before, "gateway"), json_object_get(s->now, "gateway"),
                 counter);
}

static const json_t *find_version(const json_t *reading, const char *model, const char *version)
{
    size_t i;
    json_t *v;

    json_array_foreach(json_object_get(reading, "versions"), i, v)
    {
        if (strcmp(json_text(v, "model", ""), model) == 0 &&
            strcmp(json_text(v, "version", ""), version) == 0)
            return v;
    }
    return NULL;
}

int64_t rates_version(const struct span_of_time *s, const char *model, const char *version,
                      const char *counter)
{
    return grown(json_object_get(find_version(s->before, model, version), "counters"),
                 json_object_get(find_version(s->now, model, version), "counters"), counter);
}

double quantile_of(const uint64_t *counts, size_t n, const double *bounds, double q)
{
    uint64_t total = 0;
    double passed = 0;

    for (size_t i = 0; i < n; i++)
        total += counts[i];
    if (total == 0)
        return -1;
    for (size_t i = 0; i + 1 < n; i++) {
        double low = i ? bounds[i - 1] : 0, wanted = q * (double)total - passed;
        if (counts[i] && wanted <= (double)counts[i])
            return low + (bounds[i] - low) * (wanted > 0 ? wanted : 0) / (double)counts[i];
        passed += (double)counts[i];
    }
    return n > 1 ? bounds[n - 2] : -1; /* somewhere above it */
}

static uint64_t bucket(const json_t *version, const char *histogram, size_t i)
{
    const json_t *h = json_object_get(version, histogram);

    return (uint64_t)json_integer_value(json_array_get(json_object_get(h, "buckets"), i));
}

double rates_quantile(const struct span_of_time *s, const char *model, const char *version,
                      const char *histogram, double q)
{
    const json_t *before = find_version(s->before, model, version);
    const json_t *now = find_version(s->now, model, version);
    const json_t *ends = json_object_get(s->now, "bounds_us");
    size_t n = json_array_size(ends) + 1;
    uint64_t *counts = mem_zero(n * sizeof(*counts));
    double *bounds = mem_zero(n * sizeof(*bounds));

    for (size_t i = 0; i < n; i++) {
        uint64_t a = bucket(before, histogram, i), b = bucket(now, histogram, i);
        counts[i] = b > a ? b - a : 0;
        bounds[i] = json_number_value(json_array_get(ends, i));
    }
    double us = quantile_of(counts, n, bounds, q);
    free(counts);
    free(bounds);
    return us;
}

static const json_t *find_process(const json_t *reading, const char *process, const char *replica)
{
    size_t i;
    json_t *p;

    json_array_foreach(json_object_get(reading, "processes"), i, p)
    {
        if (strcmp(json_text(p, "process", ""), process) == 0 &&
            strcmp(json_text(p, "replica", ""), replica) == 0)
            return p;
    }
    return NULL;
}

double rates_cpu(const struct span_of_time *s, const char *process, const char *replica)
{
    const json_t *a = find_process(s->before, process, replica);
    const json_t *b = find_process(s->now, process, replica);
    double seconds = rates_seconds(s);

    if (!a || !b || json_int(a, "pid") != json_int(b, "pid") || seconds <= 0)
        return -1;
    return (json_number_value(json_object_get(b, "cpu_s")) -
            json_number_value(json_object_get(a, "cpu_s"))) /
           seconds;
}
