/*
 * test - what every unit test includes: cmocka with the headers it wants.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/span.h"

/* Fails with both texts shown. */
#define assert_span(got, want) assert_span_(got, span_str(want), __FILE__, __LINE__)

static inline void assert_span_(struct span got, struct span want, const char *file, int line)
{
    if (!span_eq(got, want)) {
        print_error("got  \"" SPAN_FMT "\"\nwant \"" SPAN_FMT "\"\n", SPAN_ARG(got),
                    SPAN_ARG(want));
        _fail(file, line);
    }
}
