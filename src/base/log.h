/*
 * log - lines for people, on standard error.
 *
 *   2026-01-31T12:00:00.123Z info  gateway[4711] worker 0: listening
 *
 * A line is written with one write(2).  When standard error cannot take it
 * at once (a full pipe, a stopped reader) the line is dropped and counted:
 * no loop ever waits for a log reader.  Control bytes in a line become '?'.
 */
#pragma once
#include "base/always.h"

#define LOG_LEVELS(X) \
    X(DEBUG, "debug") \
    X(INFO, "info")   \
    X(WARN, "warn")   \
    X(ERROR, "error")

enum log_level {
#define X(id, name) LOG_##id,
    LOG_LEVELS(X)
#undef X
};

/* Names this process in its lines; `who` is copied (16 bytes at most). */
void log_start(const char *who, enum log_level least);

/* Level by name ("info"); -1 when there is no such level. */
int log_level_by_name(const char *name);

void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
