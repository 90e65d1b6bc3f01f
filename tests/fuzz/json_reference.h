/*
 * json_reference - what jansson says about a text.
 *
 * On its own because jansson.h and json/scan.h share names.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum reference {
    REFERENCE_ACCEPTS,
    REFERENCE_REFUSES,
    REFERENCE_LIMIT /* valid by RFC 8259, but jansson cannot hold it */
};

/* *is_string: the text is an object whose member `model` is a string; then it
 * is in `model`, NUL-terminated, if it fits and holds no NUL (*length is its
 * true length). */
enum reference reference_scan(const char *p, size_t n, bool *is_string, char *model, size_t room,
                              size_t *length);
