/*
 * facts - what a client must know of one JSON object of an OpenAI-shaped
 * answer, from a whole check of its syntax.
 *
 * The reader is written for the benchmark alone and shares nothing with the
 * scanner of the gateway: an error in one cannot hide an error in the other.
 */
#pragma once
#include "base/buf.h"

struct facts {
    /* Insides of the strings as they stand (escapes and all); p is NULL when the
     * member is absent or null. All borrowed from the text that was read. */
    struct span model;
    struct span finish; /* choices[0].finish_reason */
    struct span text;   /* choices[0].text, .message.content or .delta.content */
    bool has_choice;
    bool error; /* there is an `error` member that is not null */
};

/* Reads a whole JSON object; -1 when it is not one, or not RFC 8259, or not UTF-8. */
int facts_read(struct span json, struct facts *out) MUST_CHECK;

/* Appends the inside of a JSON string with its escapes resolved. */
void facts_unescape(struct buf *out, struct span raw);

/* Remembers the last text that was read, because benchmarks send the same bytes
 * again and again; equal bytes have equal facts. */
struct facts_memory {
    struct facts facts; /* borrowed from `text` */
    size_t n;
    char text[1024];
};

/* facts_read() with a memory; the result is valid until the next call with it
 * and as long as `json`. */
int facts_recall(struct facts_memory *m, struct span json, struct facts *out) MUST_CHECK;
