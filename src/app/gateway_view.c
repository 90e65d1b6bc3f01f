/* app/gateway_view - what a gateway link tells: counters and JSON. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "app/gateway_link_internal.h"
#include "base/clock.h"

static const char *const state_names[] = {
#define X(id, name, note) [LINK_##id] = name,
    LINK_STATES(X)
#undef X
};

uint64_t gateway_link_epoch(const struct gateway_link *g)
{
    return g->epoch;
}

const char *gateway_link_listen(const struct gateway_link *g)
{
    return g->listen[0];
}

void gateway_link_replica(const struct gateway_link *g, int slot, struct replica_counters *out)
{
    memset(out, 0, sizeof(*out));
    ALWAYS(slot >= 0 && slot < COUNTERS_SLOTS);
    for (unsigned i = 0; i < g->workers; i++) {
        const struct replica_row *r = &g->counters->replicas[slot][i];
        uint64_t last = counter_read(&r->last_start_ns);
        out->in_flight += replica_row_in_flight(r);
#define X(name) out->name += counter_read(&r->name);
        REPLICA_COUNTERS(X)
#undef X
        if (last > out->last_start_ns)
            out->last_start_ns = last;
    }
}

void gateway_link_counters(const struct gateway_link *g, struct gateway_counters *out)
{
    uint64_t closed = 0, unheld = 0, opened = 0;

    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < COUNTERS_WORKERS; i++) {
        const struct worker_row *r = &g->counters->workers[i];
        out->requests += counter_read(&r->requests);
        out->rejected += counter_read(&r->rejected);
        out->answered += counter_read(&r->answered);
        out->unanswered += counter_read(&r->unanswered);
        out->errors_4xx += counter_read(&r->errors_4xx);
        out->errors_5xx += counter_read(&r->errors_5xx);
        out->refused += counter_read(&r->refused);
        closed += counter_read(&r->closed);
        opened += counter_read(&r->opened);
        unheld += counter_read(&r->unheld);
        out->held_total += counter_read(&r->held_total);
        out->hold_expired += counter_read(&r->hold_expired);
    }
    out->connections = opened - closed;
    out->held = out->held_total - unheld;
}

const struct counters *gateway_link_rows(const struct gateway_link *g)
{
    return g->counters;
}

unsigned gateway_link_workers(const struct gateway_link *g)
{
    return g->workers;
}

pid_t gateway_link_pid(const struct gateway_link *g)
{
    return g->pid;
}

unsigned gateway_link_restarts(const struct gateway_link *g)
{
    return g->restarts;
}

static long long rss_of(pid_t pid)
{
    char path[64];
    long long pages = 0;

    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    FILE *f = pid ? fopen(path, "re") : NULL;
    if (f && fscanf(f, "%*d %lld", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

json_t *gateway_link_json(const struct gateway_link *g)
{
    json_t *listen = json_array();
    char since[CLOCK_TEXT_MAX] = "";

    for (size_t i = 0; i < g->nlisten; i++)
        json_array_append_new(listen, json_string(g->listen[i]));
    if (g->pid)
        clock_text(g->since_ms, since);
    return json_pack("{s:s, s:i, s:s, s:i, s:I, s:i, s:o, s:I}", "state", state_names[g->state],
                     "pid", (int)g->pid, "since", since, "restarts", (int)g->restarts, "epoch",
                     (json_int_t)g->epoch, "workers", (int)g->workers, "listen", listen,
                     "rss_bytes", (json_int_t)rss_of(g->pid));
}
