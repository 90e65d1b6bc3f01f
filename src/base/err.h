/*
 * err - an expected failure, in words for the person who must act on it.
 *
 * Filled where it is found, once: what was tried, on what, what came back,
 * which setting would change it.  Functions that take a `struct err *` return
 * 0 or -1; the text is valid only after -1.  A NULL err is allowed and
 * receives nothing.
 */
#pragma once
#include "base/always.h"

enum { ERR_TEXT_MAX = 1024 };

struct err {
    int status; /* HTTP status that fits, e.g. 400, 404, 409, 500 */
    char text[ERR_TEXT_MAX];
};

/* Sets status and text; its value is -1, so that `return err_set(...)`.  A macro,
 * because a compiler that sees the -1 also sees what is not reached after it. */
#define err_set(...)           \
    ({                         \
        err_fill(__VA_ARGS__); \
        -1;                    \
    })

/* Puts a formatted prefix and ": " before the text that is there; its value is -1. */
#define err_prefix(...)               \
    ({                                \
        err_fill_prefix(__VA_ARGS__); \
        -1;                           \
    })

void err_fill(struct err *err, int status, const char *fmt, ...) PRINTF_LIKE(3, 4);
void err_fill_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
