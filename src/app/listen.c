/* app/listen - see listen.h. */
#include "app/listen.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/span.h"

enum { BACKLOG = 4096 };

struct endpoint {
    struct sockaddr_storage addr;
    socklen_t len;
    unsigned port;
};

static int parse(const char *address, struct endpoint *e, struct err *err)
{
    struct sockaddr_in *in = (void *)&e->addr;
    struct sockaddr_in6 *in6 = (void *)&e->addr;
    const char *colon = strrchr(address, ':');
    char host[64] = "";
    uint64_t port;

    memset(e, 0, sizeof(*e));
    if (!colon || !span_u64(span_str(colon + 1), &port) || port > 65535)
        return err_set(err, 400, "listen: '%s' is not HOST:PORT", address);
    size_t n = (size_t)(colon - address);
    const char *from = address;
    if (n > 2 && from[0] == '[' && from[n - 1] == ']')
        from++, n -= 2;
    if (n < sizeof(host))
        memcpy(host, from, n);
    if (strcmp(host, "localhost") == 0)
        strcpy(host, "127.0.0.1");
    e->port = (unsigned)port;
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        e->len = sizeof(*in);
        return 0;
    }
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons((uint16_t)port);
        e->len = sizeof(*in6);
        return 0;
    }
    return err_set(err, 400, "listen: the host in '%s' must be an IP address", address);
}

/* The inode of the socket that listens on a port, from /proc/net/tcp{,6}. */
static unsigned long listening_inode(const char *table, unsigned port)
{
    FILE *f = fopen(table, "re");
    char line[512];
    unsigned long found = 0;

    while (f && !found && fgets(line, sizeof(line), f)) {
        char local[64];
        unsigned state;
        unsigned long inode;
        if (sscanf(line, " %*d: %63s %*s %x %*s %*s %*s %*s %*s %lu", local, &state, &inode) == 3 &&
            state == 10 /* TCP_LISTEN */ && strrchr(local, ':') &&
            strtoul(strrchr(local, ':') + 1, NULL, 16) == port)
            found = inode;
    }
    if (f)
        fclose(f);
    return found;
}

static bool holds(const char *pid, const char *target)
{
    char path[300], link[64];
    DIR *d;
    struct dirent *e;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    d = opendir(path);
    while (d && !found && (e = readdir(d))) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);
        if (n > 0) {
            link[n] = '\0';
            found = strcmp(link, target) == 0;
        }
    }
    if (d)
        closedir(d);
    return found;
}

void listen_owner(unsigned port, char *out, unsigned long room)
{
    unsigned long inode = listening_inode("/proc/net/tcp", port);
    char target[64], path[300], name[64] = "?";
    struct dirent *e;

    out[0] = '\0';
    if (!inode)
        inode = listening_inode("/proc/net/tcp6", port);
    if (!inode)
        return;
    snprintf(target, sizeof(target), "socket:[%lu]", inode);
    DIR *d = opendir("/proc");
    while (d && (e = readdir(d))) {
        if (!isdigit((unsigned char)e->d_name[0]) || !holds(e->d_name, target))
            continue;
        snprintf(path, sizeof(path), "/proc/%s/comm", e->d_name);
        FILE *f = fopen(path, "re");
        if (f) {
            if (fgets(name, sizeof(name), f))
                name[strcspn(name, "\n")] = '\0';
            fclose(f);
        }
        snprintf(out, room, "pid %s (%s)", e->d_name, name);
        break;
    }
    if (d)
        closedir(d);
}

static int bind_one(const struct endpoint *e, bool share)
{
    int one = 1;
    int fd = socket(e->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (e->addr.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (share)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)&e->addr, e->len) < 0 ||
        (share && listen(fd, BACKLOG) < 0)) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

static int cannot(const char *address, const struct endpoint *e, struct err *err)
{
    int why = errno;
    char owner[128];

    if (why != EADDRINUSE)
        return err_set(err, 500, "cannot listen on %s: %s", address, strerror(why));
    listen_owner(e->port, owner, sizeof(owner));
    return err_set(err, 409,
                   "cannot listen on %s: port %u is in use%s%s; change `listen` or end it", address,
                   e->port, owner[0] ? " by " : "", owner);
}

/* Port 0: all sockets of the group get the port that the first one was given. */
static int learn_port(struct endpoint *e, int fd)
{
    socklen_t n = sizeof(e->addr);

    if (getsockname(fd, (struct sockaddr *)&e->addr, &n) < 0)
        return -1;
    e->port = ntohs(e->addr.ss_family == AF_INET ? ((struct sockaddr_in *)&e->addr)->sin_port
                                                 : ((struct sockaddr_in6 *)&e->addr)->sin6_port);
    return 0;
}

int listen_open(const char *address, unsigned n, int *fds, char actual[LISTEN_TEXT_MAX],
                struct err *err)
{
    struct endpoint e;

    if (parse(address, &e, err) < 0)
        return -1;
    int probe = bind_one(&e, false);
    if (probe < 0)
        return cannot(address, &e, err);
    close(probe);
    for (unsigned i = 0; i < n; i++) {
        fds[i] = bind_one(&e, true);
        if (fds[i] >= 0 && learn_port(&e, fds[i]) == 0)
            continue;
        cannot(address, &e, err);
        while (i-- > 0)
            close(fds[i]);
        return -1;
    }
    snprintf(actual, LISTEN_TEXT_MAX, "%.*s:%u", (int)(strrchr(address, ':') - address), address,
             e.port);
    return 0;
}
