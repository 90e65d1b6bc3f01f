/*
 * admin/verbs - what can be asked of the admin interface: one row each.
 *
 * Routing, the check of arguments, `GET /admin/v1/verbs`, the 404 and the 405
 * are made from the rows; a new verb is a row here and its handler.
 *
 * Arguments: "NAME:TYPE" or "NAME?:TYPE" (may be left out), separated by a
 * blank; TYPE is s (string), i (number from 0), b (true or false) or, in a body, l (list of
 * strings).  GET takes them from the query, POST from a JSON object; "{id}" in a path is one more
 * number, `id`.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "http/parse.h"

// clang-format off
/*    id               method path                              access  arguments                               help */
#define ADMIN_VERBS(X)                                                                                           \
    X(health,           GET,  "/health",                        READ,  "",                                      \
      "whether the manager answers, and which models have a ready replica")                                     \
    X(verbs,            GET,  "/admin/v1/verbs",                READ,  "",                                      \
      "this table")                                                                                             \
    X(status,           GET,  "/admin/v1/status",               READ,  "",                                      \
      "what runs: gateway, models, versions, replicas, counters")                                               \
    X(counters,         GET,  "/admin/v1/counters",             READ,  "",                                      \
      "sums and histograms since the beginning, for rates and percentiles")                                     \
    X(metrics,          GET,  "/metrics",                       READ,  "",                                      \
      "the same and more as Prometheus text")                                                                   \
    X(versions,         GET,  "/admin/v1/versions",             READ,  "model?:s",                              \
      "the versions that are known, and their files")                                                           \
    X(receipt,          GET,  "/admin/v1/receipt",              READ,  "model?:s number?:i",                    \
      "what an update left behind; the newest by default")                                                      \
    X(rollouts,         GET,  "/admin/v1/rollouts",             READ,  "model?:s limit?:i",                     \
      "the updates with their steps, newest first")                                                             \
    X(logs,             GET,  "/admin/v1/logs",                 READ,  "replica:s lines?:i",                    \
      "the last lines that an engine wrote")                                                                    \
    X(operation,        GET,  "/admin/v1/operations/{id}",      READ,  "",                                      \
      "how far a long verb has come")                                                                           \
    X(operation_events, GET,  "/admin/v1/operations/{id}/events", READ, "",                                     \
      "the same as a stream of events (SSE), from the first to the last")                                       \
    X(deploy,           POST, "/admin/v1/deploy",               WRITE, "model:s path:s version?:s engine?:s",   \
      "start a model file beside the serving version and switch to it when it answers")                         \
    X(switch,           POST, "/admin/v1/switch",               WRITE, "model:s version:s",                     \
      "let a version serve; answers when all workers have adopted it")                                          \
    X(rollback,         POST, "/admin/v1/rollback",             WRITE, "model:s",                               \
      "back to the version that served before")                                                                 \
    X(keys,             GET,  "/admin/v1/keys",                 READ,  "",                                      \
      "the API keys: names and limits")                                                                         \
    X(key_add,          POST, "/admin/v1/keys/add",             WRITE, "name:s models?:l concurrency?:i rate?:i", \
      "make an API key; the answer is the only place where it can be seen")                                     \
    X(key_revoke,       POST, "/admin/v1/keys/revoke",          WRITE, "name:s",                                \
      "refuse an API key from now on")                                                                          \
    X(stop,             POST, "/admin/v1/stop",                 WRITE, "engines?:b",                            \
      "end the gateway when its streams have finished, and the manager; with `engines` the engines too")
// clang-format on

enum admin_access { ADMIN_READ, ADMIN_WRITE };

enum admin_verb_id {
#define X(id, method, path, access, args, help) VERB_##id,
    ADMIN_VERBS(X)
#undef X
        ADMIN_NVERBS
};

struct admin_verb {
    const char *name;
    enum http_method method;
    const char *method_name;
    const char *path;
    enum admin_access access;
    const char *args;
    const char *help;
};

const struct admin_verb *admin_verb(enum admin_verb_id id);

/*
 * The verb of a request: its id, or -1 with status 404 (no such path; the text
 * lists what there is) or 405 (*allow says which methods there are).
 * *number is the path's {id}, if it has one.
 */
int admin_verb_find(enum http_method method, struct span path, int64_t *number, const char **allow,
                    struct err *err);

/* The arguments of a request as an object that has exactly members of the verb's row, each of
 * its type; NULL with status 400 that names what is wrong. */
json_t *admin_verb_args(const struct admin_verb *v, struct span query, struct span body,
                        struct err *err);

/* The table for `GET /admin/v1/verbs`; new reference. */
json_t *admin_verbs_json(void);
