/*
 * listen - addresses that the gateway binds, brought into one form.
 *
 * Only numeric addresses: a name could mean something else at the next start.
 * The form that leaves here is "127.0.0.1:8080" or "[::1]:8080", with https:// before it
 * for TLS.
 */
#include <arpa/inet.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "config/internal.h"

static bool port_parse(struct span s, unsigned *out, const char **why)
{
    uint64_t port = 0;

    if (s.n == 0)
        *why = "the port is missing; write HOST:PORT, for example 127.0.0.1:8080";
    else if (!span_u64(s, &port) || port > 65535)
        *why = "the port must be a number from 0 to 65535";
    else {
        *out = (unsigned)port;
        return true;
    }
    return false;
}

static bool parse6(struct span s, char **address, const char **why)
{
    struct in6_addr ip6;
    size_t close = span_index(s, ']');

    if (close == s.n || close + 1 >= s.n || s.p[close + 1] != ':') {
        *why = "an IPv6 address is written [ADDRESS]:PORT, for example [::1]:8080";
        return false;
    }
    unsigned port;
    if (!port_parse(span_of(s.p + close + 2, s.n - close - 2), &port, why))
        return false;
    char *host = span_dup(span_of(s.p + 1, close - 1));
    bool ok = inet_pton(AF_INET6, host, &ip6) == 1;
    if (ok)
        *address = str_fmt("[%s]:%u", host, port);
    else
        *why = "what stands in brackets is not an IPv6 address";
    free(host);
    return ok;
}

bool address_is_tls(const char *address)
{
    return span_starts(span_str(address), SPAN_LIT(ADDRESS_TLS));
}

static bool parse_plain(const char *text, char **address, const char **why)
{
    struct span s = span_str(text);
    struct in_addr ip4;
    unsigned port;

    if (s.n && s.p[0] == '[')
        return parse6(s, address, why);
    size_t colon = span_index(s, ':');
    struct span after = colon < s.n ? span_of(s.p + colon + 1, s.n - colon - 1) : span_of(NULL, 0);
    if (span_index(after, ':') < after.n) {
        *why = "an IPv6 address is written [ADDRESS]:PORT, for example [::1]:8080";
        return false;
    }
    if (!port_parse(after, &port, why))
        return false;
    char *host = span_dup(span_of(s.p, colon));
    const char *numeric = strcmp(host, "localhost") == 0 ? "127.0.0.1"
                          : strcmp(host, "*") == 0       ? "0.0.0.0"
                                                         : host;
    bool ok = inet_pton(AF_INET, numeric, &ip4) == 1;
    if (ok)
        *address = str_fmt("%s:%u", numeric, port);
    else
        *why = "the host must be a numeric address, `localhost`, or `*`";
    free(host);
    return ok;
}

bool listen_parse(const char *text, char **address, const char **why)
{
    char *plain = NULL;

    if (!address_is_tls(text))
        return parse_plain(text, address, why);
    if (!parse_plain(text + strlen(ADDRESS_TLS), &plain, why))
        return false;
    *address = str_fmt(ADDRESS_TLS "%s", plain);
    free(plain);
    return true;
}
