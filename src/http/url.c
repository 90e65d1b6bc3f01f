/* url - see url.h. */
#include "http/url.h"

#include <stdio.h>

static int refuse(struct err *err, const char *url, const char *why)
{
    return err_set(err, 400,
                   "url \"%s\": %s; write http://HOST[:PORT][/PREFIX] or unix:/PATH/TO/SOCKET", url,
                   why);
}

static int copy(char out[ADDRESS_TEXT_MAX], const char *head, struct span s)
{
    size_t n = strlen(head);

    if (n + s.n >= ADDRESS_TEXT_MAX)
        return -1;
    memcpy(out, head, n);
    if (s.n)
        memcpy(out + n, s.p, s.n);
    out[n + s.n] = '\0';
    return 0;
}

/* Where HOST ends in HOST[:PORT]; 0 when there is no host. */
static size_t host_length(struct span s)
{
    if (s.n && s.p[0] == '[') {
        size_t close = span_index(s, ']');
        return close > 1 && close < s.n ? close + 1 : 0;
    }
    return span_index(s, ':');
}

int url_split(const char *url, char address[ADDRESS_TEXT_MAX], char prefix[ADDRESS_TEXT_MAX],
              struct err *err)
{
    struct span s = span_str(url);

    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || s.p[i] == 0x7f)
            return refuse(err, url, "it holds white space or a control byte");

    prefix[0] = '\0';
    if (span_starts(s, SPAN_LIT("unix:"))) {
        if (s.n == 5)
            return refuse(err, url, "the path of the socket is missing");
        if (copy(address, "", s))
            return refuse(err, url, "it is too long");
        return 0;
    }
    if (s.n < 7 || !span_eq_nocase(span_of(s.p, 7), SPAN_LIT("http://")))
        return refuse(err, url, "it begins with neither http:// nor unix:");

    s = span_of(s.p + 7, s.n - 7);
    if (span_index(s, '?') < s.n || span_index(s, '#') < s.n)
        return refuse(err, url, "it has a query or a fragment");
    size_t slash = span_index(s, '/');
    struct span authority = span_of(s.p, slash), path = span_of(s.p + slash, s.n - slash);
    if (span_index(authority, '@') < authority.n)
        return refuse(err, url, "it has user information");

    size_t host = host_length(authority);
    if (host == 0)
        return refuse(err, url, "the host is missing");
    struct span port = SPAN_LIT("80");
    uint64_t number;
    if (host < authority.n)
        port = span_of(authority.p + host + 1, authority.n - host - 1);
    if (host < authority.n && authority.p[host] != ':')
        return refuse(err, url, "the host is not valid");
    if (port.n > 5 || !span_u64(port, &number) || number == 0 || number > 65535)
        return refuse(err, url, "the port is not a number from 1 to 65535");

    while (path.n && path.p[path.n - 1] == '/')
        path.n--;
    if (host + 1 + port.n >= ADDRESS_TEXT_MAX || copy(prefix, "", path))
        return refuse(err, url, "it is too long");
    snprintf(address, ADDRESS_TEXT_MAX, SPAN_FMT ":" SPAN_FMT, (int)host, authority.p,
             SPAN_ARG(port));
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool url_decode(struct span s, char *out, size_t room)
{
    size_t n = 0;

    for (size_t i = 0; i < s.n; i++) {
        int c = (unsigned char)s.p[i];
        if (c == '%') {
            int high = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(s.p[i + 2]) : -1;
            if (low < 0)
                return false;
            c = high << 4 | low;
            i += 2;
        }
        if (c == '\0' || n + 1 >= room)
            return false;
        out[n++] = (char)c;
    }
    if (n >= room)
        return false;
    out[n] = '\0';
    return true;
}
