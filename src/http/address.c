/* address - see address.h. */
#include "http/address.h"

#include <uv.h>

static int refuse(struct err *err, const char *text, const char *why)
{
    return err_set(err, 400, "address \"%s\": %s; write HOST:PORT or unix:/PATH/TO/SOCKET", text,
                   why);
}

static int parse_unix(const char *text, struct address *a, struct err *err)
{
    size_t n = strlen(text) - 5;

    if (n == 0)
        return refuse(err, text, "the path of the socket is missing");
    if (n >= sizeof(a->path.sun_path))
        return err_set(err, 400, "address \"%s\": the path has %zu bytes; a unix socket takes %zu",
                       text, n, sizeof(a->path.sun_path) - 1);
    a->is_unix = true;
    a->path.sun_family = AF_UNIX;
    memcpy(a->path.sun_path, text + 5, n + 1);
    return 0;
}

int address_parse(const char *text, struct address *a, struct err *err)
{
    *a = (struct address){0};
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text, a, err);

    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (!colon || colon == text)
        return refuse(err, text, "HOST or PORT is missing");
    if (strlen(colon + 1) > 5 || !span_u64(span_str(colon + 1), &port) || port > 65535)
        return refuse(err, text, "PORT is not a number from 0 to 65535");

    struct span host = span_of(text, (size_t)(colon - text));
    if (host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = span_of(host.p + 1, host.n - 2);
    else if (span_index(host, ':') < host.n)
        return refuse(err, text, "an IPv6 host stands in brackets");
    if (host.n == 0 || host.n >= sizeof(a->host))
        return refuse(err, text, "HOST is empty or too long");
    memcpy(a->host, host.p, host.n);
    a->port = (int)port;
    return 0;
}

bool address_numeric(const struct address *a, struct sockaddr_storage *out)
{
    *out = (struct sockaddr_storage){0};
    return uv_ip4_addr(a->host, a->port, (struct sockaddr_in *)(void *)out) == 0 ||
           uv_ip6_addr(a->host, a->port, (struct sockaddr_in6 *)(void *)out) == 0;
}
