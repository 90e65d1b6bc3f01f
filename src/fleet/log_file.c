/* log_file - see log_file.h. */
#include "fleet/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/span.h"
#include "fleet/judge.h"

#define MARK "== segue "

enum { TAIL_MOST = 1 << 20 };

int log_file_open(const char *path, struct err *err)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return err_set(err, 500,
                       "cannot open the engine's log file %s: %s; `state` names its folder", path,
                       strerror(errno));
    return fd;
}

static void write_all(int fd, const char *p, size_t n, const char *what)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            log_warn("cannot write to an engine's log (%s): %s", what, strerror(errno));
            return;
        }
        p += done;
        n -= (size_t)done;
    }
}

void log_file_mark(int fd, const char *what)
{
    char when[CLOCK_TEXT_MAX];

    clock_text(clock_wall_ms(), when);
    char *line = str_fmt(MARK "%s %s\n", when, what);
    write_all(fd, line, strlen(line), "start line");
    free(line);
}

/* The last n bytes at most; *got says how many; the caller frees them. */
static char *read_end(int fd, size_t n, size_t *got)
{
    struct stat st;

    *got = 0;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return NULL;
    if ((off_t)n > st.st_size)
        n = (size_t)st.st_size;
    char *text = mem_alloc(n + 1);
    ssize_t done = pread(fd, text, n, st.st_size - (off_t)n);
    *got = done > 0 ? (size_t)done : 0;
    text[*got] = '\0';
    return text;
}

bool log_file_bound(const char *path)
{
    struct stat st;
    size_t n;

    if (stat(path, &st) != 0 || st.st_size <= LOG_FILE_MOST)
        return false;
    int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        return false;
    char *text = read_end(fd, LOG_FILE_KEEP, &n);
    if (ftruncate(fd, 0) != 0) {
        log_warn("cannot cut the log file %s: %s", path, strerror(errno));
    } else if (text) {
        /* From the first whole line on, unless it is all one line. */
        const char *line = memchr(text, '\n', n);
        const char *from = line && (size_t)(line - text) + 1 < n ? line + 1 : text;
        write_all(fd, from, n - (size_t)(from - text), path);
    }
    free(text);
    close(fd);
    return true;
}

/* Where the last `lines` lines of text begin. */
static const char *last_lines(const char *text, size_t n, unsigned lines)
{
    const char *p = text + n;

    if (p > text && p[-1] == '\n')
        p--;
    while (p > text) {
        if (p[-1] == '\n' && --lines == 0)
            break;
        p--;
    }
    return p;
}

char *log_file_tail(const char *path, unsigned lines, struct err *err)
{
    size_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd >= 0 ? read_end(fd, TAIL_MOST, &n) : NULL;

    if (!text)
        err_set(err, 404, "there is no log %s", path);
    if (fd >= 0)
        close(fd);
    if (!text)
        return NULL;
    char *out = str_dup(lines ? last_lines(text, n, lines) : "");
    free(text);
    return out;
}

static const char *after_last_mark(const char *text)
{
    const char *from = text;

    for (const char *p = text; (p = strstr(p, MARK)); p++)
        if (p == text || p[-1] == '\n') {
            const char *end = strchr(p, '\n');
            from = end ? end + 1 : p + strlen(p);
        }
    return from;
}

/* Appends one line, cut to a length fit for a sentence. */
static void add_words(char *out, size_t room, struct span line)
{
    size_t used = strlen(out);
    char words[300];

    judge_excerpt(line, words, sizeof(words));
    if (used + strlen(words) + 4 < room)
        snprintf(out + used, room - used, "%s%s", used ? " | " : "", words);
}

void log_file_last_words(const char *path, unsigned lines, char *out, size_t room)
{
    char *text = log_file_tail(path, 200, NULL);

    out[0] = '\0';
    if (!text)
        return;
    const char *from = after_last_mark(text);
    struct span rest = span_str(last_lines(from, strlen(from), lines));
    while (rest.n > 0) {
        size_t end = span_index(rest, '\n');
        struct span line = span_trim(span_of(rest.p, end));

        if (line.n > 0)
            add_words(out, room, line);
        rest.p += end < rest.n ? end + 1 : end;
        rest.n -= end < rest.n ? end + 1 : end;
    }
    free(text);
}
