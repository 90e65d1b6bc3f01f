/*
 * api - the paths that segue-engine answers.
 *
 *   POST /v1/chat/completions, /v1/completions    generate
 *   GET  /v1/models                               the served model
 *   POST /tokenize, /detokenize                   text to ids and back
 *   GET  /health, /props, /metrics, /version
 */
#pragma once
#include "engine/exchange.h"
#include "engine/options.h"

struct api {
    const struct options *o; /* borrowed */
    struct engine *engine;   /* borrowed */
    struct exchanges exchanges;
    bool stopping; /* nothing new is begun */
};

/* The server's handler; arg is the struct api. */
void api_handle(struct http_call *call, void *arg);
