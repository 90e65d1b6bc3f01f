/*
 * sse - takes a stream of server-sent events apart (WHATWG HTML 9.2).
 */
#pragma once
#include "base/buf.h"

struct sse {
    struct buf line; /* the line that has only begun */
    struct buf data; /* data lines of the event so far, joined by line feeds */
    char event[32];  /* its type; "" is "message" */
    bool has_data;
    bool after_cr; /* a line ended with CR; an LF belongs to it */
};

enum { SSE_EVENT_MAX = 4 << 20 };

typedef void (*sse_cb)(const char *event, struct span data, void *arg);

/* Calls cb for each whole event in the bytes; false when an event is larger than
 * SSE_EVENT_MAX.  Comments and unknown fields are passed over. */
bool sse_feed(struct sse *s, struct span bytes, sse_cb cb, void *arg);
void sse_fini(struct sse *s);
