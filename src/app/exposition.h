/*
 * app/exposition - the text that Prometheus reads (text format 0.0.4), written
 * family by family:
 *
 *    # HELP segue_tokens_total Events of streamed answers.
 *    # TYPE segue_tokens_total counter
 *    segue_tokens_total{model="hy-mt",version="v1"} 1234
 */
#pragma once
#include "app/account.h"
#include "base/buf.h"

#define EXPOSITION_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct label {
    const char *name, *value;
};

/* A list of {name, value} with its end. */
#define LABELS(...)                 \
    (const struct label[])          \
    {                               \
        __VA_ARGS__, (struct label) \
        {                           \
            0                       \
        }                           \
    }

/* Begins a family; its samples follow at once. type: counter, gauge, histogram. */
void exposition_family(struct buf *out, const char *name, const char *type, const char *help);

/* One sample; labels NULL: none. */
void exposition_count(struct buf *out, const char *name, const struct label *labels, uint64_t n);
void exposition_number(struct buf *out, const char *name, const struct label *labels, double n);
/* Cumulative buckets, one for each octave, in seconds; sum and count. */
void exposition_durations(struct buf *out, const char *name, const struct label *labels,
                          const struct durations *d);
