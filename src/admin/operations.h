/*
 * admin/operations - long verbs under way: their state, their story, who follows.
 *
 *   operation_begin ─▶ operation_progress* ─▶ operation_end ─▶ kept (the last 100) ─▶ gone
 *
 * An operation has the number of its rollout, so it is the same after a restart
 * of the manager.  Who follows (SSE) gets the story from its beginning, then what
 * comes; a follower that does not read is cut, never waited for.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "http/server.h"

struct operations;

struct operations *operations_new(void);
/* Cuts followers; after it no http_call is touched any more. */
void operations_free(struct operations *o);

/* `kind`, `model`, `version` are copied. The number must be new. */
void operation_begin(struct operations *o, int64_t number, const char *kind, const char *model,
                     const char *version);

/* Says what it does now; nothing is sent if it is the same as before. Unknown or ended
 * numbers are ignored, here and below. */
void operation_progress(struct operations *o, int64_t number, const char *state,
                        const char *detail);

/* error NULL: it went well. The receipt (may be NULL) is borrowed. */
void operation_end(struct operations *o, int64_t number, const char *state, const char *error,
                   json_t *receipt);

/* Ends all that run with this error. */
void operations_end_all(struct operations *o, const char *error);

/* {operation, kind, model, version, state, detail, began, ended, ok, error, receipt}; new
 * reference, NULL if there is none. */
json_t *operation_json(const struct operations *o, int64_t number);

/* Answers the call with the operation's events; false if there is no such operation. */
bool operation_follow(struct operations *o, int64_t number, struct http_call *call);
