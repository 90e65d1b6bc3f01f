/*
 * gguf - is this file a whole GGUF model?  Found out from its header, without
 * loading it, so that a half-copied upload is refused before anything starts.
 */
#pragma once
#include "base/err.h"

/* 0, or -1 with a sentence: not there, no regular file, not readable, not GGUF,
 * shorter than its tensors need. */
int gguf_check(const char *path, struct err *err) MUST_CHECK;
