/*
 * log_file - an engine's standard output and error, in one file of bounded size.
 *
 * The engine writes by itself (no pipe that could fill up, nothing lost when
 * the manager dies), always at the end (O_APPEND).  So the file can be cut
 * under it: above LOG_FILE_MOST bytes the last LOG_FILE_KEEP are kept.  What the
 * engine writes in the very moment of cutting may be lost.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum { LOG_FILE_MOST = 16 << 20, LOG_FILE_KEEP = 4 << 20 };

/* Opens (or creates, mode 0600) for an engine to write to; a descriptor or -1. */
int log_file_open(const char *path, struct err *err) MUST_CHECK;

/* Writes the line that parts one start from the next. */
void log_file_mark(int fd, const char *what);

/* Cuts the file if it is too long. True when it was cut. */
bool log_file_bound(const char *path);

/* The last `lines` lines, each with its line feed; new string. Looks at no more
 * than the last mebibyte. NULL with err (404) when there is no such file. */
char *log_file_tail(const char *path, unsigned lines, struct err *err);

/* The last `lines` lines since the last mark, joined by " | ", fit for a
 * sentence; "" when the engine wrote nothing. */
void log_file_last_words(const char *path, unsigned lines, char *out, size_t room);
