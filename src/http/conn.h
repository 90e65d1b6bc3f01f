/*
 * http/conn - inside the server: a connection, its call, and what they share.
 *
 * One connection runs one call at a time; further requests wait in `in`.
 *
 *   read ──▶ in ──▶ call (head, body) ──▶ handler ──▶ out ──▶ sending ──▶ socket
 *
 * Answers collect in `out` and are sent once in each turn of the loop, before
 * it waits (server.c): one system call for all that a turn produced.  For the
 * same reason on_gone never comes from inside an http_call_ function.
 */
#pragma once
#include "base/buf.h"
#include "base/list.h"
#include "http/chunk.h"
#include "http/server.h"

enum {
    READ_ROOM = 65536,     /* bytes of one read */
    PIPELINE_MAX = 65536,  /* buffered requests behind a running call; then reading pauses */
    FLUSH_EARLY = 65536,   /* unsent bytes that are not kept for the end of the turn */
    OUT_KEEP = 16384,      /* a larger out buffer is given back when it is empty */
    KEEPALIVE_S = 60,      /* then TCP asks whether a silent peer is still there */
    LINGER_MS = 2000,      /* for the peer to read a last answer before we close */
    REFUSED_EXTRA_MAX = 64 /* connections above the limit that get a sentence */
};

//      id        what is true while we are here
#define CONN_STATES(X)                                               \
    X(IDLE)    /* between requests; no byte of the next one */       \
    X(HEAD)    /* a head has begun */                                \
    X(BODY)    /* its body is coming; conn->call is set */           \
    X(CALL)    /* the handler has conn->call */                      \
    X(FLUSH)   /* answered; the socket has not taken everything */   \
    X(LINGER)  /* our side is shut; waiting for the peer to close */ \
    X(CLOSING) /* libuv is closing the handles */

enum conn_state {
#define X(id) CONN_##id,
    CONN_STATES(X)
#undef X
        CONN_NSTATES
};

/* What follows when the socket has taken the answer. */
enum conn_after { AFTER_NEXT, AFTER_LINGER, AFTER_CLOSE };

struct http_server {
    uv_loop_t *loop; /* borrowed */
    struct http_server_limits limits;
    http_handler_cb handler;
    void *arg;             /* borrowed */
    uv_prepare_t prepare;  /* runs while `dirty` is not empty */
    struct list listeners; /* of struct listener */
    struct list conns;     /* of struct conn, by `link` */
    struct list dirty;     /* of struct conn, by `dirty` */
    size_t nconns, ncalls;
    size_t handles; /* libuv handles that are not closed yet */
    int port;
    bool draining, closing;
    time_t date_second;
    char date[64];
    char scratch[READ_ROOM];
};

struct http_call {
    struct conn *conn; /* borrowed */
    struct http_request_head head;
    char *head_text; /* owned; the spans of head point into it */
    struct buf body;
    struct chunk_decoder chunks;
    http_gone_cb on_gone; /* may be NULL */
    void *gone_arg;
    bool started; /* http_call_start() was called */
    bool chunked; /* this answer goes out in chunks */
    bool bodiless;
};

struct conn {
    struct http_server *server; /* borrowed */
    struct list link, dirty;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } io;
    uv_timer_t timer;
    uv_write_t write;
    uv_shutdown_t shutdown;
    enum conn_state state;
    enum conn_after after;
    bool reading, writing;
    bool peer_ended; /* EOF was read */
    bool broken;     /* a write failed, or the client does not read */
    bool reset;      /* close with RST: FIN would look like a whole answer */
    int open_handles;
    size_t unsent_before;   /* FLUSH: unsent bytes when its timer was started */
    size_t scanned;         /* of in, for http_head_end() */
    struct buf in;          /* read, not yet understood */
    struct buf out;         /* answers not yet given to libuv */
    struct buf sending;     /* in the uv_write() that is under way */
    struct http_call *call; /* owned; set in BODY and CALL */
};

/* conn.c */
void conn_accept(struct http_server *s, uv_stream_t *listener);
/* Ends it at once; a call that is running gets its on_gone. */
void conn_close(struct conn *c);
/* The call has been answered as far as the handler is concerned. */
void conn_answered(struct conn *c, enum conn_after after);
/* Marks it for the end of this turn. */
void conn_touch(struct conn *c);
/* Sends what `out` holds, as far as the socket takes it; goes on afterwards. */
void conn_flush(struct conn *c);
/* Gives bytes to the socket now, and does nothing else. */
void conn_push(struct conn *c);
size_t conn_unsent(const struct conn *c);

/* call.c */
struct http_call *call_new(struct conn *c, struct span head);
void call_free(struct http_call *call);
/* Writes a whole error answer of our own; the connection closes after it. */
void call_refuse(struct conn *c, int status, const char *code, const char *text);

/* server.c */
void server_handle_closed(struct http_server *s);
/* A connection has joined `dirty`. */
void server_touched(struct http_server *s);
