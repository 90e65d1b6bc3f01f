/* terminal - see terminal.h. */
#include "cli/terminal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"

/* Another screen, no cursor, no wrapping of long lines; and back. */
#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static struct termios before;
static volatile sig_atomic_t ended, resized;

static void on_end(int number)
{
    ended = 1;
}

static void on_resize(int number)
{
    resized = 1;
}

static void catch (int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler}; /* no SA_RESTART: poll(2) comes back */

    sigaction(number, &action, NULL);
}

static void say(const char *text, size_t n)
{
    fwrite(text, 1, n, stdout);
    fflush(stdout);
}

bool terminal_begin(void)
{
    const char *term = getenv("TERM");
    struct termios now;

    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || (term && strcmp(term, "dumb") == 0) ||
        tcgetattr(STDIN_FILENO, &before) != 0)
        return false;
    now = before;
    now.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    now.c_cc[VMIN] = 0;
    now.c_cc[VTIME] = 0;
    now.c_cc[VSUSP] = _POSIX_VDISABLE;
    catch (SIGINT, on_end);
    catch (SIGTERM, on_end);
    catch (SIGHUP, on_end);
    catch (SIGWINCH, on_resize);
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &now) != 0)
        return false;
    say(ENTER, sizeof(ENTER) - 1);
    return true;
}

void terminal_end(void)
{
    say(LEAVE, sizeof(LEAVE) - 1);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
}

unsigned terminal_rows(void)
{
    struct winsize size;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row ? size.ws_row : 24;
}

void terminal_draw(struct span text)
{
    struct buf out = {0};
    unsigned room = terminal_rows();

    buf_add_str(&out, "\033[H");
    while (text.n && room-- > 0) {
        size_t n = span_index(text, '\n');
        /* The last row has no line feed, or the screen would move. */
        buf_addf(&out, "%.*s\033[K%s", (int)n, text.p, room ? "\n" : "");
        n += n < text.n;
        text = span_of(text.p + n, text.n - n);
    }
    buf_add_str(&out, "\033[J");
    say(buf_head(&out), buf_pending(&out));
    buf_fini(&out);
}

bool terminal_wait(uint64_t ms)
{
    uint64_t until = clock_ns() + ms * 1000000, now;
    char keys[64];

    resized = 0;
    while (!ended && !resized && (now = clock_ns()) < until) {
        struct pollfd p = {STDIN_FILENO, POLLIN, 0};
        int rc = poll(&p, 1, (int)((until - now) / 1000000 + 1));
        if (rc < 0 && errno != EINTR)
            return true;
        if (rc <= 0)
            continue;
        ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));
        if (n <= 0 || memchr(keys, 'q', (size_t)n) || memchr(keys, 'Q', (size_t)n))
            return true;
    }
    return ended;
}
