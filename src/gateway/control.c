/* gateway/control - see control.h. */
#include "gateway/control.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static int wait_writable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 5000) == 1 ? 0 : -1;
}

int control_send(int fd, struct span json, const int *fds, size_t nfds, struct err *err)
{
    unsigned char head[4] = {json.n & 255, json.n >> 8 & 255, json.n >> 16 & 255, json.n >> 24};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
    } rights;
    struct iovec pieces[2] = {{head, 4}, {(char *)json.p, json.n}};
    struct msghdr m = {.msg_iov = pieces, .msg_iovlen = 2};

    ALWAYS(json.n <= CONTROL_MESSAGE_MAX && nfds <= CONTROL_FDS_MAX);
    if (nfds) {
        m.msg_control = rights.room;
        m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    }
    while (pieces[0].iov_len + pieces[1].iov_len) {
        ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && wait_writable(fd) == 0)
            continue;
        if (n < 0)
            return err_set(err, 500, "control socket: %s", strerror(errno));
        m.msg_control = NULL; /* the descriptors went with the first byte */
        m.msg_controllen = 0;
        for (int i = 0; i < 2; i++) {
            size_t k = (size_t)n < pieces[i].iov_len ? (size_t)n : pieces[i].iov_len;
            pieces[i].iov_base = (char *)pieces[i].iov_base + k;
            pieces[i].iov_len -= k;
            n -= (ssize_t)k;
        }
    }
    return 0;
}

void control_reader_fini(struct control_reader *r)
{
    for (size_t i = 0; i < r->nfds; i++)
        close(r->fds[i]);
    r->nfds = 0;
    buf_fini(&r->in);
}

static void take_fds(struct control_reader *r, struct msghdr *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (r->nfds < CONTROL_FDS_MAX)
                r->fds[r->nfds++] = fd;
            else
                close(fd);
        }
    }
}

int control_read(struct control_reader *r, int fd, struct err *err)
{
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(CONTROL_FDS_MAX * sizeof(int))];
    } rights;
    struct iovec piece = {buf_room(&r->in, 65536), 65536};
    struct msghdr m = {.msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = rights.room,
                       .msg_controllen = sizeof(rights.room)};
    ssize_t n;

    do
        n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_set(err, errno == EAGAIN ? 0 : 500, "control socket: %s", strerror(errno));
    take_fds(r, &m);
    buf_added(&r->in, (size_t)n);
    return n > 0;
}

int control_take_fd(struct control_reader *r)
{
    if (r->nfds == 0)
        return -1;
    int fd = r->fds[0];
    r->nfds--;
    memmove(r->fds, r->fds + 1, r->nfds * sizeof(int));
    return fd;
}

bool control_next(struct control_reader *r, struct span *json, bool *broken)
{
    const unsigned char *p = (const unsigned char *)buf_head(&r->in);
    size_t have = buf_pending(&r->in);

    *broken = false;
    if (have < 4)
        return false;
    size_t n = p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    if (n > CONTROL_MESSAGE_MAX) {
        *broken = true;
        return false;
    }
    if (have < 4 + n)
        return false;
    *json = span_of(buf_head(&r->in) + 4, n);
    r->in.pos += 4 + n; /* not buf_consume(): the bytes stay for the caller */
    return true;
}
