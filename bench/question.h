/*
 * question - a request as segue-answer must understand it: where it ends, and
 * what it wants.
 */
#pragma once
#include "base/buf.h"

enum { QUESTION_HEAD_MAX = 65536, QUESTION_BODY_MAX = 64 << 20 };

struct question {
    struct span method, path, head, body;
    size_t total;  /* bytes of head and body */
    size_t length; /* Content-Length */
    bool has_length, chunked, close, probe;
};

/* Reads one request from s: 1 complete, 0 more is needed, -1 not understood. A chunked
 * body is joined in `joined`, which must be empty. */
int question_read(struct question *q, struct span s, struct buf *joined);

/* "stream":true anywhere in the body, with any space after the colon. */
bool question_wants_stream(const struct question *q);
