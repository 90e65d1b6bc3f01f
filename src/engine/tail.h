/*
 * tail - the end of a stream's text that may not be passed on yet.
 *
 * Tokens cut text anywhere: in the middle of a character, in the middle of a
 * stop string.  Bytes enter as tokens come; what leaves is whole characters
 * that can no longer be the beginning of a stop string.
 */
#pragma once
#include "base/buf.h"

enum { STOPS_MAX = 16, STOP_BYTES_MAX = 1024 };

struct stops {
    struct span s[STOPS_MAX]; /* owned by whoever fills it */
    size_t n;
};

struct tail {
    const struct stops *stops; /* borrowed */
    struct buf held;
};

void tail_fini(struct tail *t);

/* Adds bytes; appends to `out` what may go. True when a stop string is complete: the
 * text before it has been appended and the tail is empty. */
bool tail_add(struct tail *t, struct span bytes, struct buf *out);

/* The text ends here: what was held goes out, without a character that has only begun. */
void tail_flush(struct tail *t, struct buf *out);
