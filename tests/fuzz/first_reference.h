/*
 * first_reference - what jansson says about an array's first element.
 *
 * On its own because jansson.h and json/scan.h share names.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum first {
    FIRST_SAME,  /* `first` is the text of the array's first element */
    FIRST_NONE,  /* the text is an empty array, or no array */
    FIRST_OTHER, /* the array has a first element, but `first` is not it */
    FIRST_LIMIT  /* jansson cannot hold this text */
};

enum first first_reference(const char *array, size_t n, const char *first, size_t first_n);
