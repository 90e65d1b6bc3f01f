/*
 * address - where to connect or listen: TCP on a numeric host, or a unix socket.
 */
#pragma once
#include <stdbool.h>
#include <sys/socket.h>

#include "base/err.h"

struct address {
    struct sockaddr_storage sa;
    socklen_t len;
    char text[160]; /* "127.0.0.1:8080" or "unix:/path" */
};

/* "[http://]HOST:PORT[/]", "PORT" (then on 127.0.0.1) or "unix:PATH". */
int address_parse(struct address *a, const char *text, struct err *err) MUST_CHECK;

bool address_is_unix(const struct address *a);

/* A listening, non-blocking socket; with `shared` several may listen on one port.
 * A stale unix socket is replaced. -1 with a sentence. */
int address_listen(struct address *a, bool shared, struct err *err) MUST_CHECK;

/* A non-blocking socket that connects; -1 and errno if it failed at once. */
int address_connect(const struct address *a) MUST_CHECK;
