/*
 * diag - what is wrong with a configuration, all of it, in the order of the file.
 *
 * Readers add; nothing is printed before the whole file has been looked at.
 */
#pragma once
#include "base/buf.h"

struct diag {
    unsigned line, column; /* from 1; line 0: about the file as a whole */
    bool warning;
    char *text; /* owned */
};

struct diags {
    const char *name;   /* borrowed; the file's name as it is shown */
    struct diag *items; /* owned */
    size_t n;
    size_t errors;
};

enum { DIAGS_SHOWN_MAX = 50 };

void diag_error(struct diags *d, unsigned line, unsigned column, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
void diag_warning(struct diags *d, unsigned line, unsigned column, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

/* Sorts by position and appends one line each, control bytes made harmless. */
void diags_print(struct diags *d, struct buf *out);

void diags_fini(struct diags *d);
