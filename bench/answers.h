/*
 * answers - the bytes that segue-answer sends, made once at its start.
 */
#pragma once
#include "base/buf.h"

/* The bytes of all answers; made once, then constant. */
struct answers {
    struct buf plain, stream_head, token, stream_end, models, health, not_found, bad;
};

struct answer_options {
    const char *name;  /* "model" in the answers */
    unsigned bytes;    /* of the plain answer's body */
    unsigned tokens;   /* of a stream */
    uint64_t gap_ns;   /* between two tokens; 0: as fast as the socket takes them */
    uint64_t delay_ns; /* before a plain answer */
    unsigned threads;
};

void answers_make(struct answers *a, const struct answer_options *o);
void answers_fini(struct answers *a);

/* Appends an answer with Content-Length; `status` is "200 OK". */
void answers_whole(struct buf *out, const char *status, const char *type, struct span body);
