/*
 * alloc - heap memory for small things: it is there, or we abort.
 *
 * Sizes that come from the network are bounded by a limit before they get
 * here.  Memory is freed with free().
 */
#pragma once
#include <stddef.h>

/* n bytes, uninitialised; n may be 0. */
void *mem_alloc(size_t n) __attribute__((malloc, returns_nonnull));

/* n zeroed bytes. */
void *mem_zero(size_t n) __attribute__((malloc, returns_nonnull));

/* Like realloc(); aborts when there is no memory. */
void *mem_grow(void *p, size_t n) __attribute__((returns_nonnull));

/* A copy of a NUL-terminated string; NULL gives NULL. */
char *str_dup(const char *s);

/* A formatted string on the heap; the caller frees it. */
char *str_fmt(const char *fmt, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

#define NEW(type) ((type *)mem_zero(sizeof(type)))
