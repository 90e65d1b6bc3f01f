/*
 * weights - is this file a whole GGUF file?
 *
 * libllama trusts the sizes in a header more than we can allow: a file whose
 * copy broke off must be a sentence, not an abort in the middle of a load.
 * The header is walked once, nothing of the weights is read.
 */
#pragma once
#include <stdint.h>

#include "base/err.h"

struct weights {
    uint64_t bytes;    /* size of the file */
    uint64_t ntensors; /* as the header says */
    uint32_t version;  /* of the GGUF format */
};

/* 0, or -1 with a sentence that names the file and what is wrong with it. */
int weights_check(const char *path, struct weights *out, struct err *err) MUST_CHECK;
