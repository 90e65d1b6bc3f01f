/*
 * probe - one question to an engine, and what its answer means.
 */
#pragma once
#include <uv.h>

#include "config/config.h"

/*    id         asked                        */
#define PROBE_KINDS(X)                                                 \
    X(HEALTH)   /* GET /health, or GET /v1/models where that is 404 */ \
    X(MODELS)   /* GET /v1/models: is it the engine that we mean? */   \
    X(QUESTION) /* POST /v1/chat/completions: the known question */

enum probe_kind {
#define X(id) PROBE_##id,
    PROBE_KINDS(X)
#undef X
};

enum probe_verdict {
    PROBE_GOOD,  /* text: the answer of the known question, else "" */
    PROBE_LATER, /* no answer, or "not yet" (503, 429); text says what happened */
    PROBE_WRONG  /* an answer that will not get better by waiting; text says why */
};

/* Everything is copied. */
struct probe_target {
    const char *address, *prefix;
    const char *serve_as;
    bool health_may_lack;
    const struct config_ready *ready;
    uint64_t timeout_ms; /* for the whole answer */
};

typedef void (*probe_cb)(enum probe_verdict verdict, const char *text, void *arg);

struct probe;

/* done is called once, later, unless the probe is cancelled; then the pointer is invalid. */
struct probe *probe_start(uv_loop_t *loop, enum probe_kind kind, const struct probe_target *target,
                          probe_cb done, void *arg);
void probe_cancel(struct probe *p);
