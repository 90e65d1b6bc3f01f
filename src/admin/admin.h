/*
 * admin - the interface for people and programs that operate: HTTP on a unix socket.
 *
 *   http/server ──▶ verbs (which row, are its arguments right) ──▶ struct admin_backend
 *                                                                      (the manager)
 *
 * Short verbs are answered from what the backend returns.  Verbs that change
 * something get a struct admin_call and answer it once, now or later.
 */
#pragma once
#include <jansson.h>
#include <uv.h>

#include "admin/operations.h"
#include "base/buf.h"
#include "base/err.h"

struct admin;
struct admin_call;

struct admin_backend {
    /* New references; NULL with err. `model` may be NULL: all. */
    json_t *(*health)(void *arg); /* its "status" must be "ok" for a 200 */
    json_t *(*status)(void *arg);
    json_t *(*versions)(const char *model, void *arg, struct err *err);
    json_t *(*receipt)(const char *model, int64_t number, void *arg, struct err *err);
    json_t *(*rollouts)(const char *model, int limit, void *arg, struct err *err);
    json_t *(*logs)(const char *replica, unsigned lines, void *arg, struct err *err);
    json_t *(*counters)(void *arg);
    void (*metrics)(struct buf *out, void *arg); /* Prometheus text */
    /* Each answers the call exactly once. */
    void (*deploy)(struct admin_call *call, const char *model, const char *path,
                   const char *version, const char *engine, void *arg);
    void (*switch_to)(struct admin_call *call, const char *model, const char *version, void *arg);
    void (*rollback)(struct admin_call *call, const char *model, void *arg);
    void (*stop)(struct admin_call *call, bool engines, void *arg);
    json_t *(*keys)(void *arg);
    /* models: array of names, borrowed, NULL: all; 0: no limit. */
    void (*key_add)(struct admin_call *call, const char *name, const json_t *models,
                    int64_t concurrency, int64_t rate, void *arg);
    void (*key_revoke)(struct admin_call *call, const char *name, void *arg);
};

/* `loop`, `backend`, `arg` are borrowed and outlive it. */
struct admin *admin_new(uv_loop_t *loop, const struct admin_backend *backend, void *arg);
int admin_listen(struct admin *a, const char *socket_path, struct err *err) MUST_CHECK;
struct operations *admin_operations(struct admin *a); /* borrowed */

/* Ends all calls; operations are cut.  Memory goes when libuv has let go. */
void admin_close(struct admin *a);

/* When the request was read (CLOCK_MONOTONIC). */
uint64_t admin_call_received_ns(const struct admin_call *call);

/* Answers; `json` is stolen. The call is gone afterwards. Fine when the client has left. */
void admin_reply(struct admin_call *call, int status, json_t *json);
void admin_fail(struct admin_call *call, const struct err *err);
