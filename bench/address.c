/* address - see address.h. */
#include "address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/span.h"

static int parse_unix(struct address *a, const char *path, struct err *err)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&a->sa;

    if (!*path || strlen(path) >= sizeof(un->sun_path))
        return err_set(err, 0, "a unix socket's path has 1 to %zu bytes: unix:%s",
                       sizeof(un->sun_path) - 1, path);
    un->sun_family = AF_UNIX;
    strcpy(un->sun_path, path);
    a->len = sizeof(*un);
    snprintf(a->text, sizeof(a->text), "unix:%s", path);
    return 0;
}

int address_parse(struct address *a, const char *text, struct err *err)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&a->sa;
    char host[64] = "127.0.0.1";
    uint64_t port;

    *a = (struct address){0};
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(a, text + 5, err);
    if (strncmp(text, "http://", 7) == 0)
        text += 7;

    struct span rest = span_of(text, strcspn(text, "/"));
    size_t colon = span_index(rest, ':');
    if (colon < rest.n && colon < sizeof(host)) {
        if (colon)
            snprintf(host, sizeof(host), "%.*s", (int)colon, text);
        rest = span_of(rest.p + colon + 1, rest.n - colon - 1);
    }
    if (strcmp(host, "localhost") == 0)
        strcpy(host, "127.0.0.1");
    in->sin_family = AF_INET;
    if (!span_u64(rest, &port) || port > 65535 || inet_pton(AF_INET, host, &in->sin_addr) != 1)
        return err_set(err, 0, "not HOST:PORT with a numeric IPv4 host, PORT or unix:PATH: %s",
                       text);
    in->sin_port = htons((uint16_t)port);
    a->len = sizeof(*in);
    snprintf(a->text, sizeof(a->text), "%s:%u", host, (unsigned)port);
    return 0;
}

bool address_is_unix(const struct address *a)
{
    return a->sa.ss_family == AF_UNIX;
}

static void learn_port(struct address *a, int fd)
{
    struct sockaddr_in *in = (struct sockaddr_in *)&a->sa;
    char host[INET_ADDRSTRLEN];

    if (address_is_unix(a) || getsockname(fd, (struct sockaddr *)&a->sa, &a->len) < 0)
        return;
    inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
    snprintf(a->text, sizeof(a->text), "%s:%u", host, (unsigned)ntohs(in->sin_port));
}

int address_listen(struct address *a, bool shared, struct err *err)
{
    int one = 1;
    int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return err_set(err, 0, "cannot make a socket for %s: %s", a->text, strerror(errno));
    if (address_is_unix(a)) {
        unlink(((struct sockaddr_un *)&a->sa)->sun_path);
    } else {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (shared)
            setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
        /* Inherited by what is accepted: one system call less for each connection. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    if (bind(fd, (struct sockaddr *)&a->sa, a->len) < 0 || listen(fd, 4096) < 0) {
        err_set(err, 0, "cannot listen on %s: %s", a->text, strerror(errno));
        close(fd);
        return -1;
    }
    learn_port(a, fd);
    return fd;
}

int address_connect(const struct address *a)
{
    int one = 1;
    int fd = socket(a->sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (!address_is_unix(a))
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (const struct sockaddr *)&a->sa, a->len) < 0 && errno != EINPROGRESS) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}
