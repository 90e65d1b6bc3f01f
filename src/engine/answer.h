/*
 * answer - the bytes that OpenAI's clients expect.
 *
 * Plain: one JSON object.  Streamed: server-sent events, for a chat first the role, then
 * pieces of text, then the finish reason, then (if asked for) the usage, then [DONE].
 */
#pragma once
#include "engine/stream.h"

struct answer {
    char id[48];       /* "chatcmpl-..." */
    int64_t created;   /* seconds since 1970 */
    const char *model; /* borrowed; the served name */
    bool chat;
    bool usage; /* each event carries "usage":null until the last */
};

struct choice {
    struct buf text; /* owned; plain answers only */
    enum finish finish;
    uint32_t tokens, reused;
    bool begun; /* its first event was written */
};

void answer_begin(struct answer *a, const struct request *r, const char *model);

/* A plain answer; `n` choices. */
void answer_whole(const struct answer *a, const struct request *r, const struct choice *choices,
                  size_t n, struct buf *out);

/* Events. `first`: before it, the role (chat). */
void answer_text(const struct answer *a, int index, bool first, struct span text, struct buf *out);
void answer_finish(const struct answer *a, int index, bool first, enum finish finish,
                   struct buf *out);
void answer_usage(const struct answer *a, const struct request *r, const struct choice *choices,
                  size_t n, struct buf *out);
void answer_done(struct buf *out);
void answer_error(const char *message, struct buf *out);
