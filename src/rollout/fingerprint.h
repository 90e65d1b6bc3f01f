/*
 * rollout/fingerprint - by what a model file is known again: sha256, size, time.
 *
 * The sha256 is what counts; size and modification time only save the reading:
 * as long as both are the same, the file is taken to be the same.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { FINGERPRINT_HEX = 64, FINGERPRINT_TEXT_MAX = 128 };

struct fingerprint {
    char sha256[FINGERPRINT_HEX + 1]; /* lower-case hexadecimal */
    uint64_t size;
    int64_t mtime_ns;
};

/* A regular, readable file that begins like a GGUF file; -1 with a sentence (status 400) if not. */
int fingerprint_model_file(const char *path, struct err *err) MUST_CHECK;

/* Reads the whole file; may be called in any thread. *stop (may be NULL) ends it early. */
int fingerprint_read(const char *path, struct fingerprint *out, const atomic_bool *stop,
                     struct err *err) MUST_CHECK;

/* Size and time are still those of `f`: 1 yes, 0 no, -1 the file cannot be looked at. */
int fingerprint_same_file(const char *path, const struct fingerprint *f,
                          struct err *err) MUST_CHECK;

/* "SHA256 SIZE MTIME_NS", as it is kept in the store. */
void fingerprint_text(const struct fingerprint *f, char out[FINGERPRINT_TEXT_MAX]);
bool fingerprint_parse(const char *text, struct fingerprint *out);
