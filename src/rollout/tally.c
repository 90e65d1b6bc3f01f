#include "rollout/tally.h"

// clang-format off
#define COUNTERS(X) \
    X(started) X(pinned) X(finished) X(failed) X(truncated) X(cancelled) X(retried) X(tokens)
// clang-format on

void tally_add(struct tally *sum, const struct tally *more)
{
#define X(name) sum->name += more->name;
    COUNTERS(X)
#undef X
    sum->in_flight += more->in_flight;
    if (more->last_start_ns > sum->last_start_ns)
        sum->last_start_ns = more->last_start_ns;
}

struct tally tally_since(const struct tally *a, const struct tally *b)
{
    struct tally d = *b;

#define X(name) d.name = b->name > a->name ? b->name - a->name : 0;
    COUNTERS(X)
#undef X
    return d;
}

uint64_t tally_ended(const struct tally *t)
{
    return t->finished + t->failed + t->truncated + t->cancelled;
}
