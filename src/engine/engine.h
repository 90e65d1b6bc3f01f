/*
 * engine - the thread that decodes, and the way to it.
 *
 *   HTTP thread                        decode thread
 *   engine_submit() ──▶ inbox ──▶ decoder: waiting, slots, steps
 *   on_said()       ◀── outbox ◀── what streams said, woken once a step
 *
 *   LOADING ──model is warm──▶ READY ──engine_close()──▶ CLOSED
 *      └──────cannot load────▶ FAILED ───────────────────▶ CLOSED
 *
 * All functions are for the HTTP thread.
 */
#pragma once
#include <uv.h>

#include "engine/decoder.h"
#include "engine/options.h"

#define ENGINE_STATES(X)                                                 \
    X(LOADING, "loading", "no model yet")                                \
    X(READY, "ready", "the model has computed; streams are taken")       \
    X(FAILED, "failed", "the model cannot be loaded; `reason` says why") \
    X(CLOSED, "closed", "the decode thread has ended")

enum engine_state {
#define X(id, name, fact) ENGINE_##id,
    ENGINE_STATES(X)
#undef X
        ENGINE_NSTATES
};

struct engine;

struct engine_events {
    /* READY or FAILED; err is set with FAILED. */
    void (*on_state)(enum engine_state state, const struct err *err, void *arg);
    /* A stream said something or ended (said->finish); the text is the callee's to read. After
     * an end the stream is not reported again. */
    void (*on_said)(struct stream *s, const struct said *said, void *arg);
};

/* Starts the decode thread, which loads the model. `loop`, `o`, `arg` are borrowed. */
struct engine *engine_start(uv_loop_t *loop, const struct options *o,
                            const struct engine_events *events, void *arg);

enum engine_state engine_state(const struct engine *e);

/* The model that serves; NULL while there is none. Borrowed, valid until the next event. */
struct model *engine_model(const struct engine *e);

/* Tokens that one stream may have, as configured and as the model allows; READY only. */
int engine_context(const struct engine *e);

struct metrics *engine_metrics(struct engine *e);

/* Streams that were submitted and have not ended. */
size_t engine_streams(const struct engine *e);

/* Hands over n streams (each with a reference of its own), all or none: -1 with 429 when
 * the queue is full. */
int engine_submit(struct engine *e, struct stream **streams, size_t n, struct err *err) MUST_CHECK;

/* The stream is not wanted any more; it still ends with on_said(). */
void engine_cancel(struct engine *e, struct stream *s);

/* Ends a load or the running streams, joins the thread, frees; `closed` is called from the
 * loop when nothing of the engine is left. */
void engine_close(struct engine *e, void (*closed)(void *arg), void *arg);
