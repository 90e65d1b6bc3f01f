/*
 * exchange - one generating request and its answer, on the HTTP thread.
 *
 * Between a call of the server and its streams in the decode thread:
 *
 *   OPEN ──last stream ended──▶ answered and gone
 *     ├──client left──────────▶ streams cancelled, gone
 *     └──failed, cut──────────▶ error said, streams cancelled, gone
 */
#pragma once
#include "base/list.h"
#include "engine/answer.h"
#include "engine/engine.h"
#include "http/server.h"

struct exchange;

/* The exchanges of a process. */
struct exchanges {
    struct engine *engine; /* borrowed */
    const char *model;     /* borrowed; served name */
    struct list open;
};

/* Starts a request (its reference is taken) or answers the call with an error. */
void exchange_begin(struct exchanges *all, struct http_call *call, struct request *request);

/* What one of its streams said. */
void exchange_said(struct exchanges *all, struct stream *s, const struct said *said);

/* Ends all that are open with an error. */
void exchange_cut_all(struct exchanges *all, const char *why);
