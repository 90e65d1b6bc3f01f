/*
 * utf8 - the shape of UTF-8 (RFC 3629), nothing about meaning.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* Bytes of the well-formed character at p (1 to 4), or 0 when the bytes are
 * not one: too short, overlong, a surrogate, above U+10FFFF. */
size_t utf8_length(const char *p, size_t n);

bool utf8_valid(const char *p, size_t n);

/* How many bytes of p can be passed on without splitting a character: n, or
 * less by the 1 to 3 bytes of a character that has only begun. Malformed
 * bytes are not held back. */
size_t utf8_whole(const char *p, size_t n);
