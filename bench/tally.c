/* tally - see tally.h. */
#include "tally.h"

void tally_init(struct tally *t)
{
    memset(t, 0, sizeof(*t));
    t->first_version = t->last_version = -1;
}

static void merge_ends(struct tally *into, const struct tally *from)
{
    if (from->first_version >= 0 &&
        (into->first_version < 0 || from->first_ended_ns < into->first_ended_ns)) {
        into->first_version = from->first_version;
        into->first_ended_ns = from->first_ended_ns;
    }
    if (from->last_version >= 0 && from->last_right_ns >= into->last_right_ns) {
        into->last_version = from->last_version;
        into->last_right_ns = from->last_right_ns;
    }
    if (from->last_ended_ns > into->last_ended_ns)
        into->last_ended_ns = from->last_ended_ns;
}

void tally_merge(struct tally *into, const struct tally *from)
{
    merge_ends(into, from);
    into->plain_ok += from->plain_ok;
    into->streams_ok += from->streams_ok;
    into->tokens += from->tokens;
    for (int i = 0; i < NCAUSES; i++)
        into->cause[i] += from->cause[i];
    for (int i = 0; i < TALLY_STATUSES; i++)
        into->status[i] += from->status[i];
    for (int i = 0; i < NAMES_MAX; i++)
        into->version[i] += from->version[i];
    into->unversioned += from->unversioned;
    into->connects += from->connects;
    into->closed_idle += from->closed_idle;
    into->stray += from->stray;
    into->idle_failed += from->idle_failed;
    into->idle_lost += from->idle_lost;
    into->received_bytes += from->received_bytes;
    histogram_merge(&into->plain, &from->plain);
    histogram_merge(&into->streams, &from->streams);
    histogram_merge(&into->first_byte, &from->first_byte);
    histogram_merge(&into->first_token, &from->first_token);
    histogram_merge(&into->token_gap, &from->token_gap);
}

void interval_clear(struct interval *i)
{
    memset(i, 0, sizeof(*i));
}

void interval_merge(struct interval *into, const struct interval *from)
{
    into->ok += from->ok;
    into->failed += from->failed;
    into->tokens += from->tokens;
    for (int i = 0; i < NAMES_MAX; i++)
        into->version[i] += from->version[i];
    histogram_merge(&into->latency, &from->latency);
}
