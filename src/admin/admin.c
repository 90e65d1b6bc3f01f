/*
 * admin - from an HTTP request to the backend and back.
 */
#include "admin/admin.h"

#include <stdlib.h>

#include "admin/verbs.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/list.h"
#include "http/server.h"

enum {
    ADMIN_BODY_MAX = 64 * 1024,
    ADMIN_CONNECTIONS_MAX = 128,
    LOG_LINES_DEFAULT = 50,
    LOG_LINES_MAX = 10000,
    ROLLOUTS_DEFAULT = 20,
    ROLLOUTS_MAX = 1000
};

struct admin {
    const struct admin_backend *backend; /* borrowed */
    void *arg;                           /* borrowed */
    struct http_server *server;          /* owned */
    struct operations *operations;       /* owned */
};

/* A request that the backend has to answer. */
struct admin_call {
    struct http_call *http; /* borrowed; NULL when its client has left */
    uint64_t received_ns;
};

/* What a handler works with. */
struct request {
    struct admin *admin;
    struct http_call *http;
    const json_t *args; /* borrowed; checked against the verb's row */
    int64_t number;     /* {id} of the path */
    uint64_t received_ns;
};

/* --- answers ------------------------------------------------------------------------------ */

static void reply_json(struct http_call *http, int status, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);

    ALWAYS(text);
    http_call_reply(http, status, "application/json", NULL, span_str(text));
    free(text);
    json_decref(json);
}

static const char *error_code(int status)
{
    switch (status) {
    case 400:
        return "invalid_request";
    case 404:
        return "not_found";
    case 409:
        return "conflict";
    case 503:
        return "unavailable";
    default:
        return "internal_error";
    }
}

static void reply_error(struct http_call *http, const struct err *err)
{
    http_call_error(http, err->status, error_code(err->status), "%s", err->text);
}

/* A result or its error. */
static void reply(struct http_call *http, json_t *json, const struct err *err)
{
    if (json)
        reply_json(http, 200, json);
    else
        reply_error(http, err);
}

static void on_call_gone(struct http_call *http, void *arg)
{
    ((struct admin_call *)arg)->http = NULL;
}

static struct admin_call *call_new(const struct request *q)
{
    struct admin_call *call = NEW(struct admin_call);

    call->http = q->http;
    call->received_ns = q->received_ns;
    http_call_on_gone(q->http, on_call_gone, call);
    return call;
}

uint64_t admin_call_received_ns(const struct admin_call *call)
{
    return call->received_ns;
}

void admin_reply(struct admin_call *call, int status, json_t *json)
{
    if (call->http) {
        http_call_on_gone(call->http, NULL, NULL);
        reply_json(call->http, status, json);
    } else {
        json_decref(json);
    }
    free(call);
}

void admin_fail(struct admin_call *call, const struct err *err)
{
    if (call->http) {
        http_call_on_gone(call->http, NULL, NULL);
        reply_error(call->http, err);
    }
    free(call);
}

/* --- handlers: one for each row of ADMIN_VERBS -------------------------------------------- */

static const char *text_arg(const struct request *q, const char *name)
{
    return json_string_value(json_object_get(q->args, name));
}

static int64_t number_arg(const struct request *q, const char *name, int64_t missing, int64_t most)
{
    const json_t *value = json_object_get(q->args, name);
    int64_t n = value ? json_integer_value(value) : missing;

    return n < most ? n : most;
}

static void verb_health(struct request *q)
{
    json_t *json = q->admin->backend->health(q->admin->arg);
    const char *status = json_string_value(json_object_get(json, "status"));
    bool ok = status && strcmp(status, "ok") == 0;

    reply_json(q->http, ok ? 200 : 503, json);
}

static void verb_verbs(struct request *q)
{
    reply_json(q->http, 200, admin_verbs_json());
}

static void verb_status(struct request *q)
{
    reply_json(q->http, 200, q->admin->backend->status(q->admin->arg));
}

static void verb_counters(struct request *q)
{
    reply_json(q->http, 200, q->admin->backend->counters(q->admin->arg));
}

static void verb_metrics(struct request *q)
{
    struct buf text = {0};

    q->admin->backend->metrics(&text, q->admin->arg);
    http_call_reply(q->http, 200, "text/plain; version=0.0.4; charset=utf-8", NULL,
                    buf_span(&text));
    buf_fini(&text);
}

static void verb_versions(struct request *q)
{
    struct err err;

    reply(q->http, q->admin->backend->versions(text_arg(q, "model"), q->admin->arg, &err), &err);
}

static void verb_receipt(struct request *q)
{
    struct err err;
    int64_t number = number_arg(q, "number", 0, INT64_MAX);

    reply(q->http, q->admin->backend->receipt(text_arg(q, "model"), number, q->admin->arg, &err),
          &err);
}

static void verb_rollouts(struct request *q)
{
    struct err err;
    int limit = (int)number_arg(q, "limit", ROLLOUTS_DEFAULT, ROLLOUTS_MAX);

    reply(q->http, q->admin->backend->rollouts(text_arg(q, "model"), limit, q->admin->arg, &err),
          &err);
}

static void verb_logs(struct request *q)
{
    struct err err;
    unsigned lines = (unsigned)number_arg(q, "lines", LOG_LINES_DEFAULT, LOG_LINES_MAX);

    reply(q->http, q->admin->backend->logs(text_arg(q, "replica"), lines, q->admin->arg, &err),
          &err);
}

static void no_operation(struct request *q)
{
    http_call_error(q->http, 404, "not_found",
                    "there is no operation %lld; the last hundred are kept while the manager runs, "
                    "see GET /admin/v1/rollouts for older ones",
                    (long long)q->number);
}

static void verb_operation(struct request *q)
{
    json_t *json = operation_json(q->admin->operations, q->number);

    if (json)
        reply_json(q->http, 200, json);
    else
        no_operation(q);
}

static void verb_operation_events(struct request *q)
{
    if (!operation_follow(q->admin->operations, q->number, q->http))
        no_operation(q);
}

static void verb_deploy(struct request *q)
{
    q->admin->backend->deploy(call_new(q), text_arg(q, "model"), text_arg(q, "path"),
                              text_arg(q, "version"), text_arg(q, "engine"), q->admin->arg);
}

static void verb_switch(struct request *q)
{
    q->admin->backend->switch_to(call_new(q), text_arg(q, "model"), text_arg(q, "version"),
                                 q->admin->arg);
}

static void verb_rollback(struct request *q)
{
    q->admin->backend->rollback(call_new(q), text_arg(q, "model"), q->admin->arg);
}

static void verb_stop(struct request *q)
{
    q->admin->backend->stop(call_new(q), json_is_true(json_object_get(q->args, "engines")),
                            q->admin->arg);
}

static void verb_keys(struct request *q)
{
    reply_json(q->http, 200, q->admin->backend->keys(q->admin->arg));
}

static void verb_key_add(struct request *q)
{
    q->admin->backend->key_add(call_new(q), text_arg(q, "name"), json_object_get(q->args, "models"),
                               number_arg(q, "concurrency", 0, INT64_MAX),
                               number_arg(q, "rate", 0, INT64_MAX), q->admin->arg);
}

static void verb_key_revoke(struct request *q)
{
    q->admin->backend->key_revoke(call_new(q), text_arg(q, "name"), q->admin->arg);
}

static void (*const handlers[ADMIN_NVERBS])(struct request *q) = {
#define X(id, method, path, access, args, help) [VERB_##id] = verb_##id,
    ADMIN_VERBS(X)
#undef X
};

/* --- the server --------------------------------------------------------------------------- */

static void not_allowed(struct http_call *http, const char *allow, const struct err *err)
{
    char *extra = str_fmt("Allow: %s\r\n", allow);
    json_t *json = json_pack("{s:{s:s, s:s, s:n, s:s}}", "error", "message", err->text, "type",
                             "invalid_request_error", "param", "code", "method_not_allowed");
    char *text = json_dumps(json, JSON_COMPACT);

    http_call_reply(http, 405, "application/json", extra, span_str(text));
    free(text);
    free(extra);
    json_decref(json);
}

static void on_request(struct http_call *http, void *arg)
{
    struct request q = {.admin = arg, .http = http, .received_ns = clock_ns()};
    const struct http_request_head *head = http_call_head(http);
    const char *allow = NULL;
    struct err err;
    int id = admin_verb_find(head->method, head->path, &q.number, &allow, &err);

    if (id < 0) {
        if (allow)
            not_allowed(http, allow, &err);
        else
            reply_error(http, &err);
        return;
    }
    json_t *args = admin_verb_args(admin_verb(id), head->query, http_call_body(http), &err);
    if (!args) {
        reply_error(http, &err);
        return;
    }
    q.args = args;
    handlers[id](&q);
    json_decref(args);
}

struct admin *admin_new(uv_loop_t *loop, const struct admin_backend *backend, void *arg)
{
    static const struct http_server_limits limits = {
        .head_bytes = 16 * 1024,
        .body_bytes = ADMIN_BODY_MAX,
        .connections = ADMIN_CONNECTIONS_MAX,
        .idle_ms = 75000,
        .receive_ms = 30000,
        .pending_bytes = 4 << 20,
    };
    struct admin *a = NEW(struct admin);

    a->backend = backend;
    a->arg = arg;
    a->operations = operations_new();
    a->server = http_server_new(loop, &limits, on_request, a);
    return a;
}

int admin_listen(struct admin *a, const char *socket_path, struct err *err)
{
    char *address = str_fmt("unix:%s", socket_path);
    int result = http_server_listen(a->server, address, err);

    free(address);
    return result;
}

struct operations *admin_operations(struct admin *a)
{
    return a->operations;
}

void admin_close(struct admin *a)
{
    if (!a)
        return;
    operations_free(a->operations);
    http_server_close(a->server);
    free(a);
}
