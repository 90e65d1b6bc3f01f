/*
 * http/address - "HOST:PORT" and "unix:PATH" as the system wants them.
 */
#pragma once
#include <sys/socket.h>
#include <sys/un.h>

#include "base/err.h"
#include "base/span.h"

enum { ADDRESS_HOST_MAX = 256 };

struct address {
    bool is_unix;
    struct sockaddr_un path;     /* unix only */
    char host[ADDRESS_HOST_MAX]; /* TCP only; IPv6 without its brackets */
    int port;
};

/* Splits an address; the host may be a name. */
int address_parse(const char *text, struct address *a, struct err *err) MUST_CHECK;

/* The socket address of a TCP address with a numeric host; false for a name. */
bool address_numeric(const struct address *a, struct sockaddr_storage *out);
