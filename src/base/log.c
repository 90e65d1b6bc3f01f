/*
 * log - see log.h.
 *
 * Standard error is shared with whoever started us, so its O_NONBLOCK flag is
 * not ours to set (it belongs to the open file, not to the descriptor).  We
 * ask poll(2) instead; a pipe that polls writable takes PIPE_BUF bytes without
 * waiting, and no line is longer than that.
 */
#include "base/log.h"

#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static struct {
    char who[17];
    enum log_level least;
    atomic_ulong dropped;
} state = {.who = "segue", .least = LOG_INFO};

static const char *const names[] = {
#define X(id, name) [LOG_##id] = name,
    LOG_LEVELS(X)
#undef X
};

void log_start(const char *who, enum log_level least)
{
    snprintf(state.who, sizeof(state.who), "%s", who);
    state.least = least;
}

int log_level_by_name(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -1;
}

static void put(const char *line, size_t n)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

    if (poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT) ||
        write(STDERR_FILENO, line, n) != (ssize_t)n)
        atomic_fetch_add_explicit(&state.dropped, 1, memory_order_relaxed);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    char line[PIPE_BUF];
    char when[CLOCK_TEXT_MAX];
    va_list args;

    if (level < state.least)
        return;
    clock_text(clock_wall_ms(), when);
    unsigned long lost = atomic_exchange_explicit(&state.dropped, 0, memory_order_relaxed);
    size_t room = sizeof(line) - 1; /* one byte for the line feed */
    int n = snprintf(line, room, "%s %-5s %s[%d] ", when, names[level], state.who, (int)getpid());
    if (lost)
        n += snprintf(line + n, room - (size_t)n, "(%lu lines lost) ", lost);
    va_start(args, fmt);
    int more = vsnprintf(line + n, room - (size_t)n, fmt, args);
    va_end(args);
    size_t end = (size_t)n + (size_t)(more < 0 ? 0 : more);
    if (end >= room)
        end = room - 1;
    for (size_t i = (size_t)n; i < end; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[end++] = '\n';
    put(line, end);
}
