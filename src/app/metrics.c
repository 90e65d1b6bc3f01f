/* app/metrics - see metrics.h. */
#include "app/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/exposition.h"
#include "app/internal.h"
#include "app/process.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "http/server.h"

/* --- what is counted, by the names that Prometheus sees --------------------------------------- */

/* A counter of a row, and the family it belongs to. Rows of one family stand together. */
struct family_row {
    const char *counter, *family, *label, *value, *help;
};

// clang-format off
static const struct family_row replica_rows[] = {
    {"started",   "segue_exchanges_started_total", "by", "route", "Requests given to an engine, because of the route or because the client named the version."},
    {"pinned",    "segue_exchanges_started_total", "by", "pin", NULL},
    {"finished",  "segue_exchanges_total", "outcome", "finished", "Requests that ended at an engine: finished (whole answer, status below 500), failed, truncated, cancelled by the client, retried elsewhere."},
    {"failed",    "segue_exchanges_total", "outcome", "failed", NULL},
    {"truncated", "segue_exchanges_total", "outcome", "truncated", NULL},
    {"cancelled", "segue_exchanges_total", "outcome", "cancelled", NULL},
    {"retried",   "segue_exchanges_total", "outcome", "retried", NULL},
    {"tokens",    "segue_tokens_total", NULL, NULL, "Events of streamed answers that were relayed; engines send one for each token."},
};

static const struct family_row worker_rows[] = {
    {"requests",     "segue_requests_total", NULL, NULL, "Requests that were received whole."},
    {"rejected",     "segue_requests_rejected_total", NULL, NULL, "Requests that were answered before they were whole: malformed, too large, too slow."},
    {"answered",     "segue_answers_total", NULL, NULL, "Answers that were given whole, of any status."},
    {"unanswered",   "segue_unanswered_total", NULL, NULL, "Requests that got no whole answer: it was cut, or the client left."},
    {"errors_4xx",   "segue_gateway_errors_total", "class", "4xx", "Errors that the gateway itself answered."},
    {"errors_5xx",   "segue_gateway_errors_total", "class", "5xx", NULL},
    {"refused",      "segue_connections_refused_total", NULL, NULL, "Connections that were shed at a limit."},
    {"opened",       "segue_connections_opened_total", NULL, NULL, "Client connections that were accepted."},
    {"closed",       "segue_connections_closed_total", NULL, NULL, "Client connections that have ended."},
    {"held_total",   "segue_requests_held_total", NULL, NULL, "Requests that had to wait for a ready engine."},
    {"unheld",       "segue_requests_unheld_total", NULL, NULL, "Of those: requests that wait no more."},
    {"hold_expired", "segue_hold_expired_total", NULL, NULL, "Of those: answered 503 at their deadline."},
    {"log_lines",    "segue_access_log_lines_total", NULL, NULL, "Lines of the access log that were written."},
    {"log_lost",     "segue_access_log_lost_total", NULL, NULL, "Lines of the access log that its file did not take."},
};

static const char *const replica_names[] = {
#define X(name) #name,
    REPLICA_COUNTERS(X)
#undef X
};
static const char *const worker_names[] = {
#define X(name) #name,
    WORKER_COUNTERS(X)
#undef X
};
// clang-format on

/* Counters of all workers, in the order of worker_names. */
struct gateway_sums {
#define X(name) uint64_t name;
    WORKER_COUNTERS(X)
#undef X
};

static void read_gateway(const struct manager *m, struct gateway_sums *out)
{
    const struct counters *rows = m->link ? gateway_link_rows(m->link) : NULL;

    memset(out, 0, sizeof(*out));
    for (unsigned w = 0; rows && w < COUNTERS_WORKERS; w++) {
#define X(name) out->name += counter_read(&rows->workers[w].name);
        WORKER_COUNTERS(X)
#undef X
    }
}

static void read_account(struct manager *m)
{
    if (m->link)
        account_read(m->account, gateway_link_rows(m->link), gateway_link_workers(m->link));
}

/* --- families --------------------------------------------------------------------------------- */

/* The number of a counter by its name; rows of numbers have the order of their names. */
static uint64_t value_of(const char *name, const char *const *names, size_t n,
                         const uint64_t *values)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return values[i];
    return 0;
}

static bool is_listed(const char *name, const struct family_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(rows[i].counter, name) == 0)
            return true;
    return false;
}

static void add_gateway_counters(struct buf *out, const struct gateway_sums *sums)
{
    const uint64_t *values = (const uint64_t *)sums;

    for (size_t i = 0; i < COUNT_OF(worker_rows); i++) {
        const struct family_row *r = &worker_rows[i];

        if (r->help)
            exposition_family(out, r->family, "counter", r->help);
        exposition_count(out, r->family, r->label ? LABELS({r->label, r->value}) : NULL,
                         value_of(r->counter, worker_names, COUNT_OF(worker_names), values));
    }
    /* A counter that has no row above is shown all the same. */
    for (size_t i = 0; i < COUNT_OF(worker_names); i++) {
        char name[96];

        if (is_listed(worker_names[i], worker_rows, COUNT_OF(worker_rows)))
            continue;
        snprintf(name, sizeof(name), "segue_gateway_%s_total", worker_names[i]);
        exposition_family(out, name, "counter", "A counter of the gateway.");
        exposition_count(out, name, NULL, values[i]);
    }
}

static void add_family_row(struct buf *out, const struct family_row *r,
                           const struct account_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct account_entry *e = &entries[i];
        uint64_t value = value_of(r->counter, replica_names, COUNT_OF(replica_names),
                                  (const uint64_t *)&e->sums);

        exposition_count(out, r->family,
                         LABELS({"model", e->model}, {"version", e->version}, {r->label, r->value}),
                         value);
    }
}

static void add_version_counters(struct buf *out, const struct account_entry *entries, size_t n)
{
    for (size_t i = 0; i < COUNT_OF(replica_rows); i++) {
        if (replica_rows[i].help)
            exposition_family(out, replica_rows[i].family, "counter", replica_rows[i].help);
        add_family_row(out, &replica_rows[i], entries, n);
    }
    for (size_t k = 0; k < COUNT_OF(replica_names); k++) {
        char name[96];

        if (is_listed(replica_names[k], replica_rows, COUNT_OF(replica_rows)))
            continue;
        snprintf(name, sizeof(name), "segue_replica_%s_total", replica_names[k]);
        exposition_family(out, name, "counter", "A counter of the gateway, by version.");
        add_family_row(out, &(struct family_row){.counter = replica_names[k], .family = name},
                       entries, n);
    }
}

/* Versions that were never asked are left out: with a thousand models that is most of them. */
static void add_durations(struct buf *out, const char *name, const struct account_entry *e,
                          const struct durations *d)
{
    uint64_t count = 0;

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += d->buckets[i];
    if (count)
        exposition_durations(out, name, LABELS({"model", e->model}, {"version", e->version}), d);
}

static void add_histograms(struct buf *out, const struct account_entry *entries, size_t n)
{
#define X(name, help)                                                     \
    exposition_family(out, "segue_" #name "_seconds", "histogram", help); \
    for (size_t i = 0; i < n; i++)                                        \
        add_durations(out, "segue_" #name "_seconds", &entries[i], &entries[i].sums.name);
    REPLICA_HISTOGRAMS(X)
#undef X
}

/* --- gauges of versions and replicas ---------------------------------------------------------- */

/* Calls fn for each version of each model. */
static void each_version(struct buf *out, const struct manager *m,
                         void (*fn)(struct buf *out, const struct manager *m,
                                    const struct version *v))
{
    for (size_t i = 0; i < m->nmodels; i++)
        for (size_t k = 0; k < m->models[i]->nversions; k++)
            fn(out, m, m->models[i]->versions[k]);
}

#define VERSION_LABELS(v)                \
    {"model", (v)->model->config->name}, \
    {                                    \
        "version", (v)->spec.name        \
    }
#define REPLICA_LABELS(v, r)       \
    VERSION_LABELS(v),             \
    {                              \
        "replica", replica_name(r) \
    }

static void share_of(struct buf *out, const struct manager *m, const struct version *v)
{
    exposition_count(out, "segue_route_share", LABELS(VERSION_LABELS(v)), v == v->model->serving);
}

static void ready_of(struct buf *out, const struct manager *m, const struct version *v)
{
    exposition_count(out, "segue_ready_replicas", LABELS(VERSION_LABELS(v)),
                     version_count(v, IN_STATE(READY)));
}

static void in_flight_of(struct buf *out, const struct manager *m, const struct version *v)
{
    for (size_t i = 0; i < v->nmembers; i++) {
        const struct replica *r = v->members[i].replica;

        exposition_count(out, "segue_in_flight", LABELS(REPLICA_LABELS(v, r)),
                         fleetwork_slot_tally(m, replica_slot(r)).in_flight);
    }
}

static void up_of(struct buf *out, const struct manager *m, const struct version *v)
{
    for (size_t i = 0; i < v->nmembers; i++) {
        const struct replica *r = v->members[i].replica;

        exposition_count(out, "segue_replica_ready", LABELS(REPLICA_LABELS(v, r)),
                         replica_state(r) == REPLICA_READY);
    }
}

static void add_gauges(struct buf *out, const struct manager *m)
{
    exposition_family(out, "segue_route_share", "gauge",
                      "Share of new requests that a version gets, 0 to 1.");
    each_version(out, m, share_of);
    exposition_family(out, "segue_ready_replicas", "gauge", "Engines that are ready.");
    each_version(out, m, ready_of);
    exposition_family(out, "segue_replica_ready", "gauge", "Whether this engine is ready.");
    each_version(out, m, up_of);
    exposition_family(out, "segue_in_flight", "gauge", "Requests that an engine has now.");
    each_version(out, m, in_flight_of);
}

/* --- processes -------------------------------------------------------------------------------- */

/* One process, or an engine's; replica "" for the two of segue itself. */
struct counted_process {
    const char *process, *replica;
    pid_t pid;
};

static struct counted_process *processes(const struct manager *m, size_t *n)
{
    struct counted_process *out = NULL;

    *n = 0;
#define ADD(...)                                   \
    (out = mem_grow(out, (*n + 1) * sizeof(*out)), \
     out[(*n)++] = (struct counted_process){__VA_ARGS__})
    ADD("manager", "", getpid());
    if (m->link && gateway_link_pid(m->link))
        ADD("gateway", "", gateway_link_pid(m->link));
    for (size_t i = 0; i < m->nmodels; i++)
        for (size_t k = 0; k < m->models[i]->nversions; k++) {
            const struct version *v = m->models[i]->versions[k];

            for (size_t r = 0; r < v->nmembers; r++)
                if (replica_pid(v->members[r].replica))
                    ADD("engine", replica_name(v->members[r].replica),
                        replica_pid(v->members[r].replica));
        }
#undef ADD
    return out;
}

static void add_processes(struct buf *out, const struct manager *m)
{
    size_t n;
    struct counted_process *p = processes(m, &n);

    exposition_family(out, "segue_process_resident_memory_bytes", "gauge",
                      "Resident memory of a process.");
    for (size_t i = 0; i < n; i++)
        exposition_count(out, "segue_process_resident_memory_bytes",
                         LABELS({"process", p[i].process}, {"replica", p[i].replica}),
                         process_rss(p[i].pid));
    exposition_family(out, "segue_process_cpu_seconds_total", "counter",
                      "CPU time of a process; begins anew with a new process.");
    for (size_t i = 0; i < n; i++)
        exposition_number(out, "segue_process_cpu_seconds_total",
                          LABELS({"process", p[i].process}, {"replica", p[i].replica}),
                          process_cpu_s(p[i].pid));
    free(p);
}

/* --- the rest --------------------------------------------------------------------------------- */

static void add_one(struct buf *out, const char *name, const char *type, const char *help,
                    uint64_t value)
{
    exposition_family(out, name, type, help);
    exposition_count(out, name, NULL, value);
}

static void add_manager(struct buf *out, const struct manager *m, const struct gateway_sums *sums)
{
    exposition_family(out, "segue_build_info", "gauge", "Always 1; the version is a label.");
    exposition_count(out, "segue_build_info", LABELS({"version", SEGUE_VERSION}), 1);
    exposition_family(out, "segue_start_time_seconds", "gauge",
                      "When the manager started, in seconds since 1970.");
    exposition_number(out, "segue_start_time_seconds", NULL, (double)m->since_ms / 1000);
    add_one(out, "segue_epoch", "gauge", "Number of the newest route table.", m->epoch);
    add_one(out, "segue_epoch_acknowledged", "gauge",
            "Number of the newest route table that all workers have adopted.", m->acked);
    add_one(out, "segue_gateway_up", "gauge", "Whether the gateway runs.",
            m->link && gateway_link_pid(m->link));
    add_one(out, "segue_gateway_restarts_total", "counter",
            "Gateways that had to be started again.", m->link ? gateway_link_restarts(m->link) : 0);
    add_one(out, "segue_connections", "gauge", "Client connections now.",
            sums->opened - sums->closed);
    add_one(out, "segue_held", "gauge", "Requests that wait for a ready engine now.",
            sums->held_total - sums->unheld);
}

static void add_rollouts(struct buf *out, const struct manager *m)
{
    static const enum rollout_state ends[] = {ROLLOUT_DONE, ROLLOUT_ROLLED_BACK, ROLLOUT_FAILED};
    static const char *const names[] = {"done", "rolled_back", "failed"};

    exposition_family(out, "segue_rollouts_total", "counter",
                      "Updates that have ended since the manager started.");
    for (size_t i = 0; i < m->nmodels; i++)
        for (int kind = 0; kind < MODEL_ROLLOUT_KINDS; kind++)
            for (size_t k = 0; k < COUNT_OF(ends); k++)
                exposition_count(out, "segue_rollouts_total",
                                 LABELS({"model", m->models[i]->config->name},
                                        {"kind", rollout_kind_name((enum rollout_kind)kind)},
                                        {"result", names[k]}),
                                 m->models[i]->results[kind][ends[k]]);
    exposition_family(out, "segue_rollout_under_way", "gauge", "Whether an update is under way.");
    for (size_t i = 0; i < m->nmodels; i++)
        exposition_count(out, "segue_rollout_under_way",
                         LABELS({"model", m->models[i]->config->name}),
                         m->models[i]->rollout != NULL);
}

void metrics_text(struct buf *out, void *arg)
{
    struct manager *m = arg;
    struct gateway_sums sums;
    size_t n;

    read_account(m);
    read_gateway(m, &sums);
    const struct account_entry *entries = account_entries(m->account, &n);
    add_manager(out, m, &sums);
    add_gateway_counters(out, &sums);
    add_version_counters(out, entries, n);
    add_histograms(out, entries, n);
    add_gauges(out, m);
    add_rollouts(out, m);
    add_processes(out, m);
}

/* --- JSON ------------------------------------------------------------------------------------- */

static json_t *durations_json(const struct durations *d)
{
    json_t *buckets = json_array();

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        json_array_append_new(buckets, json_integer((json_int_t)d->buckets[i]));
    return json_pack("{s:I, s:o}", "sum_us", (json_int_t)d->sum_us, "buckets", buckets);
}

/* The upper bounds of the buckets; the last one has none. */
static json_t *bounds_json(void)
{
    json_t *bounds = json_array();

    for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++)
        json_array_append_new(bounds, json_integer((json_int_t)histogram_bound_us(i)));
    return bounds;
}

static json_t *numbers_json(const char *const *names, size_t n, const void *values)
{
    json_t *out = json_object();

    for (size_t i = 0; i < n; i++)
        json_object_set_new(out, names[i], json_integer((json_int_t)((const uint64_t *)values)[i]));
    return out;
}

static json_t *entry_json(const struct account_entry *e)
{
    json_t *out = json_pack("{s:s, s:s, s:o}", "model", e->model, "version", e->version, "counters",
                            numbers_json(replica_names, COUNT_OF(replica_names), &e->sums));

#define X(name, help) json_object_set_new(out, #name, durations_json(&e->sums.name));
    REPLICA_HISTOGRAMS(X)
#undef X
    return out;
}

static json_t *processes_json(const struct manager *m)
{
    json_t *list = json_array();
    size_t n;
    struct counted_process *p = processes(m, &n);

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:I, s:f}", "process", p[i].process,
                                              "replica", p[i].replica, "pid", (int)p[i].pid,
                                              "rss_bytes", (json_int_t)process_rss(p[i].pid),
                                              "cpu_s", process_cpu_s(p[i].pid)));
    free(p);
    return list;
}

json_t *metrics_counters(void *arg)
{
    struct manager *m = arg;
    struct gateway_sums sums;
    json_t *versions = json_array();
    size_t n;

    read_account(m);
    read_gateway(m, &sums);
    const struct account_entry *entries = account_entries(m->account, &n);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(versions, entry_json(&entries[i]));
    return json_pack("{s:I, s:o, s:o, s:o, s:o}", "at_ns", (json_int_t)clock_ns(), "bounds_us",
                     bounds_json(), "gateway",
                     numbers_json(worker_names, COUNT_OF(worker_names), &sums), "versions",
                     versions, "processes", processes_json(m));
}

/* --- the listener ----------------------------------------------------------------------------- */

static void on_request(struct http_call *call, void *arg)
{
    const struct http_request_head *head = http_call_head(call);
    struct buf text = {0};

    if (!span_eq_str(head->path, "/metrics")) {
        http_call_error(call, 404, "not_found", "there is only GET /metrics here");
        return;
    }
    if (head->method != HTTP_GET && head->method != HTTP_HEAD) {
        http_call_error(call, 405, "method_not_allowed", "there is only GET /metrics here");
        return;
    }
    metrics_text(&text, arg);
    http_call_reply(call, 200, EXPOSITION_TYPE, NULL, buf_span(&text));
    buf_fini(&text);
}

int metrics_start(struct manager *m, struct err *err)
{
    static const struct http_server_limits limits = {
        .head_bytes = 8 * 1024,
        .body_bytes = 1,
        .connections = 32,
        .idle_ms = 120000,
        .receive_ms = 10000,
        .pending_bytes = 16 << 20,
    };

    if (!m->config->metrics_listen)
        return 0;
    m->metrics = http_server_new(&m->loop, &limits, on_request, m);
    for (char **address = m->config->metrics_listen; *address; address++)
        if (http_server_listen(m->metrics, *address, err) != 0)
            return err_prefix(err, "metrics.listen");
    log_info("metrics: GET /metrics on port %d", http_server_port(m->metrics));
    return 0;
}

void metrics_stop(struct manager *m)
{
    if (m->metrics)
        http_server_close(m->metrics);
    m->metrics = NULL;
}
