/*
 * verdict - is this answer whole, well-formed and from one version?
 *
 * One verdict accompanies one answer: it sees every body byte and, at the end,
 * the head.  The first thing that is wrong is the cause of the failure.
 */
#pragma once
#include "facts.h"
#include "reply.h"

/*    id                name                  what went wrong */
#define CAUSES(X)                                                                      \
    X(NONE, "none", "the answer is right")                                             \
    X(CONNECT, "connect", "the connection could not be opened")                        \
    X(UNANSWERED, "unanswered", "the connection ended before the answer's first byte") \
    X(TRUNCATED, "truncated", "the connection ended within the answer")                \
    X(TIMEOUT, "timeout", "the answer took longer than --timeout")                     \
    X(UNFINISHED, "unfinished", "the answer was not there when the run had ended")     \
    X(FRAMING, "framing", "head or chunks are not valid HTTP")                         \
    X(SURPLUS, "surplus", "bytes followed the end of the answer")                      \
    X(HTTP_503, "http_503", "status 503")                                              \
    X(HTTP_5XX, "http_5xx", "another status from 500 to 599")                          \
    X(HTTP_OTHER, "http_other", "another status than 200")                             \
    X(NOT_JSON, "not_json", "the body, or an event, is not a JSON object")             \
    X(NOT_EVENTS, "not_events", "the body is not a well-formed event stream")          \
    X(ERROR_EVENT, "error_event", "the stream or the body carries an error")           \
    X(NO_DONE, "no_done", "the stream does not end with data: [DONE]")                 \
    X(NO_FINISH, "no_finish", "no finish_reason came")                                 \
    X(NO_VERSION, "no_version", "X-Segue-Version is missing or repeated")              \
    X(MIXED_VERSIONS, "mixed_versions", "two versions in one answer")                  \
    X(WRONG_TEXT, "wrong_text", "another text than expected of this version")

enum cause {
#define X(id, name, note) CAUSE_##id,
    CAUSES(X)
#undef X
        NCAUSES
};

const char *cause_name(enum cause c);
const char *cause_note(enum cause c);

enum { VERDICT_MODEL_MAX = 96 };

struct verdict {
    enum cause cause;              /* the first thing that was wrong */
    bool stream;                   /* a stream was asked for */
    bool events;                   /* the body is read as an event stream */
    bool keep_text;                /* the answer's text is wanted */
    bool done;                     /* data: [DONE] came */
    bool finish;                   /* a finish_reason came */
    bool open_event;               /* lines of an event came, its empty line did not */
    uint64_t tokens;               /* JSON events seen */
    char model[VERDICT_MODEL_MAX]; /* "model" of the body or the first event */
    struct buf held;               /* owned; a plain body, or a line that is not complete */
    struct buf text;               /* owned; only with keep_text */
    struct facts_memory *memory;   /* borrowed; of the thread */
};

/* Begins with the next answer; keeps the buffers. */
void verdict_begin(struct verdict *v, bool stream, bool keep_text);
void verdict_fini(struct verdict *v);

/* The head is known: how the body is to be read. */
void verdict_head(struct verdict *v, const struct reply *r);
void verdict_body(struct verdict *v, struct span body);

/* The answer is whole. `check_version`: the head must name one version and the
 * body's "model" must be that version. Returns the cause. */
enum cause verdict_end(struct verdict *v, const struct reply *r, bool check_version);

/* The last part of "hy-mt@v2": two names mean the same version if it is equal. */
const char *version_short(const char *name);
