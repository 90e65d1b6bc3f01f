/*
 * app/listen - the public listening sockets.
 *
 * One socket for each worker on each address, in one SO_REUSEPORT group: the
 * kernel spreads new connections over the workers.  Because such a group may
 * be joined by any process of the same user, an address is first bound without
 * the option, so that "in use" is noticed.
 */
#pragma once
#include <stdbool.h>

#include "base/err.h"

enum { LISTEN_TEXT_MAX = 80 };

/*
 * Binds "HOST:PORT" (numeric host, IPv6 in brackets, or localhost; port 0: any
 * free one) n times and listens; `actual` is the address with its real port.  -1 with a sentence
 * that names the owner of a used port if it can be known; then nothing stays open.  The descriptors
 * are close-on-exec.
 */
int listen_open(const char *address, unsigned n, int *fds, char actual[LISTEN_TEXT_MAX],
                struct err *err) MUST_CHECK;

/* Who listens on a TCP port: "pid 4711 (nginx)" into out, or "" if unknown. */
void listen_owner(unsigned port, char *out, unsigned long room);
