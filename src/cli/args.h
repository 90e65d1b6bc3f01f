/*
 * args - the command line, taken apart.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

// clang-format off
/*    id        long            short  value       help */
#define OPTIONS(X)                                                                                  \
    X(SOCKET,   "--socket",     "-S",  "PATH",     "the admin socket (SEGUE_SOCKET, else ./run/admin.sock)") \
    X(JSON,     "--json",       NULL,  NULL,       "print the JSON of the admin API")               \
    X(HELP,     "--help",       "-h",  NULL,       "show the help of a command")                    \
    X(CONFIG,   "--config",     "-c",  "FILE",     "the configuration (segue.yaml)")                \
    X(WATCH,    "--watch",      "-w",  NULL,       "show it again every second")                    \
    X(ONCE,     "--once",       NULL,  NULL,       "show it once")                                  \
    X(DELAY,    "--delay",      "-d",  "SECONDS",  "how long rates are measured, and how often it is drawn (1)") \
    X(VERSION,  "--version",    NULL,  "NAME",     "what the new version is called (the next free vN)") \
    X(ENGINE,   "--engine",     NULL,  "ENGINE",   "what runs it (builtin)")                        \
    X(NO_WAIT,  "--no-wait",    NULL,  NULL,       "return when the update has begun")              \
    X(LINES,    "--lines",      "-n",  "N",        "how many lines (50)")                           \
    X(TO,       "--to",         "-t",  "LANGUAGE", "the language to translate into")                \
    X(FROM,     "--from",       "-f",  "LANGUAGE", "the language of the text (looked at, if not given)") \
    X(MODEL,    "--model",      "-m",  "MODEL",    "which model")                                   \
    X(ADDRESS,  "--address",    "-a",  "HOST:PORT","the gateway (asked from the manager, if not given)") \
    X(CONCURRENCY, "--concurrency", NULL, "N",     "how many requests it may have at a time")       \
    X(RATE,     "--rate",       NULL,  "N/s",      "how many requests it may begin in a second")    \
    X(ENGINES,  "--engines",    NULL,  NULL,       "end the engines too")                           \
    X(VERBOSE,  "--verbose",    "-v",  NULL,       "say on standard error which version answered")
// clang-format on

enum option {
#define X(id, name, brief, value, help) OPTION_##id,
    OPTIONS(X)
#undef X
        NOPTIONS
};

#define OPTION_BIT(id) (UINT32_C(1) << OPTION_##id)

struct option_row {
    const char *name, *brief, *value, *help;
};

const struct option_row *option_row(enum option o);

enum { WORDS_MAX = 8, MODELS_MAX = 64 };

struct args {
    const char *words[WORDS_MAX]; /* borrowed from argv; without the program's name */
    int nwords;
    const char *models[MODELS_MAX]; /* borrowed; each value of --model */
    int nmodels;
    const char *options[NOPTIONS]; /* borrowed; NULL: not given; "" for one without a value */
};

/* -1 with a sentence: an unknown option, a missing value, too many words. */
int args_parse(struct args *args, int argc, char **argv, struct err *err) MUST_CHECK;

static inline bool args_has(const struct args *args, enum option o)
{
    return args->options[o] != NULL;
}
