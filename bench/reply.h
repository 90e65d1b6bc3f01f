/*
 * reply - a client's exact reading of one HTTP/1.1 answer.
 *
 * Tolerant where a client may be (spelling of field names, missing reason,
 * chunk extensions), exact where an answer can be cut or mixed up: an answer is
 * WHOLE only when its framing says so.
 *
 *   HEAD ─▶ LENGTH ─────────────────────────────▶ WHOLE
 *     ├───▶ CHUNK_SIZE ⇄ CHUNK_DATA,CHUNK_END ─▶ TRAILER ─▶ WHOLE
 *     ├───▶ UNTIL_CLOSE ──(reply_closed)────────▶ WHOLE
 *     └───▶ BROKEN   (from every state)
 */
#pragma once
#include "base/buf.h"

/*    id            what comes next                     */
#define REPLY_STATES(X)                              \
    X(HEAD, "status line and fields")                \
    X(LENGTH, "the rest of a body of known length")  \
    X(CHUNK_SIZE, "a chunk's size line")             \
    X(CHUNK_DATA, "the rest of a chunk")             \
    X(CHUNK_END, "the line end after a chunk")       \
    X(TRAILER, "trailer lines")                      \
    X(UNTIL_CLOSE, "body until the connection ends") \
    X(WHOLE, "nothing: complete")                    \
    X(BROKEN, "nothing: not HTTP")

enum reply_state {
#define X(id, note) REPLY_##id,
    REPLY_STATES(X)
#undef X
        REPLY_NSTATES
};

enum { REPLY_VERSION_MAX = 64 };

struct reply {
    enum reply_state state;
    int status;
    bool keep_alive;
    bool event_stream; /* Content-Type is text/event-stream */
    unsigned versions; /* number of X-Segue-Version fields */
    char version[REPLY_VERSION_MAX];
    uint64_t left;         /* bytes of the body or chunk still to come */
    const char *complaint; /* why it is BROKEN; static text */
};

typedef void (*reply_body_cb)(void *arg, struct span body);

void reply_begin(struct reply *r);

/* Reads what it can of p and returns how many bytes it used; the rest must be
 * offered again with more behind it.  Stops at WHOLE and BROKEN.  Body bytes
 * are handed to `body` as they come. */
size_t reply_feed(struct reply *r, const char *p, size_t n, reply_body_cb body, void *arg);

/* The connection has ended; true if that made the answer whole. */
bool reply_closed(struct reply *r);
