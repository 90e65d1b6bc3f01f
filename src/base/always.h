/*
 * always - what cannot happen stops us, in release builds too.
 *
 * ALWAYS(x) prints the expression, file and line, and aborts.  Use it for
 * broken invariants of our own; never for bytes from outside.
 */
#pragma once

#define ALWAYS(x) ((x) ? (void)0 : always_failed(#x, __FILE__, __LINE__, __func__))

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define UNUSED __attribute__((unused))

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

_Noreturn void always_failed(const char *expr, const char *file, int line, const char *func);
