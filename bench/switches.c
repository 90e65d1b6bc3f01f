/* switches - see switches.h. */
#include "switches.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/buf.h"
#include "base/log.h"

#define DEFAULT_SPAN_NS UINT64_C(1000000000)

struct event {
    uint64_t began_ns, acked_ns;
    int version;
};

struct switches {
    int fd;               /* owned */
    struct buf held;      /* a line that is not complete */
    struct event *events; /* owned; in the order of their acknowledgement */
    size_t count, room;
};

struct switches *switches_open(const char *path, struct err *err)
{
    int fd =
        strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0) {
        err_set(err, 0, "cannot open the switch log %s: %s", path, strerror(errno));
        return NULL;
    }
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        err_set(err, 0, "cannot read the switch log %s without waiting: %s", path, strerror(errno));
        close(fd);
        return NULL;
    }
    struct switches *s = NEW(struct switches);
    s->fd = fd;
    return s;
}

void switches_close(struct switches *s)
{
    if (!s)
        return;
    close(s->fd);
    buf_fini(&s->held);
    free(s->events);
    free(s);
}

size_t switches_count(const struct switches *s)
{
    return s->count;
}

static void add_line(struct switches *s, const char *line, struct names *names)
{
    char version[64];
    unsigned long long acked, began = 0;

    int got = sscanf(line, "%llu %63s %llu", &acked, version, &began);
    if (got < 2) {
        log_warn("switch log: not \"NS VERSION [BEGIN_NS]\": %s", line);
        return;
    }
    if (got < 3)
        began = acked > DEFAULT_SPAN_NS ? acked - DEFAULT_SPAN_NS : 0;
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->events = mem_grow(s->events, s->room * sizeof(*s->events));
    }
    s->events[s->count++] = (struct event){began, acked, names_index(names, version)};
}

void switches_read(struct switches *s, struct names *names)
{
    ssize_t n;

    /* A FIFO reads as ended while no writer has it open: more may come. */
    while ((n = read(s->fd, buf_room(&s->held, 4096), 4096)) > 0)
        buf_added(&s->held, (size_t)n);
    for (;;) {
        struct span pending = buf_span(&s->held);
        size_t at = span_index(pending, '\n');
        if (at == pending.n)
            break;
        char *line = span_dup(span_of(pending.p, at));
        add_line(s, line, names);
        free(line);
        buf_consume(&s->held, at + 1);
    }
}

bool switches_contradicts(const struct switches *s, const struct record *r)
{
    size_t low = 0, high = s->count;

    /* The first switch that was acknowledged after the request had started. */
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->events[mid].acked_ns > r->started_ns)
            high = mid;
        else
            low = mid + 1;
    }
    if (low == 0 || s->events[low - 1].version == r->version)
        return false;
    for (size_t i = low; i < s->count && s->events[i].began_ns <= r->ended_ns; i++)
        if (s->events[i].version == r->version)
            return false;
    return true;
}
