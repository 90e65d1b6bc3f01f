/*
 * http/server - a small HTTP/1.1 server on libuv, for the engine and the admin
 * interface.  (The data plane has its own loop and connections: src/gateway.)
 *
 * A server listens on one or several addresses and calls one handler for each
 * complete request.  The handler, now or later, answers the call with exactly
 * one of: http_call_reply(); or http_call_start(), any number of
 * http_call_write(), then http_call_finish() or http_call_cut().
 *
 * Ownership: a call belongs to the server; the handler's pointer is valid until
 * it has answered completely or its on_gone callback has returned, whichever
 * is first.  After on_gone nothing more is called for it and the handler must
 * not touch it.  All on the loop's thread.
 *
 * A client is gone when its connection ends or fails, and also when it shuts
 * only its own side while the handler still works: an engine must not go on
 * for somebody who most likely left.  on_gone comes from the loop or from
 * http_server_close(), never from inside another function of a call.
 *
 * The process ignores SIGPIPE from http_server_new() on.
 */
#pragma once
#include <uv.h>

#include "base/err.h"
#include "http/parse.h"

struct http_server;
struct http_call;

typedef void (*http_handler_cb)(struct http_call *call, void *arg);
typedef void (*http_gone_cb)(struct http_call *call, void *arg);

/* 0: the default. */
struct http_server_limits {
    size_t head_bytes;    /* default 16384 */
    size_t body_bytes;    /* default 8 MiB; more is 413 */
    size_t connections;   /* default 1024; more are answered 503 and closed */
    uint64_t idle_ms;     /* between requests, default 75000 */
    uint64_t receive_ms;  /* first byte to last byte of a request, default 30000 */
    size_t pending_bytes; /* unsent answer bytes of one call before it is cut
                             because its client does not read; default 4 MiB */
};

/* `loop`, `arg` borrowed and outlive the server. limits NULL: defaults. */
struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_limits *limits,
                                    http_handler_cb handler, void *arg);

/* Listens on "HOST:PORT" (numeric host, IPv6 in brackets, port 0 = any) or
 * "unix:PATH" (mode 0600 socket; a stale one is replaced, a live one refused). */
int http_server_listen(struct http_server *s, const char *address, struct err *err) MUST_CHECK;

/* The port of the first TCP address, or 0. */
int http_server_port(const struct http_server *s);

/* Stops listening; keep-alive connections close after their running call. */
void http_server_drain(struct http_server *s);

/* Number of calls that are not answered completely. */
size_t http_server_calls(const struct http_server *s);

/* Bytes of answers, over all connections, that the sockets have not taken. */
size_t http_server_unsent(const struct http_server *s);

/* Closes everything (calls get on_gone before this returns); frees itself when
 * libuv has let go. */
void http_server_close(struct http_server *s);

const struct http_request_head *http_call_head(const struct http_call *call);
struct span http_call_body(const struct http_call *call);

/* Value of the first header field with this name (any case); n is 0 if none. */
struct span http_call_header(const struct http_call *call, const char *name);

/* Value of a query parameter, percent-decoded into out; false if absent or
 * longer than out. */
bool http_call_query(const struct http_call *call, const char *name, char *out, size_t room);

/* Called once if the client leaves before the answer is complete. */
void http_call_on_gone(struct http_call *call, http_gone_cb cb, void *arg);

/* `extra`: further header lines, each with CRLF, or NULL. body is copied. */
void http_call_reply(struct http_call *call, int status, const char *content_type,
                     const char *extra, struct span body);

/* {"error":{"message","type","param","code"}}; type by status; 503 and 429
 * carry Retry-After: 1. */
void http_call_error(struct http_call *call, int status, const char *code, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

void http_call_start(struct http_call *call, int status, const char *content_type,
                     const char *extra);
void http_call_write(struct http_call *call, struct span data);
void http_call_finish(struct http_call *call);

/* Ends the connection without the last chunk: a visible cut. */
void http_call_cut(struct http_call *call);

/* Bytes accepted by http_call_write() that the socket has not taken. */
size_t http_call_pending(const struct http_call *call);
