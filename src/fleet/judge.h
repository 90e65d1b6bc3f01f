/*
 * judge - is this the answer of an engine that can be used?  Pure.
 *
 * Health alone proves nothing: engines answer 200 with garbage.
 */
#pragma once
#include "base/err.h"
#include "base/span.h"

/*
 * Takes a whole answer of POST /v1/chat/completions. 0: *text is the answer's
 * text, trimmed (the caller frees it).  -1 with a sentence: no JSON (cut off),
 * no text, empty, one character repeated, or not what `expect` (POSIX extended
 * regex, any case; may be NULL) asks for.
 */
int judge_answer(struct span body, const char *expect, char **text, struct err *err) MUST_CHECK;

/* Takes a whole answer of GET /v1/models: is `name` among them?  -1 names what
 * was found instead. */
int judge_models(struct span body, const char *name, struct err *err) MUST_CHECK;

/* The first bytes of something unexpected, fit for a sentence: valid UTF-8 and
 * NUL-terminated; control bytes and what is no UTF-8 become spaces. */
void judge_excerpt(struct span body, char *out, size_t room);
