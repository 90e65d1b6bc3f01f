/*
 * gateway/worker - one thread, one loop, its own listening sockets.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct counters;
struct gateway;
struct worker;

/* listen_fds: n listening sockets, owned by the worker from now on; tls: which of them. */
struct worker *worker_new(struct gateway *g, unsigned index, unsigned workers,
                          const int *listen_fds, const bool *tls, size_t n,
                          struct counters *counters, struct err *err);
int worker_start(struct worker *w, struct err *err) MUST_CHECK;

/* Any thread: there is something new in gateway_table() or gateway_stopping(). */
void worker_wake(struct worker *w);

/* After its thread has ended. */
void worker_join_free(struct worker *w);
