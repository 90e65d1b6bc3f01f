/*
 * expect - the exact text that a version must answer to a sentence.
 *
 * A file with lines "VERSION<TAB>SENTENCE<TAB>TEXT"; SENTENCE `*` stands for
 * every sentence, and in TEXT \n, \t and \\ are escapes.
 */
#pragma once
#include "names.h"
#include "script.h"

struct expect {
    char **text[NAMES_MAX]; /* owned; by version and sentence; NULL: anything will do */
    size_t sentences;
};

int expect_read(struct expect *e, const char *path, const struct script *script,
                struct names *names, struct err *err) MUST_CHECK;
void expect_fini(struct expect *e);

/* NULL when nothing is expected. */
const char *expect_text(const struct expect *e, int version, size_t sentence);
