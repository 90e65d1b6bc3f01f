/*
 * names - the versions that were seen, each with a small number.
 *
 * Shared by all threads of a run: a name, once there, never changes or moves.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

enum { NAMES_MAX = 32, NAME_BYTES = 64 };

struct names {
    pthread_mutex_t lock; /* held to add */
    atomic_int count;
    char name[NAMES_MAX][NAME_BYTES];
};

void names_init(struct names *n);

/* The number of this version ("hy-mt@v2" and "v2" are the same); adds it. The
 * last number is shared by all that do not fit. */
int names_index(struct names *n, const char *version);
