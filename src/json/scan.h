/*
 * json/scan - find top-level members of a JSON object without building a tree,
 * so that one value can be replaced and every other byte stays as it came.
 *
 * The whole text is checked against RFC 8259 (UTF-8 included), once, in one
 * pass, without recursion and without memory of its own.  A member that
 * stands twice is refused (JSON_DUPLICATE): two readers could disagree.
 */
#pragma once
#include "base/always.h"
#include "base/span.h"

enum { JSON_DEPTH_MAX = 256 };

// clang-format off
#define JSON_FAULTS(X)                                                          \
    X(NONE,        "no fault")                                                  \
    X(EMPTY,       "the body is empty; a JSON object is needed")                \
    X(NOT_OBJECT,  "the body is JSON but not an object")                        \
    X(SYNTAX,      "the body is not valid JSON")                                \
    X(UTF8,        "the body is not valid UTF-8")                               \
    X(DEEP,        "the body is nested more than 256 levels deep")              \
    X(DUPLICATE,   "a member that decides the route stands twice")
// clang-format on

enum json_fault {
#define X(id, text) JSON_##id,
    JSON_FAULTS(X)
#undef X
};

const char *json_fault_text(enum json_fault fault);

enum json_kind {
    JSON_ABSENT,
    JSON_STRING,
    JSON_NUMBER,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
    JSON_OBJECT,
    JSON_ARRAY
};

/* One member that is looked for. */
struct json_member {
    const char *name;    /* in: the decoded name, plain ASCII */
    enum json_kind kind; /* out: JSON_ABSENT when it is not there */
    struct span value;   /* out: the value's bytes as they stand, quotes included */
    bool escaped;        /* out: a string that has backslash escapes */
};

/* Scans a whole body; fills `members` (at most 8, names compared after
 * decoding escapes, so "\u006dodel" is `model`). *at: offset of the fault.
 * *empty_object tells {} (for inserting a member); may be NULL. */
enum json_fault json_scan(struct span body, struct json_member *members, size_t nmembers,
                          size_t *at, bool *empty_object) MUST_CHECK;

/* Decodes a string value (with its quotes) into out, NUL-terminated; the length,
 * or -1 if it does not fit or holds U+0000 or a lone surrogate. */
int json_scan_string(struct span value, char *out, size_t room);
