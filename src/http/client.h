/*
 * http/client - one HTTP/1.1 request on libuv, for probes and for the CLI.
 *
 * One connection for one request.  Callbacks come on the loop's thread, in the
 * order head, data*, done; done is called exactly once, in every case, and is
 * the last.  The request frees itself after done has returned.  A host name is
 * looked up and its addresses are tried in turn.
 *
 * The process ignores SIGPIPE from the first http_fetch_start() on.
 */
#pragma once
#include <uv.h>

#include "base/err.h"
#include "http/parse.h"

struct http_fetch;

struct http_fetch_events {
    /* May be NULL. head is valid during the call. */
    void (*on_head)(const struct http_response_head *head, void *arg);
    /* Body bytes, already unchunked. May be NULL: then the body is collected
     * (up to body_max) and given to on_done. */
    void (*on_data)(struct span data, void *arg);
    /* status 0 and err set: no whole answer came (err->text says what was tried
     * and what happened). body: the collected body, valid during the call. */
    void (*on_done)(int status, struct span body, const struct err *err, void *arg);
};

struct http_fetch_options {
    const char *address; /* "HOST:PORT" or "unix:PATH"; copied */
    const char *method;  /* "GET", ... */
    const char *target;  /* "/health" */
    const char *headers; /* further lines each with CRLF, or NULL */
    struct span body;    /* copied; sent with Content-Length unless method is GET and n is 0 */
    uint64_t timeout_ms; /* for the whole answer; 0: none */
    uint64_t silence_ms; /* until the first byte, and between two pieces of the answer; 0: none */
    size_t body_max;     /* collected body limit; 0: 16 MiB */
};

/* Never fails synchronously: errors come through on_done, later. */
struct http_fetch *http_fetch_start(uv_loop_t *loop, const struct http_fetch_options *options,
                                    const struct http_fetch_events *events, void *arg);

/* Gives it up: on_done comes later, from the loop, with an error ("cancelled"),
 * and nothing comes before it. Allowed in every callback; in on_done it does
 * nothing. */
void http_fetch_cancel(struct http_fetch *fetch);
